"""A fastText scorer: vectors of words and word pairs, averaged. Needs the extra `[fasttext]`; classification only.

fastText knows nothing but blanks between words, so a text is put in its own form first (`words`); the manifest names
that form, and a scorer of another form is refused. The package is fasttext-numpy2: fasttext 0.9.3 and fasttext-wheel
fail in `predict` on numpy 2, and all of them own the module name `fasttext`.

With one thread, which repeatable training needs, fastText sets only the first tenth of its vectors and trains the rest
from whatever memory held (`DenseMatrix::uniform` cuts the matrix in ten, one part a thread): other bytes in every run,
now and then NaN. Here all vectors are given to it as `pretrainedVectors`. Hashed n-grams cannot be given, so pairs of
words are words of their own.
"""

import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data_tools.corpus.batch import Batch
from data_tools.inputs import InputError
from data_tools.scorers.protocol import Task
from data_tools.scorers.seeds import Seed, balanced
from data_tools.tokenizers import Tokenizer

MODEL = "model.bin"
WORDS = "nfkc casefold; Han, kana and signs alone; n-grams joined by _"
_PREFIX = "__label__"
_END = "</s>"  # what fastText reads at the end of a line
# Every sign and underscore stands alone: a text can then hold neither `__label__…`, which would be read as a label, nor
# `</s>`, which would end it.
_HAN_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[^\\W_{_HAN_KANA}]+|[{_HAN_KANA}]|[^\\w\\s]|_")


class FastTextSettings(BaseModel):
    """How a fastText scorer is trained; the names are fastText's where it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(16, ge=1)
    epoch: int = Field(5, ge=1)
    lr: float = Field(0.5, gt=0)
    word_ngrams: int = Field(2, ge=1, le=5)
    """2: pairs of words, which in Chinese are pairs of characters."""
    min_count: int = Field(2, ge=1)
    """Words and n-grams that occur less often in the training seeds are not known."""
    max_characters: int = Field(2000, ge=1)
    """Only the beginning of a text is looked at, in training and scoring alike."""


SETTINGS = FastTextSettings


@dataclass(frozen=True)
class FastTextScorer:
    """`model` is fastText's; `places` leads from its labels to columns."""

    kind: ClassVar[str] = "fasttext"

    task: Task
    model: Any
    places: Mapping[str, int]
    max_characters: int
    word_ngrams: int

    def score(self, batch: Batch) -> npt.NDArray[np.float64]:
        """As `Scorer.score`. A text without a word that the model knows gets what the end of a line says."""
        lines = [words(text, self.max_characters, self.word_ngrams) for text in batch.texts]
        labels, shares = self.model.predict(lines, k=-1)
        scores_NC = np.zeros((len(batch), self.task.columns))
        for row, names, values in zip(scores_NC, labels, shares):
            row[[self.places[name] for name in names]] = values
        return scores_NC / scores_NC.sum(axis=1, keepdims=True)  # fastText adds 1e-5 to each share


def words(text: str, max_characters: int, ngrams: int = 1) -> str:
    """A text in the form `WORDS`: words between single blanks on one line, behind them their n-grams up to `ngrams`."""
    plain = unicodedata.normalize("NFKC", text[:max_characters]).casefold()
    found = _WORD.findall(plain.replace("\0", " "))
    joined = [map("_".join, zip(*(found[start:] for start in range(n)))) for n in range(2, ngrams + 1)]
    return " ".join([*found, *chain.from_iterable(joined)])


def load(directory: Path, manifest: Mapping[str, Any], task: Task, tokenizer: Tokenizer | None) -> FastTextScorer:
    """The scorer in a directory whose files were found whole; no tokenizer is used.

    Raises:
        InputError: fastText is not installed, or the texts were put in another form for training.
    """
    if manifest["words"] != WORDS:
        raise InputError(
            f"{directory} was trained on words cut as {manifest['words']!r}, this version cuts them as {WORDS!r}: "
            "train it again"
        )
    settings = manifest["settings"]
    model = _fasttext().load_model(str(directory / MODEL))
    places = {f"{_PREFIX}{place}": place for place in range(task.columns)}
    return FastTextScorer(task, model, places, settings["max_characters"], settings["word_ngrams"])


def train(
    directory: Path,
    task: Task,
    settings: FastTextSettings,
    *,
    train: Sequence[Seed],
    validation: Sequence[Seed],
    balance: Sequence[str],
    tokenizer: Tokenizer | None,
    seed: int,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Write the model into `directory` and say what the manifest shall hold beside it. One thread, so that equal seeds
    give an equal model; neither the validation seeds nor a tokenizer are used.

    Raises:
        InputError: fastText is not installed, or finds nothing to learn.
    """
    fasttext = _fasttext()
    # fastText reads its examples in order, epoch after epoch: they must not stand sorted by label or language.
    repeated = np.repeat(np.arange(len(train)), balanced(train, balance))
    generator = np.random.default_rng(seed)
    order = generator.permutation(repeated)
    lines = [words(item.text, settings.max_characters, settings.word_ngrams) for item in train]
    targets = [task.labels.index(str(item.target)) for item in train]
    counts = Counter(word for place in order.tolist() for word in lines[place].split())
    known = [_END, *(word for word, count in counts.items() if count >= settings.min_count)]
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        examples, vectors = Path(scratch) / "examples.txt", Path(scratch) / "vectors.txt"
        with examples.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{_PREFIX}{targets[place]} {lines[place]}\n" for place in order.tolist())
        with vectors.open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"{len(known)} {settings.dim}\n")
            for word in known:
                values = generator.uniform(-1 / settings.dim, 1 / settings.dim, settings.dim)
                file.write(f"{word} {' '.join(f'{value:.6f}' for value in values.tolist())}\n")
        on_progress(f"fastText: {len(known):,} words and n-grams, {settings.epoch} epochs")
        try:
            model = fasttext.train_supervised(
                str(examples),
                pretrainedVectors=str(vectors),
                dim=settings.dim,
                epoch=settings.epoch,
                lr=settings.lr,
                wordNgrams=1,
                minCount=settings.min_count,
                bucket=0,
                label=_PREFIX,
                thread=1,
                seed=seed,
                verbose=0,
            )
        except (ValueError, RuntimeError) as error:
            raise InputError(f"fastText cannot learn from these seeds: {error}") from error
    model.save_model(str(directory / MODEL))
    return {"words": WORDS, "training": {"words": len(known), "examples": len(order)}}


def _fasttext() -> Any:
    try:
        return import_module("fasttext")
    except ImportError as error:
        raise InputError("fastText is not installed: pip install 'megatron-aquila[fasttext]'") from error
