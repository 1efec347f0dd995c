"""How good an answer is by four criteria: asked once, again where the rating is invalid, never guessed."""

from dataclasses import dataclass
from typing import Any

from data_tools.llm import Request
from data_tools.preferences.author import Language
from data_tools.preferences.judge import Ask, Asked, asked_until_valid, fenced
from data_tools.prompts import FencedPrompt, load_fenced_prompt
from megatron_aquila.evaluation.judge.outcome import Outcome
from megatron_aquila.evaluation.judge.pair import LANGUAGES
from megatron_aquila.evaluation.judge.reading import Item
from megatron_aquila.evaluation.judge.rubric_figures import Rating
from megatron_aquila.evaluation.judge.verdicts import read_rubric

PROMPT = "judge_rubric"
PLACES = ("conversation", "question", "solution", "answer")


@dataclass(frozen=True)
class RubricOutcome(Outcome):
    """`asked`: one question."""

    asked: tuple[Asked[dict[str, int]]]

    def rating(self) -> Rating | None:
        """What counts, where there is a valid rating."""
        item, (asked,) = self.item, self.asked
        if asked.verdict is None:
            return None
        return Rating(item.id, item.round, item.lang, asked.verdict, len(item.answer))

    def row(self) -> dict[str, Any]:
        """A line of the file of verdicts: everything that was said."""
        (asked,) = self.asked
        characters = {"answer": len(self.item.answer), "solution": len(self.item.reference)}
        return {**super().row(), "verdict": asked.verdict, "characters": characters, "said": asked.said}


class RubricJudge:
    """Asks for a rating.

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

    def question(self, item: Item) -> tuple[list[dict[str, str]], str]:
        """The messages, and the code that the rating must repeat. The question is the last message, the conversation
        what came before it.
        """
        *before, last = item.conversation
        texts = {"question": last["content"], "solution": item.reference, "answer": item.answer}
        return fenced(self._prompts[item.lang], item.lang, tuple(before), texts)

    def requests(self, item: Item) -> list[Request]:
        """What is asked at first, for the dry run."""
        return [Request(self.question(item)[0], id=item.name)]

    async def outcome(self, ask: Ask, item: Item) -> RubricOutcome:
        """Ask."""
        messages, code = self.question(item)
        asked = await asked_until_valid(ask, messages, self._retries, item.name, lambda text: read_rubric(text, code))
        return RubricOutcome(item, (asked,))
