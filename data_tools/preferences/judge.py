"""A judge on two answers to one patient: asked in both orders, again where its verdict is invalid, never guessed.

The judge sees everything that strangers wrote inside fences (`data_tools.prompts`). Their code comes from the
conversation, both answers and their order, so no text can hold it: not the patient's, not the original answer, not the
author's, and not a verdict on the same answers in the other order.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from data_tools.llm import Answer, Failure, Request, Result
from data_tools.preferences.author import Language
from data_tools.preferences.verdicts import OVERALL, Order, Side, Verdict, read_comparison
from data_tools.prompts import FencedPrompt, VerdictError, fence_code_of
from data_tools.records import Messages

Ask = Callable[[Request], Awaitable[Result]]
T = TypeVar("T")
PLACES = ("conversation", "first", "second")

_ROLES: Mapping[Language, Mapping[str, str]] = {
    "zh": {"system": "说明", "user": "患者", "assistant": "医生"},
    "en": {"system": "Note", "user": "Patient", "assistant": "Doctor"},
}


@dataclass(frozen=True)
class Comparison:
    """What the judge is asked in one order. `code`: what its verdict must repeat."""

    order: Order
    messages: list[dict[str, str]]
    code: str


@dataclass
class Asked(Generic[T]):
    """What became of one question: a verdict, or a failure, or neither where every asking ended in an invalid verdict.

    `said` holds for each asking {"sample", "answer", "model", "invalid": reason or None, …} or {"sample", "failure",
    "detail"}.
    """

    verdict: T | None = None
    failure: Failure | None = None
    said: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Judgement(Asked[Verdict]):
    """What became of one order."""

    order: Order = "original-first"

    def side(self) -> Side | None:
        """The answer that the overall verdict is for."""
        return None if self.verdict is None else self.verdict.sides(self.order)[OVERALL]

    def to_json(self) -> dict[str, Any]:
        """For the audit: `verdict` by place, `sides` by answer; null where there is none."""
        verdict = self.verdict
        return {
            "order": self.order,
            "verdict": None if verdict is None else {**verdict.aspects, OVERALL: verdict.overall},
            "sides": None if verdict is None else verdict.sides(self.order),
            "said": self.said,
        }


def comparison(
    prompt: FencedPrompt, language: Language, conversation: Messages, original: str, new: str, order: Order
) -> Comparison:
    """The question which of two answers is better, `order` deciding which comes first."""
    first, second = (original, new) if order == "original-first" else (new, original)
    messages, code = fenced(prompt, language, conversation, {"first": first, "second": second})
    return Comparison(order, messages, code)


def fenced(
    prompt: FencedPrompt, language: Language, conversation: Messages, texts: Mapping[str, str]
) -> tuple[list[dict[str, str]], str]:
    """The messages that ask about `texts` (by place, in this order) and about the conversation before them, and the
    code that the verdict must repeat.
    """
    strangers = [text for message in conversation for text in (message["role"], message["content"])]
    code = fence_code_of([*strangers, *texts.values()])
    # Who speaks stands in lines with the code too: no message can put words into another's mouth.
    roles = _ROLES[language]
    shown = "\n".join(f"--- {code} {roles[message['role']]}\n{message['content']}" for message in conversation)
    return prompt.messages({"conversation": shown, **texts}, code), code


async def judged(ask: Ask, question: Comparison, retries: int, name: str) -> Judgement:
    """`asked_until_valid` about a comparison."""
    found = await asked_until_valid(
        ask, question.messages, retries, f"{name} {question.order}", lambda text: read_comparison(text, question.code)
    )
    return Judgement(found.verdict, found.failure, found.said, question.order)


async def asked_until_valid(
    ask: Ask, messages: list[dict[str, str]], retries: int, name: str, read: Callable[[str], T]
) -> Asked[T]:
    """Ask until there is a valid verdict, a failure, or no repetition left; each asking is a sample of its own. `read`
    raises VerdictError where the text of an answer holds no verdict.
    """
    asked: Asked[T] = Asked()
    for sample in range(retries + 1):
        result = await ask(Request(messages, sample, name))
        if isinstance(result, Failure):
            asked.failure = result
            asked.said.append({"sample": sample, "failure": result.reason, "detail": result.detail})
            break
        said: dict[str, Any] = {"sample": sample, "answer": result.text, "model": result.model, "invalid": None}
        asked.said.append(said)
        try:
            asked.verdict = read(_whole(result))
            break
        except VerdictError as error:
            said.update(invalid=error.reason, detail=error.detail)
    return asked


def _whole(answer: Answer) -> str:
    if answer.finish_reason == "length":  # a judge that was still thinking may have changed its mind
        raise VerdictError("cut-off", f"the answer ended at max_tokens, after {answer.completion_tokens:,} tokens")
    return answer.text
