"""The prompts that ask a model for a verdict on untrusted text, as files, and the reading of its answer.

`NAME.vVERSION.LANGUAGE.txt` holds the system message, a line `=== user ===`, and the user message; an instruction
(`doctor`) holds the system message alone. A change of the wording is a new version: recorded answers and manifests go
by the wording's digest.

Untrusted text stands between two lines with a code that is derived from the text itself and does not occur in it. The
verdict must repeat the code. So no text can end its own fence, and an answer that repeats a text, with whatever
verdicts are written there, holds none. Several texts in one prompt have one code, out of all of them and their order:
who writes one of them cannot know it, even knowing all the others. What no prompt can prevent is that a model is talked
over; the prompts tell it not to be, and the verdicts of a text that tries are for the reader of the audit file.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

_CODE_DIGITS = 12
_PLACE = re.compile(r"\{(\w+)\}")
_USER_LINE = "\n=== user ===\n"
_THOUGHTS_END = "</think>"  # of models that think aloud in their answer
_CODE_BLOCK = re.compile(r"```[a-z]*\n(.*?)\n?```", re.DOTALL)


class VerdictError(ValueError):
    """An answer without a usable verdict: `reason` is the short name it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Prompt:
    """A prompt with the places `{code}` and `{text}` in its user message. `digest`: SHA-256 of the file, as hex."""

    name: str
    system: str
    user: str
    digest: str

    def messages(self, text: str) -> tuple[list[dict[str, str]], str]:
        """The messages that ask about `text`, and the code that the verdict must repeat."""
        code = fence_code(text)
        before, after = self.user.replace("{code}", code).split("{text}")
        user = f"{before}{text}{after}"
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}], code


@dataclass(frozen=True)
class FencedPrompt:
    """A prompt about several texts, with the place `{code}` and one for each text in its user message."""

    name: str
    system: str
    user: str
    digest: str

    def messages(self, texts: Mapping[str, str], code: str) -> list[dict[str, str]]:
        """The messages that ask about `texts`, by the names of their places. `code`: of `fence_code_of`, over all that
        strangers wrote in them.
        """
        values = {**texts, "code": code}
        user = _PLACE.sub(lambda place: values[place[1]], self.user)  # one pass: a text's own braces stay as they are
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]


@dataclass(frozen=True)
class Instruction:
    """A system message, to stand before messages of others. `digest`: SHA-256 of the file, as hex."""

    name: str
    system: str
    digest: str


def load_instruction(name: str, version: int, language: str) -> Instruction:
    """The instruction `name` for conversations in `language` (zh or en).

    Raises:
        FileNotFoundError: there is none of that name, version and language.
    """
    file, data = _file(name, version, language)
    return Instruction(file, data.decode("utf-8").strip(), hashlib.sha256(data).hexdigest())


def load_fenced_prompt(name: str, version: int, language: str, places: Collection[str]) -> FencedPrompt:
    """The prompt `name` about texts in `language` (zh or en), which has `places` for them.

    Raises:
        FileNotFoundError: there is none of that name, version and language.
    """
    file, data = _file(name, version, language)
    system, found, user = data.decode("utf-8").partition(_USER_LINE)
    there = [place for place in _PLACE.findall(user) if place != "code"]
    if not found or sorted(there) != sorted(places) or "{code}" not in user:
        wanted = ", ".join(f"{{{place}}}" for place in places)
        raise ValueError(f"{file}.txt must hold a line '=== user ===' and, after it, {{code}} and once each {wanted}")
    return FencedPrompt(file, system.strip(), user.strip(), hashlib.sha256(data).hexdigest())


def _file(name: str, version: int, language: str) -> tuple[str, bytes]:
    file = f"{name}.v{version}.{language}"
    return file, files(__name__).joinpath(f"{file}.txt").read_bytes()


def load_prompt(name: str, version: int, language: str) -> Prompt:
    """The prompt `name` for texts in `language` (zh or en).

    Raises:
        FileNotFoundError: there is none of that name, version and language.
    """
    file, data = _file(name, version, language)
    system, found, user = data.decode("utf-8").partition(_USER_LINE)
    if not found or user.count("{text}") != 1 or "{code}" not in user:
        raise ValueError(f"{file}.txt must hold a line '=== user ===' and, after it, {{code}} and once {{text}}")
    return Prompt(file, system.strip(), user.strip(), hashlib.sha256(data).hexdigest())


