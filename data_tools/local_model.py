"""Encoders on this machine: a multilingual BERT with a head that tells labels or a number, trained and asked through
transformers. The one module here that imports torch, and only inside functions. Needs the extra `[scorers]`.

Model and head are transformers' own `AutoModelForSequenceClassification`, saved as safetensors; no code of a model's
repository is run.

N: documents; R: rows of a forward pass; T: tokens of a row; C: labels, or one.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data_tools.corpus.batch import Batch
from data_tools.inputs import InputError
from data_tools.scorers.protocol import Task
from data_tools.scorers.seeds import Seed, balanced
from data_tools.tokenizers import Tokenizer

MODEL = "model"
_LENGTH_STEP = 64  # rows are padded to a multiple of it
_CUDA_ROWS = 64
_ONE_THREAD = 1 << 25  # parameters: the products of smaller models are too small to be shared out


class EncoderSettings(BaseModel):
    """How an encoder is trained. The defaults that differ by task are the paper's (§2.1.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "google-bert/bert-base-multilingual-cased"
    """A directory with a transformers model and its tokenizer, or a name on the Hugging Face hub. The paper says
    multilingual BERT without naming the checkpoint."""
    batch_size: int | None = Field(None, ge=1)
    """Default 64 for a classification, 128 for a regression."""
    lr: float | None = Field(None, gt=0)
    """Peak; default 2e-5 for a classification, 3e-4 for a regression."""
    epochs: int = Field(10, ge=1)
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which lr rises from 0; then it falls to 0, both linearly. The paper says nothing of it."""
    weight_decay: float = Field(0.01, ge=0)
    max_length: int = Field(512, ge=8)
    """Tokens of a text that are looked at, from its beginning."""
    freeze_encoder: bool = False
    """Train the head alone, as FineWeb-Edu's scorer (with the paper's lr of 3e-4) was."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; weights stay float32. auto: bfloat16 on a GPU, float32 on a CPU."""


SETTINGS = EncoderSettings


@dataclass(frozen=True)
class EncoderScorer:
    """A trained encoder. Each forward pass has one of a few shapes, filled up with empty rows, so that a document's
    score does not follow its neighbours: one row on a CPU, 64 on a GPU.
    """

    kind: ClassVar[str] = "encoder"

    task: Task
    model: Any
    coder: Any
    device: str
    dtype: str
    max_length: int

    def score(self, batch: Batch) -> npt.NDArray[np.float64]:
        """As `Scorer.score`, of the first `max_length` tokens of each text."""
        return self.score_texts(batch.texts)

    def score_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """The scores [N, C] of texts."""
        torch, _ = libraries()
        rows = _encode(self.coder, texts, self.max_length)
        groups: dict[int, list[int]] = {}
        for place, ids in enumerate(rows):
            groups.setdefault(_padded(len(ids), self.max_length), []).append(place)
        size = _CUDA_ROWS if self.device == "cuda" else 1
        raw_NC = np.zeros((len(texts), self.task.columns))
        with torch.inference_mode(), cpu_threads(self.model, self.device), _precision(self.device, self.dtype):
            for length, places in groups.items():
                for start in range(0, len(places), size):
                    taken = places[start : start + size]
                    inputs = _tensors([rows[place] for place in taken], size, length, self.coder, self.device)
                    raw_NC[taken] = self.model(**inputs).logits[: len(taken)].double().cpu().numpy()
        return _scores(raw_NC, self.task)


def load(directory: Path, manifest: Mapping[str, Any], task: Task, tokenizer: Tokenizer | None) -> EncoderScorer:
    """The scorer in a directory whose files were found whole; it has a tokenizer of its own.

    Raises:
        InputError: torch or transformers is not installed; a GPU is asked for and not there.
    """
    _, transformers = libraries()
    settings = EncoderSettings(**manifest["settings"])
    device = _device(settings)
    place = directory / MODEL
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        place, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    coder = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    length = manifest["training"]["max_length"]
    return EncoderScorer(task, model.eval().to(device), coder, device, settings.dtype, length)


