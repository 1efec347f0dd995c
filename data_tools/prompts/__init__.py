"""The prompts that ask a model for a verdict on untrusted text, as files, and the reading of its answer.

`NAME.vVERSION.LANGUAGE.txt` holds the system message, a line `=== user ===`, and the user message. A change of the
wording is a new version: recorded answers and manifests go by the wording's digest.

Untrusted text stands between two lines with a code that is derived from the text itself and does not occur in it. The
verdict must repeat the code. So no text can end its own fence, and an answer that repeats a text, with whatever
verdicts are written there, holds none. What no prompt can prevent is that a model is talked over; the prompts tell it
not to be, and the verdicts of a text that tries are for the reader of the audit file.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

_CODE_DIGITS = 12
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


def load_prompt(name: str, version: int, language: str) -> Prompt:
    """The prompt `name` for texts in `language` (zh or en).

    Raises:
        FileNotFoundError: there is none of that name, version and language.
    """
    file = f"{name}.v{version}.{language}.txt"
    data = files(__name__).joinpath(file).read_bytes()
    system, found, user = data.decode("utf-8").partition(_USER_LINE)
    if not found or user.count("{text}") != 1 or "{code}" not in user:
        raise ValueError(f"{file} must hold a line '=== user ===' and, after it, {{code}} and once {{text}}")
    return Prompt(file.removesuffix(".txt"), system.strip(), user.strip(), hashlib.sha256(data).hexdigest())


def fence_code(text: str) -> str:
    """Hex digits that come from `text` and do not occur in it."""
    code = hashlib.sha256(text.encode()).hexdigest()[:_CODE_DIGITS]
    while code in text:
        code = hashlib.sha256((code + text).encode()).hexdigest()[:_CODE_DIGITS]
    return code


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
    """The value of `field` in the one verdict of an answer: the whole answer is a JSON object (in a code block or
    not), or its last line is one. The object holds "document": `code` and `field`, may hold "reason", and nothing
    else. Verdicts that stand before it must agree with it.

    Raises:
        VerdictError: `empty`, `no-verdict`, `wrong-code`, `contradictory`.
    """
    said = answer.rpartition(_THOUGHTS_END)[2].strip()
    if not said:
        raise VerdictError("empty", "the answer is empty")
    if block := _CODE_BLOCK.fullmatch(said):
        said = block[1].strip()
    lines = [line.strip() for line in said.splitlines()]
    while lines and lines[-1].startswith("```"):
        lines.pop()
    last = _object(said) or _object(lines[-1] if lines else "")
    if last is None or field not in last or not set(last) <= {"document", field, "reason"}:
        raise VerdictError("no-verdict", f"the answer does not end in a verdict: …{said[-80:]!r}")
    if last.get("document") != code:
        raise VerdictError("wrong-code", "the verdict does not repeat the code of its document")
    value = last[field]
    for line in lines[:-1]:
        other = _object(line)
        if other is not None and other.get("document") == code and other.get(field) != value:
            raise VerdictError("contradictory", "the answer holds two verdicts that differ")
    return value


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object without repeated keys, or None."""
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
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
