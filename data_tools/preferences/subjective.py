"""Subjective pairs: the original answer against a new one by a stronger model, the better of them judged by a model in
both orders (Aquila-Med's technical report, 2.3.1).

What can be done against an answer that argues with the judge, is: fences whose code no text can hold, verdicts that
must repeat it and are read strictly, both orders, invalid verdicts counted and never replaced by a guess. What cannot
be prevented is that a model, having read an answer, is talked over by it in both orders; every word that a judge said
is in the audit, for a reader to see.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_tools.llm import Answer, AnswerCache, Estimate, Failure, LanguageModel, Request
from data_tools.llm.blocking import blocking
from data_tools.llm.budget import count_by_bytes
from data_tools.llm.exchange import request_key
from data_tools.llm.in_order import in_order
from data_tools.llm.session import Session
from data_tools.preferences.author import (
    REFUSALS,
    Language,
    answer_text,
    author_messages,
    prompt_language,
    unusable,
)
from data_tools.preferences.judge import PLACES, Comparison, Judgement, comparison, judged
from data_tools.preferences.outcome import Candidate, Made, NoPair, Outcome
from data_tools.preferences.subjective_summary import SubjectiveSummary
from data_tools.preferences.verdicts import ORDERS, agreed
from data_tools.prompts import FencedPrompt, Instruction, load_fenced_prompt, load_instruction
from data_tools.records import Messages, PreferencePair

__all__ = [
    "SubjectiveConfig",
    "SubjectiveEstimate",
    "SubjectiveSummary",
    "estimate",
    "prompt_digests",
    "subjective_pairs",
]

_LANGUAGES: tuple[Language, ...] = ("zh", "en")
_ENDS = ("budget", "server-down", "quota", "http-401", "http-404")  # after which a model answers nothing more
_WINDOW = 2  # candidates begun but not given out, as a multiple of both concurrencies


class SubjectiveConfig(BaseModel):
    """How subjective pairs come about; author and judge have configurations of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strict: bool = True
    """Drop a candidate where one order says tie and the other names a winner; false: the winner counts. The paper
    names no rule for pairs; for its evaluation, both orders must agree."""
    retries: int = Field(2, ge=0)
    """Askings after an invalid verdict, each with a sample number of its own. A judge at temperature 0 without `seed`
    may repeat itself. HuatuoGPT-II's evaluation asks 3 times."""
    max_prompt_characters: int = Field(12_000, ge=1)
    """A longer conversation gives no pair ("prompt-too-long"): ours, to fit the context of a common judge with both
    answers."""
    max_answer_characters: int = Field(8_000, ge=1)
    """The same for the original answer ("original-too-long")."""
    refusals: Mapping[Language, tuple[str, ...]] = REFUSALS
    """Phrases by which an author's answer is dropped ("author-refuses")."""
    author_prompt: int = Field(1, ge=1)
    """Version of the prompt `doctor`."""
    judge_prompt: int = Field(1, ge=1)
    """Version of the prompt `compare`."""


@dataclass(frozen=True)
class SubjectiveEstimate:
    """The dry run of both models; of answers that are not there yet the judge reads as much as the author's max_tokens
    allow. `unasked`: candidates that fall out before anyone is asked, and recorded answers that cannot be used.
    """

    author: Estimate
    judge: Estimate
    unasked: int


def subjective_pairs(
    candidates: Iterable[Candidate],
    author: LanguageModel,
    judge: LanguageModel,
    config: SubjectiveConfig,
) -> Generator[Outcome, None, None]:
    """One outcome for each candidate, in their order, as they come; both models are asked while the caller works.

    `candidates` are read ahead by another thread, no more than a window of them. Once limits are met the remaining
    candidates are `no-answer`. Closing the iterator cancels what is under way.

    `Made.meta` and `NoPair.detail` hold what both models said (`SubjectiveSummary.add` reads them). Reasons, in the
    order of checking: `no-question` (the prompt does not end in a user message), `original-empty`,
    `prompt-too-long`, `original-too-long`, `unsupported-language`, those of `author.unusable`, `no-answer` (detail
    says of whom and why), `invalid-verdict`, those of `verdicts.agreed`.

    Raises:
        LanguageModelError, NotRecordedError, StorageError: as in `LanguageModel.ask`.
    """
    return blocking(_outcomes(candidates, author, judge, _Maker(config)), "subjective-pairs")


