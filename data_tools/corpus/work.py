"""What a worker does with a shard: take it through a phase's steps, or write the stages it enters; then commit it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.commits import commit, counts_of
from data_tools.corpus.batch import Drop, Step
from data_tools.corpus.chain import Chain, Documents, decide
from data_tools.corpus.mix import Census, PartPlan, copies
from data_tools.corpus.outputs import DecisionOutput, PhaseOutput, StageOutput
from data_tools.corpus.plan import CorpusPlan, ShardFiles
from data_tools.corpus.reading import Input, stored_documents
from data_tools.corpus.step_config import GlobalStepConfig, Resources
from data_tools.corpus.tally import Sizes, StepTally, language_codes
from data_tools.publish import atomic_path
from data_tools.quarantine import Quarantine
from data_tools.record_writer import RecordWriter
from data_tools.tokenizers import load_tokenizer

MIX, PRIVACY = "mix", "privacy"
NOT_DRAWN, NO_PART = "not-drawn", "no-part"

Report = Callable[[int], None]


class CorpusWork:
    """The tasks of a run: (phase, shard) numbers of `plan`. Files go to `directory`, where `verdicts_file`s and the
    `plans_file` must be before a phase is begun that needs them.
    """

    def __init__(self, plan: CorpusPlan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory

    def start(self) -> None:
        """Load the tokenizer and build the steps.

        Raises:
            InputError, TokenizerError: as they do.
        """
        recipe = self.plan.recipe
        self._tokenizer = load_tokenizer(recipe.tokenizer, eod=recipe.eod)
        resources = Resources(self._tokenizer, recipe.seed)
        used = {number for phase in self.plan.phases for number in phase.steps}
        self._steps = {number: recipe.build(recipe.chain[number], resources) for number in sorted(used)}
        endings = [phase.ending for phase in self.plan.phases]
        self._signers = [None if ending is None else ending.signer(resources) for ending in endings]
        masks = [number for number, step in self._steps.items() if step.name == PRIVACY]
        self._privacy = masks[0] if masks else None

    def do(self, task: tuple[int, int], report: Report) -> None:
        """Do one shard of one phase; the phase after the last writes the stages."""
        phase, shard = task
        files = self.plan.files_of(self.directory, phase, shard)
        if phase == len(self.plan.phases):
            self._write_stages(shard, files)
        elif phase == 0:
            self._read(shard, files, report)
        else:
            self._go_on(phase, shard, files)
        report(self.plan.shards[shard].weight)

    def _read(self, number: int, files: ShardFiles, report: Report) -> None:
        shard = self.plan.shards[number]
        source = self.plan.inputs[shard.source]
        chain = self._chain(0)
        with (
            atomic_path(files.quarantine, sync=False) as bad_path,
            Quarantine(bad_path) as quarantine,
            self._output(0, files) as output,
        ):
            documents = Input(shard, source, self._tokenizer, quarantine)
            for batch in documents:
                output.write(*chain(batch))
                report(documents.consumed)
            bad_path.touch()
        counts = {"read": asdict(documents.read), "steps": _tallies(chain), "documents": output.documents}
        commit(files.marker, counts, [files.quarantine, *output.files])

    def _go_on(self, phase: int, number: int, files: ShardFiles) -> None:
        chain = self._chain(phase)
        ending = self.plan.phases[phase - 1].ending
        steps: dict[str, Any] = {}
        with self._output(phase, files) as output, RecordWriter(files.clusters, sync=False) as clusters:
            if ending is None:
                for batch in self._stored(phase - 1, number):
                    output.write(*chain(batch))
            else:
                tally = StepTally(ending.scales, {})
                for batch in self._judged(ending, phase - 1, number, tally, clusters, output):
                    output.write(*chain(batch))
                steps[ending.step] = tally.to_json()
        steps |= _tallies(chain)
        commit(files.marker, {"steps": steps, "documents": output.documents}, [files.clusters, *output.files])

    def _judged(
        self,
        ending: GlobalStepConfig,
        phase: int,
        number: int,
        tally: StepTally,
        clusters: RecordWriter,
        output: PhaseOutput,
    ) -> Iterator[Documents]:
        """What `phase` let pass of a shard, without what its global step drops."""
        verdicts = np.load(verdicts_file(self.directory, self.plan, phase, number), allow_pickle=False)
        row = position = 0
        for documents in self._stored(phase, number):
            sizes = Sizes(documents.batch, self._tokenizer)
            tally.enter(sizes)
            tally.measure(language_codes(documents.batch), ending.measures(documents.batch))
            drops: list[Drop | None] = [None] * len(documents)
            while row < len(verdicts) and verdicts["position"][row] < position + len(documents):
                verdict = verdicts[row]
                place = int(verdict["position"]) - position
                if member := ending.member(verdict, documents.batch.ids[place]):
                    clusters.write(member)
                drops[place] = ending.drop(verdict)
                row += 1
            position += len(documents)
            decisions = decide(documents, drops, sizes, ending.step, self._mask(phase + 1))
            for decision in decisions:
                tally.drop(decision)
            output.decide(decisions)
            documents = documents.select([place for place, drop in enumerate(drops) if drop is None])
            tally.leave(Sizes(documents.batch, self._tokenizer))
            if len(documents):
                yield documents

    def _write_stages(self, number: int, files: ShardFiles) -> None:
        recipe, last = self.plan.recipe, len(self.plan.phases) - 1
        plans = plans_of(self.directory, self.plan)
        tally = StepTally({}, {})
        with ExitStack() as stack:
            decisions = stack.enter_context(DecisionOutput(files))
            outputs = [stack.enter_context(StageOutput(*files.stage(stage.name))) for stage in recipe.mixtures]
            for documents in self._stored(last, number):
                sizes = Sizes(documents.batch, self._tokenizer)
                tally.enter(sizes)
                taken = np.zeros(len(documents), np.int64)
                for stage, plan, output in zip(recipe.mixtures, plans, outputs):
                    times = copies(stage, plan, documents.batch, recipe.seed)
                    output.write(documents, times)
                    taken += times
                drops = [None if times else self._undrawn(documents, place) for place, times in enumerate(taken)]
                found = decide(documents, drops, sizes, MIX, self._mask(last + 1))
                for decision in found:
                    tally.drop(decision)
                decisions.write(found)
                kept = documents.select(np.flatnonzero(taken).tolist())
                tally.leave(Sizes(kept.batch, self._tokenizer))
        written = {stage.name: output.facts() for stage, output in zip(recipe.mixtures, outputs)}
        counts = {"steps": {MIX: tally.to_json()}, "stages": written}
        commit(files.marker, counts, [*decisions.files, *(path for output in outputs for path in output.files)])

    def _undrawn(self, documents: Documents, place: int) -> Drop:
        """Why a document enters no stage."""
        batch = documents.batch
        facts = batch.sources[place], batch.langs[place], batch.metas[place]
        return Drop(NOT_DRAWN if any(s.part_of(*facts) >= 0 for s in self.plan.recipe.mixtures) else NO_PART)

    def _stored(self, phase: int, number: int) -> Iterator[Documents]:
        source = self.plan.inputs[self.plan.shards[number].source].name
        return stored_documents(self.plan.files_of(self.directory, phase, number).documents, source)

    def _output(self, phase: int, files: ShardFiles) -> PhaseOutput:
        recipe = self.plan.recipe
        census = Census(recipe.mixtures, recipe.seed) if phase == len(self.plan.phases) - 1 else None
        return PhaseOutput(files, self._tokenizer, self._signers[phase], census)

    def _chain(self, phase: int) -> Chain:
        numbers = self.plan.phases[phase].steps
        return Chain([self._steps[n] for n in numbers], self._tokenizer, [self._mask_at(n) for n in numbers])

    def _mask(self, phase: int) -> Step | None:
        """What masks excerpts of documents that are dropped just before a phase."""
        before = [number for earlier in self.plan.phases[:phase] for number in earlier.steps]
        return self._mask_at(max(before, default=-1) + 1)

    def _mask_at(self, step: int) -> Step | None:
        return None if self._privacy is None or step > self._privacy else self._steps[self._privacy]


def verdicts_file(directory: Path, plan: CorpusPlan, phase: int, shard: int) -> Path:
    """What the global step after a phase says about a shard."""
    return directory / f"{plan.global_key(phase)}.verdicts.{shard:06d}.npy"


def verdicts_marker(directory: Path, plan: CorpusPlan, phase: int) -> Path:
    """The marker of the verdicts after a phase; holds the global step's counts."""
    return directory / f"{plan.global_key(phase)}.verdicts.json"


def plans_file(directory: Path, plan: CorpusPlan) -> Path:
    """The marker that holds what `plan_stages` found."""
    return directory / f"{plan.global_key(len(plan.phases) - 1)}.{plan.digest}.stages.json"


def plans_of(directory: Path, plan: CorpusPlan) -> list[list[PartPlan]]:
    """What `plan_stages` found for the stages of a run."""
    stages = counts_of(plans_file(directory, plan))["stages"]
    return [[PartPlan(**part) for part in stage] for stage in stages]


def _tallies(chain: Chain) -> dict[str, Any]:
    return {name: tally.to_json() for name, tally in chain.tallies.items()}
