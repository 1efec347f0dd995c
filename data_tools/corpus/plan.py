"""What a run has to do: the shards of its input, the phases of its steps, and the key of each piece of work.

A phase is a row of steps that look at one document at a time. The first reads the input; each further one begins where
all shards had to be known (duplicates), or after steps that are dear, and reads what the one before let pass. Then the
stages are written, for which all shards have to be known too. A piece of work is a shard in a phase. Its key is a
digest of all that decides its result, and names its files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_tools.commits import digest_of
from data_tools.corpus.recipe import ChainRecipe
from data_tools.corpus.step_config import GlobalStepConfig, StepConfig
from data_tools.inputs import InputError, resolve_inputs
from data_tools.ranges import InputFile, plan_ranges

FORMAT_VERSION = 1


@dataclass(frozen=True)
class CorpusShard:
    """`name`: source and number within it. `end` is None for a whole file. `weight`: bytes on disk, for progress."""

    name: str
    source: int
    file: int
    path: Path
    start: int
    end: int | None
    weight: int


@dataclass(frozen=True)
class Phase:
    """Some steps by their number in the recipe; `ending` is the global step between this phase and the next, if there
    is one.
    """

    steps: tuple[int, ...]
    ending: GlobalStepConfig | None


class ShardFiles:
    """The files of one piece of work in `directory`, all named after `key`."""

    def __init__(self, directory: Path, key: str) -> None:
        self._path = directory / key
        self.marker = self._with("json")
        # the documents that go on
        self.documents = self._with("documents.jsonl.zst")
        # why the others do not; uint64 hashes of their ids in the same order
        self.decisions = self._with("decisions.jsonl.zst")
        self.decision_ids = self._with("decisions.ids")
        self.quarantine = self._with("quarantine.jsonl")
        self.signatures = self._with("signatures")
        # the shard's members of clusters of duplicates
        self.clusters = self._with("clusters.jsonl.zst")
        self.census = self._with("census.npy")

    def stage(self, name: str) -> tuple[Path, Path]:
        """The documents that enter a stage, and the hashes of their ids, in order."""
        return self._with(f"{name}.jsonl.zst"), self._with(f"{name}.ids")

    def _with(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{suffix}")


class CorpusPlan:
    """The work of one run.

    Attributes:
        inputs: the sources.
        files: the inputs in document order, as they are now. shards: their parts, in the same order.
        phases: the rows of steps; the stages are written after the last.
        digest: over everything that decides the result.

    Raises:
        InputError: nothing to read, or a file that is not there.
    """

    def __init__(self, recipe: ChainRecipe, tokenizer_digest: str) -> None:
        self.recipe = recipe
        self.inputs = recipe.inputs
        self.files: list[InputFile] = []
        self.sources: list[int] = []  # of each file
        self.shards: list[CorpusShard] = []
        shard_bytes = None if recipe.shard_mib is None else max(1, int(recipe.shard_mib * (1 << 20)))
        seen: dict[Path, str] = {}
        for number, source in enumerate(self.inputs):
            files = [InputFile.at(path) for path in _resolve(source.name, source.files)]
            for file in files:
                other = seen.setdefault(file.path.resolve(), source.name)
                if other != source.name:
                    raise InputError(f"{file.path} is in source {other} and in source {source.name}: give it to one")
            first = len(self.files)
            for count, (place, start, end, weight) in enumerate(plan_ranges(files, shard_bytes)):
                name = f"{source.name}-{count:05d}"
                self.shards.append(CorpusShard(name, number, first + place, files[place].path, start, end, weight))
            self.files += files
            self.sources += [number] * len(files)
        self.phases = _phases(recipe.chain)
        self._facts = {
            "version": [FORMAT_VERSION, version("megatron-aquila")],
            "tokenizer": tokenizer_digest,
            "seed": recipe.seed,
        }
        self._chain, endings = self._chain_digests()
        inputs = [self._input_digest(shard) for shard in self.shards]
        self._inputs = inputs
        self._global_keys = [
            digest_of({**self._facts, "chain": chain, "ending": ending, "inputs": inputs, "phase": phase})
            for phase, (chain, ending) in enumerate(zip(self._chain, endings))
        ]
        stages = [stage.model_dump(mode="json") for stage in recipe.mixtures]
        judged = [recipe.max_bad_fraction, recipe.allow_truncated]
        self.digest = digest_of({"last": self.global_key(len(self.phases) - 1), "stages": stages, "judged": judged})

    def key(self, phase: int, shard: int) -> str:
        """Of a shard in a phase; the number after the last phase is that of writing the stages."""
        if phase == 0:
            return digest_of({**self._facts, "chain": self._chain[0], "input": self._inputs[shard]})
        after = self.digest if phase == len(self.phases) else self._chain[phase]
        return digest_of({"after": self.global_key(phase - 1), "chain": after, "shard": shard})

    def global_key(self, phase: int) -> str:
        """Of what is found over all shards after a phase."""
        return self._global_keys[phase]

    def files_of(self, directory: Path, phase: int, shard: int) -> ShardFiles:
        """The files of a piece of work."""
        return ShardFiles(directory, self.key(phase, shard))

    def keys(self) -> set[str]:
        """Every key of the run."""
        pieces = {self.key(p, s) for p in range(len(self.phases) + 1) for s in range(len(self.shards))}
        return pieces | {self.global_key(phase) for phase in range(len(self.phases))}

    def _chain_digests(self) -> tuple[list[str], list[str]]:
        """For each phase a digest of all that decides what its pieces hold, and one of its global step."""
        digests = self.recipe.step_digests()
        chains: list[str] = []
        endings: list[str] = []
        end = 0
        for phase in self.phases:
            end += len(phase.steps)
            ending = None if phase.ending is None else digests[end]
            steps = [digest.whole for digest in digests[:end]]
            chains.append(digest_of({"steps": steps, "rows": ending and ending.rows, "phase": len(chains)}))
            endings.append("" if ending is None else ending.whole)
            end += ending is not None
        return chains, endings

    def _input_digest(self, shard: CorpusShard) -> str:
        file, source = self.files[shard.file], self.inputs[shard.source]
        place: list[Any] = [str(file.path.absolute()), file.size, file.mtime_ns, shard.start, shard.end]
        return digest_of({"input": place, "source": source.model_dump(mode="json", exclude={"files"})})


def _resolve(source: str, files: Sequence[str]) -> list[Path]:
    try:
        return resolve_inputs(files)
    except InputError as error:
        raise InputError(f"source {source}: {error}") from error


def _phases(steps: Sequence[StepConfig]) -> list[Phase]:
    phases: list[Phase] = []
    row: list[int] = []
    for number, step in enumerate(steps):
        if isinstance(step, GlobalStepConfig):
            if step.apart and row:
                phases.append(Phase(tuple(row), None))
                row = []
            phases.append(Phase(tuple(row), step))
            row = []
        else:
            row.append(number)
    return [*phases, Phase(tuple(row), None)]
