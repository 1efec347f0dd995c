"""The work of a run of pairs: read, draw, have made, look through, keep; every one accounted for."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from data_tools.corpus.batch import dialogue_text
from data_tools.inputs import RunError
from data_tools.llm import LanguageModel
from data_tools.preferences.candidates import CandidatesConfig, Passed, candidate_of
from data_tools.preferences.choices import Choice, choice_key, choice_of
from data_tools.preferences.gates import Gates, Refused
from data_tools.preferences.length_bias import Lengths
from data_tools.preferences.likely import SCORED_AT_ONCE, LikelyWrong
from data_tools.preferences.objective import (
    ObjectiveConfig,
    objective_pair,
    question_member,
    random_wrong,
)
from data_tools.preferences.outcome import Candidate, Made, NoPair, Outcome
from data_tools.preferences.reading import FileCounts, read_records
from data_tools.preferences.recipe import PairsRecipe
from data_tools.preferences.report import Tally
from data_tools.preferences.split import prompt_key
from data_tools.preferences.strata import NOT_DRAWN, Draw, Member, Stratum, draw, gather
from data_tools.preferences.subjective import subjective_pairs
from data_tools.preferences.subjective_summary import SubjectiveSummary
from data_tools.quarantine import Quarantine
from data_tools.record_writer import RecordWriter
from data_tools.records import Dialogue
from data_tools.tokenizers import Tokenizer

Progress = Callable[[str, int, int], None]


_GAVE_UP = ("server-down", "quota", "http-401", "http-404")  # after these, nothing more is answered
_MEASURED_AT_ONCE = 512
_AUDITED = ("author", "judge")  # what models said, word by word: for the audit, not for every reader of a pair


@dataclass(frozen=True, slots=True)
class Kept:
    """A pair that passed everything. `pair.id` is unique in the run."""

    made: Made
    lengths: Lengths


class Making:
    """One run; each of `subjective` and `objective` once.

    Args:
        likely: finds the likely wrong answers (`likely.LikelyWrong`); None where none is asked for.
        quarantine, audit: where bad records go, and what became of every drawn candidate; None in a dry run.

    Attributes, complete after the methods: `files` by kind of input, `tally`, `strata` (rows for the report by kind),
    `models`, `summary` of author and judge, `gates`.
    """

    def __init__(
        self,
        recipe: PairsRecipe,
        tokenizer: Tokenizer,
        models: dict[str, LanguageModel],
        likely: LikelyWrong | None,
        quarantine: Quarantine | None,
        audit: RecordWriter | None,
        on_progress: Progress = lambda title, done, total: None,
    ) -> None:
        self._recipe, self._tokenizer, self.models = recipe, tokenizer, models
        self._quarantine, self._audit, self._on_progress = quarantine, audit, on_progress
        self._likely = likely
        self._inputs = recipe.inputs()
        self._ids: set[str] = set()
        self.files: dict[str, list[FileCounts]] = {}
        self.tally = Tally()
        self.strata: dict[str, list[dict[str, Any]]] = {}
        self.summary = SubjectiveSummary()
        self.gates = Gates(recipe.privacy, recipe.decontaminate)

    def draw_subjective(self) -> list[Stratum[Candidate]]:
        """The candidates that may become subjective pairs."""
        part = self._recipe.subjective
        assert part is not None
        return self._draw(
            "subjective", "dialogues", lambda again: self._candidates(part.candidates, again), part.candidates.draw
        )

    def draw_objective(self) -> list[Stratum[Choice]]:
        """The questions that may become objective pairs."""
        config = self._recipe.objective
        assert config is not None
        return self._draw("objective", "questions", lambda again: self._questions(config, again), config.draw)

    def subjective(self) -> list[Kept]:
        """Subjective pairs, until each stratum has its number or no candidate is left.

        Raises:
            RunError: limits were met, or too many requests failed. LanguageModelError.
        """
        part = self._recipe.subjective
        assert part is not None
        strata = self.draw_subjective()
        kept: list[Kept] = []
        wanted = sum(stratum.quota for stratum in strata)

        def make(members: Sequence[Member[Candidate]]) -> Iterator[bool]:
            passed = [self.passed(member) for member in members]
            asked = [found for found in passed if isinstance(found, Candidate)]
            author, judge = self.models["author"], self.models["judge"]
            with closing(subjective_pairs(asked, author, judge, part.settings)) as outcomes:
                for member, found in zip(members, passed, strict=True):
                    outcome: Outcome = found if isinstance(found, NoPair) else next(outcomes)
                    if outcome is not found:
                        self.summary.add(outcome)
                    became = self._keep("subjective", member, outcome)
                    if became is not None:
                        kept.append(became)
                    self._on_progress("ask author and judge", len(kept), wanted)
                    yield became is not None
            self._check_models(len(kept))

        self._note_strata("subjective", strata, gather(strata, make))
        return kept

    def objective(self) -> list[Kept]:
        """Objective pairs."""
        config = self._recipe.objective
        assert config is not None
        strata = self.draw_objective()
        kept: list[Kept] = []

        def make(members: Sequence[Member[Choice]]) -> Iterator[bool]:
            for member, made in zip(members, self._made(members, config), strict=True):
                became = self._keep("objective", member, made)
                if became is not None:
                    kept.append(became)
                yield became is not None

        self._note_strata("objective", strata, gather(strata, make))
        return kept

    def measured(self, kept: Sequence[Kept]) -> list[Kept]:
        """The same with the tokens of their answers counted."""
        measured = []
        for start in range(0, len(kept), _MEASURED_AT_ONCE):
            here = kept[start : start + _MEASURED_AT_ONCE]
            texts = [dialogue_text(part) for one in here for part in (one.made.pair.chosen, one.made.pair.rejected)]
            counts = list(map(len, self._tokenizer.encode_batch(texts)))
            for one, chosen, rejected in zip(here, counts[::2], counts[1::2], strict=True):
                lengths = replace(one.lengths, chosen_tokens=chosen, rejected_tokens=rejected)
                measured.append(replace(one, lengths=lengths))
        return measured

    def _candidates(self, config: CandidatesConfig, again: bool) -> Iterator[Member[Candidate] | Passed]:
        def convert(value: Any, name: str, offset: int) -> Member[Candidate] | Passed:
            dialogue = Dialogue.from_json(value, source_file=name, offset=offset)
            return candidate_of(dialogue, config, self._recipe.seed)

        return self._read("dialogues", convert, again)

    def _questions(self, config: ObjectiveConfig, again: bool) -> Iterator[Member[Choice] | Passed]:
        def convert(value: Any, name: str, offset: int) -> Member[Choice] | Passed:
            choice = choice_of(value, config.format, source_file=name, offset=offset)
            found = question_member(choice, config, self._recipe.seed)
            if isinstance(found, Member):
                return found
            return Passed(choice.question.id, choice.lang, choice.question.source or config.source, found)

        return self._read("questions", convert, again)

    def _read(self, inputs: str, convert: Callable[[Any, str, int], Any], again: bool) -> Iterator[Any]:
        counts: list[FileCounts] | None = None if again else self.files.setdefault(inputs, [])
        quarantine = None if again else self._quarantine
        yield from read_records(self._inputs[inputs], convert, quarantine=quarantine, counts=counts)
        if counts is not None:
            self._check_records(counts)

    def _draw(
        self,
        kind: str,
        inputs: str,
        read: Callable[[bool], Iterator[Member[Any] | Passed]],
        config: Draw,
    ) -> list[Stratum[Any]]:
        rounds = 0

        def members() -> Iterator[Member[Any]]:
            nonlocal rounds
            again, rounds = rounds > 0, rounds + 1
            done, title = 0, f"read {inputs}" + " again" * again
            for found in read(again):
                done += 1
                if done % 1000 == 0:
                    self._on_progress(title, done, 0)
                source, lang = (found if isinstance(found, Passed) else found.traits).source, _lang(found)
                if not again:
                    self.tally.enter(kind, "candidates", source, lang)
                if isinstance(found, Passed):
                    if not again:
                        self.tally.drop(kind, "candidates", found.reason, source, lang)
                    continue
                if not again:
                    self.tally.enter(kind, "draw", source, lang)
                yield found

        def dropped(member: Member[Any], reason: str) -> None:
            self.tally.drop(kind, "draw", reason, member.traits.source, member.traits.lang)

        return draw(members, config, dropped)

    def passed(self, member: Member[Candidate]) -> Candidate | NoPair:
        """The candidate as the models may see it, or why they may not."""
        found = self.gates.candidate(member.content)
        if isinstance(found, Refused):
            return NoPair(member.id, member.traits.lang, member.traits.source, found.reason, found.detail)
        return found

    def _keep(self, kind: str, member: Member[Any], outcome: Outcome) -> Kept | None:
        """Look through what was made, and enter it in tally and audit."""
        lang, source = member.traits.lang, member.traits.source
        self.tally.enter(kind, "pairs", source, lang)
        kept: Kept | None = None
        said = self.gates.masked(outcome.meta if isinstance(outcome, Made) else outcome.detail)
        if isinstance(outcome, Made):
            found = self.gates.pair(outcome.pair)
            if isinstance(found, Refused):
                outcome = NoPair(member.id, lang, source, found.reason, found.detail)
                said = {**said, "refused": dict(found.detail)}
            else:
                kept = self._kept(kind, member, replace(outcome, pair=found, lang=lang, source=source))
        line: dict[str, Any] = {"kind": kind, "id": member.id, "lang": lang, "source": source}
        if isinstance(outcome, NoPair):
            self.tally.drop(kind, "pairs", outcome.reason, source, lang)
            line |= {"outcome": outcome.reason, "pair": None}
        else:
            assert kept is not None
            line |= {"outcome": "pair", "pair": kept.made.pair.id}
        if self._audit is not None:
            self._audit.write({**line, "evidence": said})
        return kept

    def _kept(self, kind: str, member: Member[Any], made: Made) -> Kept:
        name = f"{kind}-{member.id}"
        if name in self._ids:  # the same id in two files
            name = f"{name}-{member.rank:016x}"
        self._ids.add(name)
        pair = replace(made.pair, id=name, kind=kind)
        lengths = Lengths(
            id=name,
            kind=kind,
            lang=made.lang,
            key=choice_key(member.content) if isinstance(member.content, Choice) else prompt_key(pair.prompt),
            chosen_characters=len(dialogue_text(pair.chosen)),
            rejected_characters=len(dialogue_text(pair.rejected)),
            chosen_tokens=0,  # `measured` counts them, many at once
            rejected_tokens=0,
        )
        meta = {name: value for name, value in made.meta.items() if name not in _AUDITED}
        return Kept(replace(made, pair=pair, meta={"of": member.id, **meta}), lengths)

    def _made(self, members: Sequence[Member[Choice]], config: ObjectiveConfig) -> Iterator[Made]:
        seed = self._recipe.seed
        for start in range(0, len(members), SCORED_AT_ONCE):
            here = members[start : start + SCORED_AT_ONCE]
            self._on_progress("make objective pairs", start + len(here), len(members))
            if self._likely is None:
                for member in here:
                    yield objective_pair(member, random_wrong(member.content.question, seed), config, seed, {})
                continue
            for member, (wrong, logp) in zip(here, self._likely(here), strict=True):
                yield objective_pair(member, wrong, config, seed, {"mean_logp": round(logp, 6)})

    def _check_records(self, counts: Sequence[FileCounts]) -> None:
        """Refuse inputs that are mostly something else."""
        bad, good = (sum(n) for n in zip(*((f.quarantined.total(), f.records) for f in counts), strict=True))
        if bad > self._recipe.max_bad_fraction * (bad + good):
            reasons = sum((found.quarantined for found in counts), Counter[str]())
            named = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
            raise RunError(
                f"{bad:,} of {bad + good:,} records are bad ({named}), more than the "
                f"{self._recipe.max_bad_fraction:.1%} allowed: see {self._recipe.output / 'quarantine.jsonl'}, mend "
                "them or raise max_bad_fraction"
            )

    def _check_models(self, made: int) -> None:
        """Refuse to go on where a model gave up, or failed too often."""
        part = self._recipe.subjective
        assert part is not None
        for name, model in self.models.items():
            account = model.account
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in account.failed.most_common())
            kept = (
                f"{account.answered + account.recorded:,} of its {account.requests:,} requests are answered and "
                f"recorded, which makes {made:,} pairs so far"
            )
            if account.failed["budget"]:
                raise RunError(
                    f"the limits of subjective.{name} were met: {kept}; raise subjective.{name}.limits and run again, "
                    "what is recorded is not asked again"
                )
            if sum(account.failed[reason] for reason in _GAVE_UP):
                raise RunError(f"subjective.{name} gave up ({reasons}): {kept}; see to the server and run again")
            if account.failed.total() > part.max_failed_fraction * account.requests:
                raise RunError(
                    f"subjective.{name} did not answer {account.failed.total():,} requests ({reasons}), more than "
                    f"max_failed_fraction {part.max_failed_fraction:g} allows: {kept}; see to the server and run again"
                )

    def _note_strata(self, kind: str, strata: Sequence[Stratum[Any]], done: Mapping[str, tuple[int, int]]) -> None:
        """The strata's rows for the report; members that nobody needed are counted as not drawn."""
        self.strata[kind] = [
            {
                "name": stratum.name,
                "asked": stratum.quota,
                "available": stratum.available,
                "used": done[stratum.name][1],
                "made": done[stratum.name][0],
                "short": stratum.quota - done[stratum.name][0],
            }
            for stratum in strata
        ]
        for stratum in strata:
            for member in stratum.members[done[stratum.name][1] :]:
                self.tally.drop(kind, "draw", NOT_DRAWN, member.traits.source, member.traits.lang)


def _lang(found: Member[Any] | Passed) -> str:
    return found.lang if isinstance(found, Passed) else found.traits.lang
