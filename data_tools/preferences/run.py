"""`aquila data pairs`: dialogues and questions → pairs_train and pairs_valid, as records and as indexes.

What the models answered is in their caches, what a local model scored in the work directory: killed at any moment, the
next run asks nothing again and makes the same bytes.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.corpus.run import prepare_output
from data_tools.inputs import InputError, RunError
from data_tools.llm import LanguageModel, LanguageModelError
from data_tools.manifest import published
from data_tools.preferences.accounts import Accounts
from data_tools.preferences.likely import LikelyWrong
from data_tools.preferences.making import Kept, Making
from data_tools.preferences.outcome import Candidate
from data_tools.preferences.publication import WRITTEN, audit_file, finish
from data_tools.preferences.recipe import PairsRecipe
from data_tools.preferences.subjective import SubjectiveEstimate, estimate
from data_tools.publish import exclusive, remove_leftovers
from data_tools.quarantine import Quarantine
from data_tools.record_writer import RecordWriter
from data_tools.tokenizers import Tokenizer, TokenizerError, load_tokenizer

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much there is


@dataclass(frozen=True)
class PairsSummary:
    """What a run published: its funnel, and what is true of this run only."""

    output: Path
    funnel: dict[str, Any]
    seconds: float
    reused: bool


@dataclass(frozen=True)
class PairsPlan:
    """The dry run. `least`: what is asked if every candidate gives a pair; `most`: if so many fall out that all spare
    ones are used. None without subjective pairs. `strata`: by kind, name, pairs asked, candidates there are.
    """

    least: SubjectiveEstimate | None
    most: SubjectiveEstimate | None
    strata: dict[str, list[tuple[str, int, int]]]


def build_pairs(
    recipe: PairsRecipe, *, workers: int = 1, on_progress: Progress = lambda title, done, total: None
) -> PairsSummary:
    """Make the pairs that `recipe` describes in its output directory.

    Raises:
        InputError: it cannot be begun. RunError: it cannot be finished: limits were met, a server is down, too many
            bad records, no pair at all; what was answered is kept. BusyError. StorageError. WorkerDiedError.
    """
    began = time.monotonic()
    tokenizer = _load(recipe)
    digest = recipe.digest(tokenizer.digest)
    prepare_output(recipe.output)
    work = recipe.output / "work"
    with exclusive(work, recipe.output):
        funnel = published(recipe.output, digest)
        reused = funnel is not None
        if funnel is None:
            # First: what follows replaces files that a former manifest tells of.
            (recipe.output / "manifest.json").unlink(missing_ok=True)
            for name in WRITTEN:
                remove_leftovers(recipe.output / name)
            models = _models(recipe)
            quarantine = recipe.output / "quarantine.jsonl"
            quarantine.unlink(missing_ok=True)
            accounts = Accounts(recipe.output, digest, models)

            def progress(title: str, done: int, total: int) -> None:
                accounts.write_at_times()
                on_progress(title, done, total)

            try:
                with Quarantine(quarantine) as bad, RecordWriter(audit_file(recipe.output)) as audit:
                    likely = _likely(recipe, work, digest)
                    making = Making(recipe, tokenizer, models, likely, bad, audit, progress)
                    kept = making.measured(_make(recipe, making))
            except LanguageModelError as error:
                raise RunError(str(error)) from error
            finally:
                accounts.write()
            funnel = finish(recipe, digest, tokenizer, making, kept, accounts, workers, on_progress)
        shutil.rmtree(work)
    return PairsSummary(recipe.output, funnel, time.monotonic() - began, reused)


def plan_pairs(recipe: PairsRecipe) -> PairsPlan:
    """The dry run of `build_pairs`: no call, no file.

    Raises:
        InputError: it cannot be begun.
    """
    models = _models(recipe)
    making = Making(recipe, _load(recipe), models, None, None, None)
    strata: dict[str, list[tuple[str, int, int]]] = {}
    least = most = None
    if recipe.subjective is not None:
        drawn = making.draw_subjective()
        strata["subjective"] = [(stratum.name, stratum.quota, stratum.available) for stratum in drawn]
        settings = recipe.subjective.settings

        def asked(spare: bool) -> SubjectiveEstimate:
            members = [m for stratum in drawn for m in stratum.members[: None if spare else stratum.quota]]
            found = (making.passed(member) for member in members)  # as the models would see them
            candidates = (one for one in found if isinstance(one, Candidate))
            return estimate(candidates, models["author"], models["judge"], settings)

        least, most = asked(spare=False), asked(spare=True)
    if recipe.objective is not None:
        drawn_questions = making.draw_objective()
        strata["objective"] = [(stratum.name, stratum.quota, stratum.available) for stratum in drawn_questions]
    return PairsPlan(least, most, strata)


def _make(recipe: PairsRecipe, making: Making) -> list[Kept]:
    kept: list[Kept] = []
    if recipe.subjective is not None:
        kept += making.subjective()
    if recipe.objective is not None:
        kept += making.objective()
    return kept


def _likely(recipe: PairsRecipe, work: Path, digest: str) -> LikelyWrong | None:
    config = recipe.objective
    if config is None or config.wrong == "random" or config.model is None:
        return None
    return LikelyWrong(config.model, work, digest)


def _models(recipe: PairsRecipe) -> dict[str, LanguageModel]:
    part = recipe.subjective
    return {} if part is None else {"author": LanguageModel(part.author), "judge": LanguageModel(part.judge)}


def _load(recipe: PairsRecipe) -> Tokenizer:
    try:
        return load_tokenizer(recipe.tokenizer, eod=recipe.eod)
    except TokenizerError as error:
        raise InputError(f"tokenizer: {error}") from error


__all__ = ["PairsPlan", "PairsSummary", "build_pairs", "plan_pairs"]
