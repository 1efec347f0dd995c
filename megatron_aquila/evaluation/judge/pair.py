"""Which of two answers is better: asked in both orders, again where the verdict is invalid, never guessed."""

import asyncio
from dataclasses import dataclass
from typing import Any

from data_tools.llm import Request
from data_tools.preferences.author import Language
from data_tools.preferences.judge import Ask, Asked, asked_until_valid, fenced
from data_tools.prompts import FencedPrompt, load_fenced_prompt
from megatron_aquila.evaluation.judge.outcome import Outcome
from megatron_aquila.evaluation.judge.pair_figures import PairVerdict
from megatron_aquila.evaluation.judge.reading import Item
from megatron_aquila.evaluation.judge.verdicts import ORDERS, Order, Place, lax, read_pair, side, strict

PROMPT = "judge_pair"
PLACES = ("conversation", "first", "second")
LANGUAGES: tuple[Language, ...] = ("zh", "en")


@dataclass(frozen=True)
class PairOutcome(Outcome):
    """`asked`: in the orders of `ORDERS`."""

    asked: tuple[Asked[Place], Asked[Place]]

    def verdict(self) -> PairVerdict:
        """What counts; places are None where there is no valid verdict."""
        item, (one, other) = self.item, self.asked
        return PairVerdict(
            item.id,
            item.lang,
            (one.verdict, other.verdict),
            (len(item.answer), len(item.other)),
            self.failure is not None,
        )

    def row(self) -> dict[str, Any]:
        """A line of the file of verdicts: everything that was said."""
        sides = self.verdict().sides
        valid = sides if None not in sides else None
        return {
            **super().row(),
            "verdict": valid and strict(valid),  # type: ignore[arg-type]
            "lax": valid and lax(valid),  # type: ignore[arg-type]
            "characters": {"answer": len(self.item.answer), "against": len(self.item.other)},
            "orders": [
                {
                    "order": order,
                    "place": each.verdict,
                    "side": None if each.verdict is None else side(each.verdict, order),
                    "said": each.said,
                }
                for order, each in zip(ORDERS, self.asked)
            ],
        }


class PairJudge:
    """Asks which of two answers is better.

    Raises:
        FileNotFoundError: there is no such version of the prompt.
    """

    def __init__(self, version: int, retries: int) -> None:
        self._retries = retries
        self._prompts: dict[Language, FencedPrompt] = {
            lang: load_fenced_prompt(PROMPT, version, lang, PLACES) for lang in LANGUAGES
        }

    def prompts(self) -> dict[str, str]:
        """SHA-256 by file."""
        return {prompt.name: prompt.digest for prompt in self._prompts.values()}

    def question(self, item: Item, order: Order) -> tuple[list[dict[str, str]], str]:
        """The messages of one order, and the code that its verdict must repeat."""
        one, other = (item.answer, item.other) if order == "answer-first" else (item.other, item.answer)
        return fenced(self._prompts[item.lang], item.lang, item.conversation, {"first": one, "second": other})

    def requests(self, item: Item) -> list[Request]:
        """What is asked at first, for the dry run."""
        return [Request(self.question(item, order)[0], id=f"{item.name} {order}") for order in ORDERS]

    async def outcome(self, ask: Ask, item: Item) -> PairOutcome:
        """Both orders at once."""
        tasks = [asyncio.create_task(self._asked(ask, item, order)) for order in ORDERS]
        try:
            one, other = await asyncio.gather(*tasks)
        finally:  # where one failed, the other must not go on alone
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return PairOutcome(item, (one, other))

    async def _asked(self, ask: Ask, item: Item, order: Order) -> Asked[Place]:
        messages, code = self.question(item, order)
        return await asked_until_valid(
            ask, messages, self._retries, f"{item.name} {order}", lambda text: read_pair(text, code)
        )
