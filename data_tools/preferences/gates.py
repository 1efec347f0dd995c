"""What every candidate and every pair has to pass: private values are masked, evaluation questions kept out."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from data_tools.corpus.batch import Batch, Drop
from data_tools.corpus.decontaminate import Decontaminate, DecontaminateConfig
from data_tools.corpus.privacy import PrivacyConfig, PrivacyStep
from data_tools.preferences.outcome import Candidate
from data_tools.records import Messages, PreferencePair

EQUAL_ANSWERS = "equal-answers"


class Refused(NamedTuple):
    """Why something may not pass."""

    reason: str
    detail: Mapping[str, Any]


class Gates:
    """The corpus steps `privacy` and `decontaminate`, applied to messages.

    counts: what was masked, by type.
    """

    def __init__(self, privacy: PrivacyConfig | None, decontaminate: DecontaminateConfig | None) -> None:
        self._privacy = None if privacy is None else PrivacyStep(privacy)
        self._decontaminate = None if decontaminate is None else Decontaminate(decontaminate)
        self.counts: Counter[str] = Counter()

    @property
    def facts(self) -> Mapping[str, int]:
        """How many questions are looked for."""
        return {} if self._decontaminate is None else self._decontaminate.facts

    def candidate(self, candidate: Candidate) -> Candidate | Refused:
        """The candidate without private values: nobody else is to see them, so this comes before anything is asked."""
        texts = [*(message["content"] for message in candidate.prompt), candidate.answer]
        masked = self._masked(texts)
        if isinstance(masked, Refused):
            return masked
        if found := self._contaminated(masked):
            return found
        return replace(candidate, prompt=_with(candidate.prompt, masked[:-1]), answer=masked[-1])

    def pair(self, pair: PreferencePair) -> PreferencePair | Refused:
        """The pair without private values, which a new answer may have brought (or made up)."""
        parts = (pair.prompt, pair.chosen, pair.rejected)
        texts = [message["content"] for part in parts for message in part]
        masked = self._masked(texts)
        if isinstance(masked, Refused):
            return masked
        # Each answer after the prompt, so that a question and its options are found where they stand together.
        first, second = len(pair.prompt), len(pair.prompt) + len(pair.chosen)
        for text in (masked[:second], masked[:first] + masked[second:]):
            if found := self._contaminated(text):
                return found
        prompt, chosen, rejected = (
            _with(part, texts) for part, texts in zip(parts, (masked[:first], masked[first:second], masked[second:]))
        )
        if chosen == rejected:
            return Refused(EQUAL_ANSWERS, {})
        return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)

    def masked(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """JSON values with the private ones in their texts masked: what a model said is kept too."""
        texts: list[str] = []
        _walk(value, lambda text: texts.append(text) or text)  # type: ignore[func-returns-value]
        masked = texts if self._privacy is None else self._privacy(_batch(texts)).texts
        new = iter([old if found is None else found for found, old in zip(masked, texts)] if masked else texts)
        whole = _walk(value, lambda _: next(new))
        assert isinstance(whole, dict)
        return whole

    def _masked(self, texts: Sequence[str]) -> list[str] | Refused:
        if self._privacy is None:
            return list(texts)
        outcome = self._privacy(_batch(texts))
        self.counts.update(outcome.counts)
        if drop := next((drop for drop in outcome.drops if drop is not None), None):
            return _refused(drop)
        return (
            [new if new is not None else old for new, old in zip(outcome.texts, texts)] if outcome.texts else [*texts]
        )

    def _contaminated(self, texts: Sequence[str]) -> Refused | None:
        if self._decontaminate is None:
            return None
        outcome = self._decontaminate(_batch(["\n".join(texts)]))
        drop = outcome.drops[0] if outcome.drops else None
        return None if drop is None else _refused(drop)


def _batch(texts: Sequence[str]) -> Batch:
    empty = [""] * len(texts)
    return Batch(empty, list(texts), empty, empty, [{} for _ in texts])


def _refused(drop: Drop) -> Refused:
    return Refused(drop.reason, drop.detail)


def _with(messages: Messages, texts: Sequence[str]) -> Messages:
    return tuple({**message, "content": text} for message, text in zip(messages, texts, strict=True))


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text (no key) changed, in a fixed order."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _walk(found, change) for key, found in value.items()}
    return [_walk(found, change) for found in value] if isinstance(value, list | tuple) else value