async def _outcomes(
    candidates: Iterable[Candidate], author: LanguageModel, judge: LanguageModel, maker: "_Maker"
) -> AsyncGenerator[Outcome, None]:
    window = _WINDOW * (author.config.concurrency + judge.config.concurrency)
    async with AsyncExitStack() as stack:
        sessions = [Session(model.config, model.account, count_by_bytes) for model in (author, judge)]
        for session in sessions:
            await session.open(stack)
        made = in_order(candidates, lambda candidate: maker.outcome(candidate, *sessions), window)
        async for outcome in await stack.enter_async_context(aclosing(made)):
            yield outcome


def prompt_digests(config: SubjectiveConfig) -> dict[str, str]:
    """SHA-256 of each prompt in use, as hex, by its name, for a manifest."""
    return _Maker(config).digests()


def estimate(
    candidates: Iterable[Candidate], author: LanguageModel, judge: LanguageModel, config: SubjectiveConfig
) -> SubjectiveEstimate:
    """The dry run, without a call: what it takes at most, if every answer is as long as allowed and every candidate is
    needed; without the repetitions that faults and invalid verdicts cost. Where the author's answer is recorded, the
    judge's questions are the real ones, and recorded verdicts cost nothing.
    """
    maker = _Maker(config)
    requests: list[Request] = []
    known: list[Request] = []
    unknown: list[Request] = []
    unasked = 0
    with ExitStack() as stack:
        cache = None
        if author.config.mode != "off" and author.config.cache is not None:
            cache = stack.enter_context(AnswerCache(author.config.cache, read_only=True))
        for candidate in candidates:
            language = maker.language(candidate)
            if isinstance(language, NoPair):
                unasked += 1
                continue
            request = maker.request(candidate, language)
            requests.append(request)
            answer = None if cache is None else cache.answer(request_key(author.config, request))
            if answer is not None and maker.unusable(candidate, language, answer) is not None:
                unasked += 1
                continue
            new = "" if answer is None else answer_text(answer)
            questions = maker.questions(candidate, language, new)
            (unknown if answer is None else known).extend(Request(question.messages) for question in questions)
    exact, bound = judge.estimate(known), judge.estimate(unknown)
    more = bound.calls * author.config.max_tokens
    total = Estimate(
        requests=exact.requests + bound.requests,
        recorded=exact.recorded + bound.recorded,
        calls=exact.calls + bound.calls,
        prompt_tokens=exact.prompt_tokens + bound.prompt_tokens + more,
        completion_tokens=exact.completion_tokens + bound.completion_tokens,
        cost=exact.cost + bound.cost + judge.config.cost(more, 0),
        counted_by=exact.counted_by,
    )
    return SubjectiveEstimate(author.estimate(requests), total, unasked)


