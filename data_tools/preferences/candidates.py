"""Candidates for subjective pairs: of each dialogue one exchange, with what was said before it."""

import hashlib
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from data_tools.preferences.outcome import Candidate
from data_tools.preferences.split import prompt_key
from data_tools.preferences.strata import Draw, Member, Traits, prompt_rank
from data_tools.records import Dialogue, Messages

NO_EXCHANGE, OTHER_KIND, TOO_LONG, BLANK = "no-exchange", "other-kind", "too-long", "blank-message"


class CandidatesConfig(BaseModel):
    """Which exchanges of which dialogues."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialogues: tuple[str, ...] = Field(min_length=1)
    """Files, directories and patterns of dialogues: what fine-tuning was on, so that the prompts have its
    distribution."""
    exchange: Literal["last", "random"] = "last"
    """Of a dialogue of several turns: the last one, with the longest history, or one drawn by the dialogue's id. The
    paper does not say."""
    kinds: tuple[str, ...] = ("qa",)
    """`meta.kind` of dialogues that are used; one without is "qa". Exam questions ("options") have a right answer, not
    a better one: they are the objective pairs' matter."""
    max_characters: int = Field(default=8000, ge=1)
    """Of prompt and answer; a longer one is passed over, before anything is asked. Ours: about what 2,048 tokens of
    Chinese and English hold."""
    draw: Draw = Draw(count=9019)
    """How many pairs, of which parts. 9,019 in the paper."""


class Passed(NamedTuple):
    """A dialogue that gives no candidate, and why."""

    id: str
    lang: str
    source: str
    reason: str


def exchange_of(dialogue: Dialogue, which: Literal["last", "random"], seed: int) -> tuple[Messages, str] | None:
    """The prompt (up to a message of the user) and the assistant's answer to it; None where no message of the user is
    followed by one of the assistant.
    """
    places = [
        place
        for place, (asked, answered) in enumerate(zip(dialogue.messages, dialogue.messages[1:]))
        if asked["role"] == "user" and answered["role"] == "assistant"
    ]
    if not places:
        return None
    place = places[-1]
    if which == "random":
        digest = hashlib.blake2b(f"{seed}\0exchange\0{dialogue.id}".encode(), digest_size=8).digest()
        place = places[int.from_bytes(digest, "big") % len(places)]
    return dialogue.messages[: place + 1], dialogue.messages[place + 1]["content"]


def candidate_of(dialogue: Dialogue, config: CandidatesConfig, seed: int) -> Member[Candidate] | Passed:
    """What a dialogue has for the draw: a pure function of the dialogue."""
    passed = Passed(dialogue.id, dialogue.lang, dialogue.source, "")
    kind = dialogue.meta.get("kind")
    kind = kind if isinstance(kind, str) and kind else "qa"
    if kind not in config.kinds:
        return passed._replace(reason=OTHER_KIND)
    found = exchange_of(dialogue, config.exchange, seed)
    if found is None:
        return passed._replace(reason=NO_EXCHANGE)
    prompt, answer = found
    if not answer.strip() or not prompt[-1]["content"].strip():
        return passed._replace(reason=BLANK)
    if sum(len(message["content"]) for message in prompt) + len(answer) > config.max_characters:
        return passed._replace(reason=TOO_LONG)
    turns = sum(message["role"] == "user" for message in prompt)
    return Member(
        rank=prompt_rank(prompt_key(prompt), seed, "subjective"),
        id=dialogue.id,
        traits=Traits(dialogue.lang, dialogue.source, turns, kind),
        content=Candidate(dialogue.id, prompt, answer, dialogue.lang, dialogue.source),
    )
