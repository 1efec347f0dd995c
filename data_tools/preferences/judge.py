"""A judge on two answers to one patient: asked in both orders, again where its verdict is invalid, never guessed.

The judge sees everything that strangers wrote inside fences (`data_tools.prompts`). Their code comes from the
conversation, both answers and their order, so no text can hold it: not the patient's, not the original answer, not the
author's, and not a verdict on the same answers in the other order.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_tools.llm import Answer, Failure, Request, Result
from data_tools.preferences.author import Language
from data_tools.preferences.verdicts import OVERALL, Order, Side, Verdict, read_comparison
from data_tools.prompts import FencedPrompt, VerdictError, fence_code_of
from data_tools.records import Messages

Ask = Callable[[Request], Awaitable[Result]]
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
class Judgement:
    """What became of one order: a verdict, or a failure, or neither where every asking ended in an invalid verdict.

    `said` holds for each asking {"sample", "answer", "model", "invalid": reason or None, …} or {"sample", "failure",
    "detail"}.
    """

    order: Order
    verdict: Verdict | None = None
    failure: Failure | None = None
    said: list[dict[str, Any]] = field(default_factory=list)

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
    strangers = [text for message in conversation for text in (message["role"], message["content"])]
    code = fence_code_of([*strangers, first, second])
    # Who speaks stands in lines with the code too: no message can put words into another's mouth.
    roles = _ROLES[language]
    shown = "\n".join(f"--- {code} {roles[message['role']]}\n{message['content']}" for message in conversation)
    texts = {"conversation": shown, "first": first, "second": second}
    return Comparison(order, prompt.messages(texts, code), code)


async def judged(ask: Ask, question: Comparison, retries: int, name: str) -> Judgement:
    """Ask until there is a valid verdict, a failure, or no repetition left; each asking is a sample of its own."""
    judgement = Judgement(question.order)
    for sample in range(retries + 1):
        result = await ask(Request(question.messages, sample, f"{name} {question.order}"))
        if isinstance(result, Failure):
            judgement.failure = result
            judgement.said.append({"sample": sample, "failure": result.reason, "detail": result.detail})
            break
        said: dict[str, Any] = {"sample": sample, "answer": result.text, "model": result.model, "invalid": None}
        judgement.said.append(said)
        try:
            judgement.verdict = _read(result, question.code)
            break
        except VerdictError as error:
            said.update(invalid=error.reason, detail=error.detail)
    return judgement


def _read(answer: Answer, code: str) -> Verdict:
    if answer.finish_reason == "length":  # a judge that was still thinking may have changed its mind
        raise VerdictError("cut-off", f"the answer ended at max_tokens, after {answer.completion_tokens:,} tokens")
    return read_comparison(answer.text, code)