class _Maker:
    """Makes the outcome of one candidate."""

    def __init__(self, config: SubjectiveConfig) -> None:
        self._config = config
        self._instructions: dict[Language, Instruction] = {
            language: load_instruction("doctor", config.author_prompt, language) for language in _LANGUAGES
        }
        self._prompts: dict[Language, FencedPrompt] = {
            language: load_fenced_prompt("compare", config.judge_prompt, language, PLACES) for language in _LANGUAGES
        }
        self._ended: tuple[str, Failure] | None = None  # of whom nothing more can be had, and why

    def digests(self) -> dict[str, str]:
        """Of the prompts, by name."""
        prompts: list[Instruction | FencedPrompt] = [*self._instructions.values(), *self._prompts.values()]
        return {prompt.name: prompt.digest for prompt in prompts}

    def language(self, candidate: Candidate) -> Language | NoPair:
        """The language to ask in, or why the candidate is not asked about."""
        config = self._config
        if not candidate.prompt or candidate.prompt[-1]["role"] != "user":
            return _no_pair(candidate, "no-question")
        if not candidate.answer.strip():
            return _no_pair(candidate, "original-empty")
        for reason, size, limit in (
            ("prompt-too-long", sum(len(each["content"]) for each in candidate.prompt), config.max_prompt_characters),
            ("original-too-long", len(candidate.answer), config.max_answer_characters),
        ):
            if size > limit:
                return _no_pair(candidate, reason, {"value": size, "limit": limit})
        language = prompt_language(candidate.lang, candidate.prompt)
        if language is None:
            return _no_pair(candidate, "unsupported-language", {"value": candidate.lang, "limit": list(_LANGUAGES)})
        return language

    def request(self, candidate: Candidate, language: Language) -> Request:
        """What the author is asked."""
        return Request(author_messages(self._instructions[language], candidate.prompt), id=f"{candidate.id} author")

    def unusable(self, candidate: Candidate, language: Language, answer: Answer) -> tuple[str, dict[str, Any]] | None:
        """`author.unusable` for this candidate."""
        return unusable(answer, candidate.answer, language, self._config.refusals)

    def questions(self, candidate: Candidate, language: Language, new: str) -> list[Comparison]:
        """What the judge is asked, in both orders."""
        prompt = self._prompts[language]
        return [comparison(prompt, language, candidate.prompt, candidate.answer, new, order) for order in ORDERS]

    async def outcome(self, candidate: Candidate, author: Session, judge: Session) -> Outcome:
        """Ask the author, then the judge in both orders at once."""
        language = self.language(candidate)
        if isinstance(language, NoPair):
            return language
        if self._ended is not None:  # neither model is paid for what the other cannot finish
            return self._unanswered(candidate, *self._ended, {})
        answer = await author.result(self.request(candidate, language))
        if isinstance(answer, Failure):
            return self._unanswered(candidate, "author", answer, {})
        new = answer_text(answer)
        evidence: dict[str, Any] = {
            "prompts": [self._instructions[language].name, self._prompts[language].name],
            "author": {
                "model": answer.model,
                "answer": answer.text,
                "finish_reason": answer.finish_reason,
                "tokens": answer.completion_tokens,
            },
            "characters": {"original": len(candidate.answer), "new": len(new)},
        }
        if (found := self.unusable(candidate, language, answer)) is not None:
            reason, detail = found
            return _no_pair(candidate, reason, {**detail, **evidence})
        judgements = await self._judgements(candidate, self.questions(candidate, language, new), judge)
        evidence["judge"] = [judgement.to_json() for judgement in judgements]
        for judgement in judgements:
            if judgement.failure is not None:
                return self._unanswered(candidate, "judge", judgement.failure, evidence)
        sides = {judgement.order: side for judgement in judgements if (side := judgement.side()) is not None}
        if len(sides) < len(ORDERS):
            return _no_pair(candidate, "invalid-verdict", evidence)
        winner, reason = agreed(sides, strict=self._config.strict)
        if winner is None:
            return _no_pair(candidate, reason, evidence)
        chosen, rejected = (candidate.answer, new) if winner == "original" else (new, candidate.answer)
        pair = PreferencePair(candidate.id, candidate.prompt, _said(chosen), _said(rejected), "subjective")
        return Made(pair, candidate.lang, candidate.source, {"winner": winner, **evidence})

    async def _judgements(self, candidate: Candidate, questions: list[Comparison], judge: Session) -> list[Judgement]:
        tasks = [
            asyncio.create_task(judged(judge.result, question, self._config.retries, candidate.id))
            for question in questions
        ]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # where one failed, the other must not go on alone
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _unanswered(self, candidate: Candidate, whom: str, failure: Failure, evidence: Mapping[str, Any]) -> NoPair:
        if failure.reason in _ENDS:
            self._ended = self._ended or (whom, failure)
        detail = {"of": whom, "failure": failure.reason, "said": failure.detail}
        return _no_pair(candidate, "no-answer", {**detail, **evidence})


def _no_pair(candidate: Candidate, reason: str, detail: Mapping[str, Any] | None = None) -> NoPair:
    return NoPair(candidate.id, candidate.lang, candidate.source, reason, detail or {})


def _said(text: str) -> Messages:
    return ({"role": "assistant", "content": text},)