def train(
    directory: Path,
    task: Task,
    settings: EncoderSettings,
    *,
    train: Sequence[Seed],
    validation: Sequence[Seed],
    balance: Sequence[str],
    tokenizer: Tokenizer | None,
    seed: int,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Fine-tune, keep the epoch that is best on the validation seeds (accuracy; mean squared error), and save it.

    The recipe's tokenizer is not used.

    Raises:
        InputError: torch or transformers is not installed, no such model, a GPU is asked for and not there, a loss that
            is no number.
    """
    torch, transformers = libraries()
    regression = task.name == "regression"
    batch_size = settings.batch_size or (128 if regression else 64)
    peak = settings.lr or (3e-4 if regression else 2e-5)
    device = _device(settings)
    torch.manual_seed(seed)
    model, coder = _pretrained(transformers, settings.model, task)
    max_length = min(settings.max_length, model.config.max_position_embeddings)
    model.to(device)
    if settings.freeze_encoder:
        model.base_model.requires_grad_(False)
    rows = _encode(coder, [seed.text for seed in train], max_length)
    targets = _targets(train, task)
    repeated = np.repeat(np.arange(len(train)), balanced(train, balance))
    steps = settings.epochs * -(-len(repeated) // batch_size)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak, weight_decay=settings.weight_decay)
    warmup = int(settings.warmup * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup)
    )
    scorer = EncoderScorer(task, model, coder, device, settings.dtype, max_length)
    epochs: list[dict[str, float]] = []
    generator = np.random.default_rng(seed)
    best = -np.inf
    for epoch in range(1, settings.epochs + 1):
        model.train()
        total = 0.0
        for taken in _batches(generator.permutation(repeated), batch_size):
            length = _padded(max(len(rows[place]) for place in taken), max_length)
            inputs = _tensors([rows[place] for place in taken], len(taken), length, coder, device)
            with _precision(device, settings.dtype):
                logits_RC = model(**inputs).logits.float()
            loss = _loss(logits_RC, torch.as_tensor(targets[taken], device=device), regression)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += float(loss.detach()) * len(taken)
        if not np.isfinite(total):
            raise InputError(f"the loss of epoch {epoch} is no number: a lower lr than {peak:g} may help")
        model.eval()
        measure = _validation(scorer, validation)
        epochs.append({"train_loss": total / len(repeated), **measure})
        on_progress(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4f}" for name, value in epochs[-1].items()))
        quality = -measure["mse"] if regression else measure["accuracy"]
        if quality > best:
            best, best_epoch = quality, epoch
            model.save_pretrained(directory / MODEL)
            coder.save_pretrained(directory / MODEL)
    chosen = {"batch_size": batch_size, "lr": peak, "max_length": max_length, "device": device}
    return {"training": {**chosen, "steps": steps, "best_epoch": best_epoch, "epochs": epochs}}


def _pretrained(transformers: Any, name: str, task: Task) -> tuple[Any, Any]:
    extra: dict[str, Any] = {"num_labels": task.columns, "use_safetensors": True}
    if task.name == "classification":
        extra |= {
            "id2label": dict(enumerate(task.labels)),
            "label2id": {label: place for place, label in enumerate(task.labels)},
        }
    try:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=False, **extra)
        return model.float(), transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the setting model is {name!r}, which cannot be loaded ({reason}): give a directory with a transformers "
            "model and its tokenizer, or a name on the Hugging Face hub"
        ) from error


def _encode(coder: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    if not texts:
        return []
    # Running text has far less than 32 characters a token: a book need not be cut up to its end.
    heads = [text[: 32 * max_length] for text in texts]
    ids: list[list[int]] = coder(heads, truncation=True, max_length=max_length, return_attention_mask=False)[
        "input_ids"
    ]
    return ids


def _padded(length: int, max_length: int) -> int:
    return min(max_length, -(-length // _LENGTH_STEP) * _LENGTH_STEP)


def _tensors(rows: Sequence[Sequence[int]], size: int, length: int, coder: Any, device: str) -> dict[str, Any]:
    """input_ids and attention_mask, int64 [size, length]; rows that are not given attend to one padding token."""
    torch, _ = libraries()
    ids_RT = np.full((size, length), coder.pad_token_id or 0, np.int64)
    mask_RT = np.zeros((size, length), np.int64)
    mask_RT[len(rows) :, 0] = 1
    for place, row in enumerate(rows):
        ids_RT[place, : len(row)] = row
        mask_RT[place, : len(row)] = 1
    given = {"input_ids": ids_RT, "attention_mask": mask_RT}
    return {name: torch.from_numpy(values).to(device) for name, values in given.items()}


def _targets(seeds: Sequence[Seed], task: Task) -> npt.NDArray[Any]:
    """[N]: places of labels, or scores as shares of the range."""
    if task.name == "classification":
        return np.array([task.labels.index(str(seed.target)) for seed in seeds], np.int64)
    shares = (np.array([float(seed.target) for seed in seeds]) - task.low) / (task.high - task.low)
    return shares.astype(np.float32)


def _loss(logits_RC: Any, targets_R: Any, regression: bool) -> Any:
    torch, _ = libraries()
    if regression:
        return torch.nn.functional.mse_loss(logits_RC[:, 0], targets_R)
    return torch.nn.functional.cross_entropy(logits_RC, targets_R)


def _scores(raw_NC: npt.NDArray[np.float64], task: Task) -> npt.NDArray[np.float64]:
    if task.name == "regression":
        return np.clip(task.low + (task.high - task.low) * raw_NC, task.low, task.high)
    shares = np.exp(raw_NC - raw_NC.max(axis=1, keepdims=True, initial=-np.inf))
    return shares / shares.sum(axis=1, keepdims=True)


def _validation(scorer: EncoderScorer, seeds: Sequence[Seed]) -> dict[str, float]:
    scores = scorer.score_texts([seed.text for seed in seeds])
    if scorer.task.name == "regression":
        truth = np.array([float(seed.target) for seed in seeds])
        return {"mse": float(np.square(scores[:, 0] - truth).mean())}
    return {"accuracy": float((scores.argmax(axis=1) == _targets(seeds, scorer.task)).mean())}


def _batches(order: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _device(settings: EncoderSettings) -> str:
    torch, _ = libraries()
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise InputError("the setting device is cuda, and torch finds no GPU: set it to auto or cpu")
    return "cuda" if there and settings.device != "cpu" else "cpu"


def _precision(device: str, dtype: str) -> AbstractContextManager[Any]:
    torch, _ = libraries()
    half = dtype == "bfloat16" or (dtype == "auto" and device == "cuda")
    return torch.autocast(device, torch.bfloat16) if half else nullcontext()


@contextmanager
def cpu_threads(model: Any, device: str) -> Iterator[None]:
    """Within it torch works on one thread where more would wait for each other most of the time: for a small model, and
    in a worker of several, whose neighbours need the other cores.
    """
    torch, _ = libraries()
    before = torch.get_num_threads()
    in_worker = os.environ.get("RAYON_NUM_THREADS") == "1"  # which data_tools.pool sets
    if device == "cpu" and (in_worker or sum(each.numel() for each in model.parameters()) < _ONE_THREAD):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def libraries() -> tuple[Any, Any]:
    """torch and transformers. Raises InputError where one is not installed."""
    try:
        return import_module("torch"), import_module("transformers")
    except ImportError as error:
        raise InputError(f"{error.name} is not installed: pip install 'megatron-aquila[scorers]'") from error
