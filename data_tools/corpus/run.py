"""`aquila data corpus`: take the shards through the phases, settle what needs all of them in between, publish.

Every piece of work is committed on its own, under a key of all that decides it: killed at any moment, the next run goes
on from what was finished, and the output is the same bytes whatever the number of workers.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.commits import commit, committed
from data_tools.corpus.mix import plan_stages
from data_tools.corpus.plan import CorpusPlan
from data_tools.corpus.publication import CorpusError, publish
from data_tools.corpus.recipe import ChainRecipe
from data_tools.corpus.work import CorpusWork, plans_file, verdicts_file, verdicts_marker
from data_tools.indexing import build_index
from data_tools.inputs import InputError
from data_tools.manifest import published
from data_tools.pool import Pool
from data_tools.publish import LOCK, exclusive
from data_tools.samples import sample_encoder
from data_tools.tokenizers import Tokenizer, TokenizerError, load_tokenizer

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much there is


@dataclass(frozen=True)
class CorpusSummary:
    """What a run published: its funnel, and what is true of this run only."""

    output: Path
    funnel: dict[str, Any]
    seconds: float
    pieces_done: int
    pieces_reused: int


class CorpusRun:
    """A run in pieces, for whoever schedules them: this machine's workers, or a cluster's.

    For each phase in turn: `work.do` every task of `todo(phase)`, in any order and place, then `settle(phase)` once.
    Then `publish`.

    Raises:
        InputError: the recipe cannot be begun.
    """

    def __init__(self, recipe: ChainRecipe) -> None:
        self.recipe = recipe
        self.tokenizer = _load(recipe)
        self.plan = CorpusPlan(recipe, self.tokenizer.digest)
        self.directory = recipe.output / "work"
        self.work = CorpusWork(self.plan, self.directory)

    @property
    def phases(self) -> range:
        """The numbers of the phases; the last writes the stages."""
        return range(len(self.plan.phases) + 1)

    def todo(self, phase: int, part: int = 0, parts: int = 1) -> list[tuple[int, int]]:
        """The tasks of a phase that are not committed yet; of `parts` shares of them the one numbered `part`. The files
        of a task that is committed are read, to know that they are whole.
        """
        shards = range(part, len(self.plan.shards), parts)
        return [
            (phase, shard)
            for shard in shards
            if committed(self.plan.files_of(self.directory, phase, shard).marker) is None
        ]

    def title(self, phase: int) -> str:
        """What a phase does, for a progress bar."""
        if phase == len(self.plan.phases):
            return "write " + ", ".join(stage.name for stage in self.recipe.mixtures)
        row = self.plan.phases[phase]
        names = ", ".join(self.recipe.chain[number].step for number in row.steps)
        return names or ("read" if row.ending is None else f"rows for {row.ending.step}")

    def settle(self, phase: int, on_progress: Progress = lambda title, done, total: None) -> None:
        """Find what needs all shards after a phase: a global step's verdicts; after the last, what of each part enters
        the stages.
        """
        if phase == len(self.plan.phases):
            return
        pieces = [self.plan.files_of(self.directory, phase, shard) for shard in range(len(self.plan.shards))]
        ending = self.plan.phases[phase].ending
        if ending is not None:
            marker = verdicts_marker(self.directory, self.plan, phase)
            if committed(marker) is not None:
                return
            outputs = [verdicts_file(self.directory, self.plan, phase, shard) for shard in range(len(pieces))]
            scratch = self.directory / f"{self.plan.global_key(phase)}.scratch"
            scratch.mkdir(exist_ok=True)
            counts = ending.settle(
                [files.signatures for files in pieces],
                scratch,
                outputs,
                lambda done, total: on_progress(ending.step, done, total),
            )
            shutil.rmtree(scratch)
            commit(marker, counts, outputs)
        elif phase == len(self.plan.phases) - 1:
            marker = plans_file(self.directory, self.plan)
            if committed(marker) is None:
                censuses = (np.load(files.census, allow_pickle=False) for files in pieces)
                plans = plan_stages(self.recipe.mixtures, censuses)
                commit(marker, {"stages": [[asdict(part) for part in stage] for stage in plans]}, [])

    def publish(self) -> dict[str, Any]:
        """Check that nothing got lost, write the report, and move everything to its place. Returns the funnel.

        Raises:
            CorpusError: too many bad records, a damaged file, nothing left. StorageError.
        """
        return publish(self.plan, self.directory, self.tokenizer)

    def clean(self) -> None:
        """Remove what killed runs left half written, and pieces of other inputs or recipes."""
        keys = self.plan.keys()
        for path in self.directory.iterdir():
            if path.name == LOCK or (path.suffix != ".tmp" and path.name.split(".")[0] in keys):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def build_corpus(
    recipe: ChainRecipe, *, workers: int = 1, on_progress: Progress = lambda title, done, total: None
) -> CorpusSummary:
    """Make the corpus that `recipe` describes in its output directory, with processes of this machine.

    Raises:
        InputError: it cannot be begun. CorpusError, IndexingError: it cannot be finished. BusyError. WorkerDiedError.
        StorageError.
    """
    began = time.monotonic()
    run = CorpusRun(recipe)
    prepare_output(recipe.output)
    done = 0
    pieces = len(run.phases) * len(run.plan.shards)
    with exclusive(run.directory, recipe.output):
        funnel = published(recipe.output, run.plan.digest)
        if funnel is None:
            run.clean()
            with Pool(run.work, min(workers, len(run.plan.shards))) as pool:
                for phase in run.phases:
                    tasks = run.todo(phase)
                    done += len(tasks)
                    weights = [shard.weight for shard in run.plan.shards]
                    total = sum(weights)
                    before = total - sum(weights[shard] for _, shard in tasks)
                    title = run.title(phase)

                    def progress(current: int, title: str = title, before: int = before, total: int = total) -> None:
                        on_progress(title, before + current, total)

                    pool.run(tasks, progress)
                    run.settle(phase, on_progress)
            funnel = run.publish()
        if recipe.index:
            index_stages(recipe, workers, on_progress)
        if not recipe.keep_work:
            shutil.rmtree(run.directory)
    return CorpusSummary(recipe.output, funnel, time.monotonic() - began, done, pieces - done)


def prepare_output(output: Path) -> None:
    """Make the output directory.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the output directory {output} cannot be made: {error.strerror}") from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise InputError(f"the output directory {output} cannot be written to")


def index_stages(recipe: ChainRecipe, workers: int, on_progress: Progress = lambda title, done, total: None) -> None:
    """Make STAGE.bin and STAGE.idx of every stage that was published."""
    for stage in recipe.mixtures:
        build_index(
            [str(recipe.output / recipe.noun / stage.name)],
            recipe.tokenizer,
            recipe.output / stage.name,
            recipe.index_options,
            eod=recipe.eod,
            workers=workers,
            on_progress=lambda done, total, name=stage.name: on_progress(f"index {name}", done, total),  # type: ignore[misc]
        )


def _load(recipe: ChainRecipe) -> Tokenizer:
    try:
        tokenizer = load_tokenizer(recipe.tokenizer, eod=recipe.eod)
        if recipe.index:
            sample_encoder(recipe.index_options, tokenizer)  # now, not after hours, if they do not fit each other
        return tokenizer
    except TokenizerError as error:
        raise InputError(f"tokenizer: {error}") from error


__all__ = ["CorpusError", "CorpusRun", "CorpusSummary", "build_corpus", "prepare_output"]