def fence_code(text: str) -> str:
    """Hex digits that come from `text` and do not occur in it."""
    code = hashlib.sha256(text.encode()).hexdigest()[:_CODE_DIGITS]
    while code in text:
        code = hashlib.sha256((code + text).encode()).hexdigest()[:_CODE_DIGITS]
    return code


def fence_code_of(texts: Sequence[str]) -> str:
    """Hex digits that come from all of `texts` and their order, and occur in none of them."""
    return fence_code("".join(f"{len(text)}:{text}\n" for text in texts))


def read_label(answer: str, code: str, labels: Collection[str]) -> str:
    """The label of a verdict {"document": code, "label": …}.

    Raises:
        VerdictError: `unknown-label`, or as in `read_verdict`.
    """
    value = read_verdict(answer, code, "label")
    if not isinstance(value, str) or value not in labels:
        raise VerdictError("unknown-label", f"the label must be one of {', '.join(labels)}, it is {value!r:.60}")
    return value


def read_score(answer: str, code: str, low: float, high: float) -> float:
    """The score of a verdict {"document": code, "score": …}.

    Raises:
        VerdictError: `not-a-number`, `out-of-range`, or as in `read_verdict`.
    """
    value = read_verdict(answer, code, "score")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise VerdictError("not-a-number", f"the score must be a number, it is {value!r:.60}")
    if not low <= value <= high:
        raise VerdictError("out-of-range", f"the score must be from {low:g} to {high:g}, it is {value}")
    return float(value)


def read_verdict(answer: str, code: str, field: str) -> Any:
    """The value of `field` in the one verdict of an answer: as in `read_fields`, the code under "document".

    Raises:
        VerdictError: as in `read_fields`.
    """
    return read_fields(answer, code, (field,), key="document")[field]


def read_fields(answer: str, code: str, fields: Sequence[str], *, key: str) -> dict[str, Any]:
    """The values of `fields` in the one verdict of an answer: the whole answer is a JSON object (in a code block or
    not), or its last line is one. The object holds `key`: `code` and `fields`, may hold "reason", and nothing else.
    Verdicts that stand before it must agree with it.

    Raises:
        VerdictError: `empty`, `no-verdict`, `wrong-code`, `contradictory`.
    """
    lines = answer.strip().split("\n")
    while lines[-1].startswith("```") and len(lines) > 1:
        lines.pop()
    before = ""
    if (
        last := _object(lines[-1].strip())
    ) is not None:  # looked at first: a reason in it may quote the end of thoughts
        before = "\n".join(lines[:-1]).rpartition(_THOUGHTS_END)[2]
    else:
        said = answer.rpartition(_THOUGHTS_END)[2].strip()
        if not said:
            raise VerdictError("empty", "the answer is empty")
        block = _CODE_BLOCK.fullmatch(said)
        last = _object(block[1].strip() if block else said)
    if last is None or not set(fields) <= set(last) <= {key, *fields, "reason"}:
        raise VerdictError("no-verdict", f"the answer does not end in a verdict: …{answer.strip()[-80:]!r}")
    if last.get(key) != code:
        raise VerdictError("wrong-code", "the verdict does not repeat the code of what it is about")
    values = {field: last[field] for field in fields}
    for other in _objects_around(code, before):
        if other.get(key) == code and any(other.get(field) != value for field, value in values.items()):
            raise VerdictError("contradictory", "the answer holds two verdicts that differ")
    return values


def _objects_around(code: str, text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects that begin before an occurrence of `code`, wherever they stand."""
    end = begun = -1
    while (end := text.find(code, end + 1)) >= 0:
        start = text.rfind("{", 0, end)
        if start > begun and (value := _object(text[start:], more=True)) is not None:
            yield value
        begun = start


def _object(text: str, *, more: bool = False) -> dict[str, Any] | None:
    """A JSON object without repeated keys, or None. `more`: other text may follow it."""
    if not text.startswith("{"):
        return None
    try:
        value = _DECODER.raw_decode(text)[0] if more else _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("repeated key")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
