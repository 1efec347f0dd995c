"""Where Deita's scores of complexity and quality come from: the logits that a causal language model has for the digits
1 to 6 after Deita's prompt, or a trained scorer.

E: exchanges; K: the six digits.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_tools.causal_model import CausalModel
from data_tools.corpus.batch import Batch
from data_tools.dialogues.deita_prompts import complexity_prompt, complexity_text, quality_prompt, quality_text
from data_tools.inputs import InputError
from data_tools.scorers import Scorer

DIGITS = (1, 2, 3, 4, 5, 6)
_CHARACTERS_A_TOKEN = 32  # running text has far less: a book need not be encoded up to its end

Asked = tuple[str, str | None]
"""An instruction, and the response where it is the quality that is asked for."""


class ExchangeScorer(Protocol):
    """Scores exchanges one by one; the score of one does not depend on the others. `low`, `high`: its range."""

    low: float
    high: float

    def score(self, asked: Sequence[Asked]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The scores [E], NaN where the model gives no number; and where a text was too long and was cut, [E]."""


def expected_scores(logits_EK: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Σ k·pₖ over the digits k = 1 … 6, p the softmax of their six logits alone (hkust-nlp/deita, `infer_score`): from
    1 to 6, [E]. NaN where a logit is NaN or +∞, or all are −∞.
    """
    with np.errstate(invalid="ignore"):
        weights_EK = np.exp(logits_EK - logits_EK.max(axis=1, keepdims=True, initial=-np.inf))
        scores_E: npt.NDArray[np.float64] = weights_EK @ np.array(DIGITS, np.float64) / weights_EK.sum(axis=1)
    return scores_E


class DigitScorer:
    """Deita's own way. The ids of the digits are looked up: what "1" … "6" become behind the prompt.

    A tokenizer that has the prompt's last space and a digit in one token (" 1") reads the digit there, after a prompt
    without that space: what such a model has seen in training. For Llama, Mistral and Qwen, which part digits from all
    else, the row is the tokenized prompt, as in Deita's code.

    Where a row would be longer than the model's `max_length`, the texts are cut, never the prompt around them: a
    response at its end, an instruction at its end or, where `keep_end`, at its beginning. An instruction is left at
    least half of the room.

    Raises:
        InputError: a digit is not one token of its own behind the prompt, or the prompt alone is too long.
    """

    low, high = float(DIGITS[0]), float(DIGITS[-1])

    def __init__(self, causal: CausalModel, key: str, *, quality: bool, keep_end: bool = False) -> None:
        self._causal = causal
        self._quality = quality
        self._keep_end = keep_end
        empty: Asked = ("", "" if quality else None)
        bare = _prompt(*empty)
        whole = causal.encode(bare)
        self._closing = _closing(whole, causal.encode(bare, add_special_tokens=False))
        prompt = self._open(whole)
        behind = [self._open(causal.encode(f"{bare}{digit}")) for digit in DIGITS]
        stem = behind[0][:-1]
        self._dropped = len(prompt) - len(stem)
        self.token_ids = [row[-1] for row in behind]
        alike = all(row[:-1] == stem for row in behind) and prompt[: len(stem)] == stem
        if not alike or len(set(self.token_ids)) != len(DIGITS):
            raise InputError(
                f"{key}.model is {causal.settings.model}, whose tokenizer does not make one token of each digit from 1 "
                f"to 6 behind '{bare[-12:].strip()}': no score can be read from its logits; name a model that has them"
            )
        self._fixed = len(stem)
        if self._fixed >= causal.max_length:
            raise InputError(
                f"{key}.max_length is {causal.max_length}, and the prompt without any text takes {self._fixed} tokens: "
                "raise it, or name a model with more positions"
            )

    def score(self, asked: Sequence[Asked]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """As `ExchangeScorer.score`."""
        rows, cuts = [], np.zeros(len(asked), np.bool_)
        for place, (instruction, response) in enumerate(asked):
            row, cuts[place] = self.row(instruction, response if self._quality else None)
            rows.append(row)
        return expected_scores(self._causal.next_token_logits(rows, self.token_ids)), cuts

    def row(self, instruction: str, response: str | None) -> tuple[list[int], bool]:
        """The ids that a digit follows, at most `max_length`; and whether a text was cut for it."""
        most = _CHARACTERS_A_TOKEN * self._causal.max_length
        texts = [instruction[-most:] if self._keep_end else instruction[:most], (response or "")[:most]]
        cut = texts != [instruction, response or ""]
        row = self._row(*texts)
        room = self._causal.max_length - self._fixed
        while len(row) > self._causal.max_length:
            cut = True
            of_instruction = max(room // 2, room - self._tokens(texts[1]))
            shorter = self._cut(texts[0], of_instruction, self._keep_end)
            row = self._row(shorter, self._cut(texts[1], room - self._tokens(shorter), False))
            room -= max(1, len(row) - self._causal.max_length)  # tokens merge otherwise where texts meet the prompt
        return row, cut

    def _row(self, instruction: str, response: str) -> list[int]:
        row = self._open(self._causal.encode(_prompt(instruction, response if self._quality else None)))
        return row[: len(row) - self._dropped]

    def _open(self, ids: list[int]) -> list[int]:
        """Less the special tokens that end a text."""
        return ids[: len(ids) - self._closing]

    def _tokens(self, text: str) -> int:
        return len(self._causal.encode(text, add_special_tokens=False))

    def _cut(self, text: str, tokens: int, keep_end: bool) -> str:
        """The longest beginning, or end, of `text` that has at most `tokens` tokens, found by halving."""
        fits, too_long = 0, len(text) + 1
        part: Callable[[int], str] = lambda length: text[len(text) - length :] if keep_end else text[:length]  # noqa: E731
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self._tokens(part(middle)) <= tokens:
                fits = middle
            else:
                too_long = middle
        return part(fits)


class TrainedScorer:
    """A regression of `aquila data train-scorer`; it decides itself how much of a text it reads.

    Raises:
        InputError: it is no regression.
    """

    def __init__(self, scorer: Scorer, directory: Path, key: str) -> None:
        task = scorer.task
        if task.name != "regression":
            raise InputError(
                f"{key}.trained is {directory}, which tells labels ({', '.join(task.labels)}): Deita's scores need a "
                "regression"
            )
        self.low, self.high = task.low, task.high
        self._scorer = scorer

    def score(self, asked: Sequence[Asked]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """As `ExchangeScorer.score`; nothing is cut."""
        texts = [complexity_text(said) if answer is None else quality_text(said, answer) for said, answer in asked]
        none = [""] * len(texts)
        batch = Batch([str(place) for place in range(len(texts))], texts, none, none, [{} for _ in texts])
        return self._scorer.score(batch)[:, 0].astype(np.float64), np.zeros(len(texts), np.bool_)


def _prompt(instruction: str, response: str | None) -> str:
    return complexity_prompt(instruction) if response is None else quality_prompt(instruction, response)


def _closing(whole: Sequence[int], bare: Sequence[int]) -> int:
    """How many special tokens stand behind the ids of a text."""
    for opening in range(len(whole) - len(bare) + 1):
        if whole[opening : opening + len(bare)] == bare:
            return len(whole) - len(bare) - opening
    return 0
