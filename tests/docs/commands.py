"""Every command in the documentation, taken apart and checked as far as it can be without running it.

`aquila` commands go through the real parser; recipes are loaded with their overrides, as the verb loads them. What
stands in capitals (`TOKENIZER`) is a place for the reader's own; overrides of such a recipe are checked on a stand-in.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typer.main import get_command

from tests.docs.pages import ROOT, Block

# Programs of a reader's shell that say nothing about this project, and programs of others.
_SHELL = {"cd", "mkdir", "export", "source", "cp", "cat", "head", "tail", "ls", "kill", "git", "nvidia-smi", "#"}
_OTHERS = {"pip", "python3.11", "squeue", "scontrol", "vllm", "llama-cli", "lm_eval"}
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")
_TASK = re.compile(r"aqm_\w+")


class Refused(AssertionError):
    """A command that would not work as it stands."""


@dataclass(frozen=True)
class Command:
    """One simple command: a line, or a part of one between pipes. words: as the shell would split it."""

    block: Block
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block.page.relative_to(ROOT)}:{self.line}: {' '.join(self.words)}"


def commands(block: Block) -> list[Command]:
    """The commands of a block of shell, comments, redirections and assignments left out."""
    found, pending, start = [], "", 0
    for offset, line in enumerate(block.text.splitlines()):
        start = start if pending else block.line + offset
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        lexer = shlex.shlex(pending, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters, pending = True, "#", ""
        words: list[str] = []
        skip = False
        for word in [*lexer, ";"]:
            if word in ("|", "&&", "||", ";", "&"):
                while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", words[0]):
                    words.pop(0)
                if words:
                    found.append(Command(block, start, tuple(words)))
                words = []
            elif word in ("<", ">", ">>"):
                skip = True
            elif not skip:
                words.append(word)
            else:
                skip = False
    return found


def check(command: Command) -> None:
    """Raises Refused with the reason. To be called in a folder that holds `recipes` and the recipes that pages show."""
    program, *arguments = command.words
    name = Path(program).name
    try:
        if name == "aquila":
            check_aquila(arguments)
        elif name == "make":
            targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
            _require(set(arguments) <= targets, f"the Makefile has {', '.join(sorted(targets))}")
        elif name in ("python", "python3") and arguments[:1] == ["-m"]:
            _check_module(arguments[1], arguments[2:])
        elif name == "python" and arguments[:1] == ["-c"]:
            compile(arguments[1], str(command), "exec")  # test_guide.py runs it
        elif name in ("torchrun", "srun"):
            _check_launched(arguments, command.block.needs)
        elif name == "compute-sanitizer":
            check(Command(command.block, command.line, tuple(arguments[arguments.index("python") :])))
        elif name.endswith((".sh", ".sbatch")) or name in ("bash", "sbatch"):
            _check_script([program, *arguments])
        elif name in _OTHERS:
            _require(command.block.needs is not None or name == "lm_eval", "mark the block: <!-- needs … -->")
        else:
            _require(name in _SHELL or command.block.needs is not None, "no test knows this program")
    except Refused as refused:
        raise Refused(f"{command}\n  {refused}") from None


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Refused(otherwise)


# -- aquila ------------------------------------------------------------------------------------------------------


def check_aquila(arguments: Sequence[str]) -> None:
    """Parse as `aquila` does, and load what it would load first."""
    verb, given = parse(arguments)
    path, overrides = given.get("recipe"), given.get("overrides") or []
    if verb in ("train", "reference", "config show", "plan"):
        _load(_train_recipe, path, overrides)
    elif verb in ("data corpus", "data dialogues", "data pairs", "data label"):
        _load(_data_recipe(verb.removeprefix("data ")), path, overrides)
    elif verb in ("judge pair", "judge rubric"):
        _load(_judge_recipe(verb.removeprefix("judge ")), path, overrides)
    elif verb == "eval run":
        _check_evaluation(given["what"] or [])
    elif verb == "eval fetch":
        from megatron_aquila.evaluation.tasks.sources import SOURCES

        _require(given["name"] in SOURCES, f"the sets are {', '.join(SOURCES)}")
    elif verb == "data index":
        from data_tools.chat import get_template

        if given["template"]:
            get_template(given["template"])


def parse(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The verb, and its parameters by name. Raises Refused with what the parser says."""
    command, rest, verbs = _application(), list(arguments), list[str]()
    if rest[:1] == ["data"]:
        command, verbs = _data_application(), ["data"]
        rest = rest[1:]
    try:
        while hasattr(command, "commands"):
            if not rest or rest[0].startswith("-"):
                command.make_context(" ".join(verbs), rest, resilient_parsing=True)
                return " ".join(verbs), {}
            verbs.append(rest[0])
            _require(rest[0] in command.commands, f"there is no verb {rest[0]!r}: {', '.join(command.commands)}")
            command, rest = command.commands[rest[0]], rest[1:]
        return " ".join(verbs), command.make_context(" ".join(verbs), rest).params
    except Exception as error:
        if isinstance(error, Refused) or not hasattr(error, "format_message"):
            raise
        raise Refused(error.format_message()) from None


@cache
def _application() -> Any:
    from megatron_aquila.cli import app

    return get_command(app)


@cache
def _data_application() -> Any:
    from data_tools.cli import app

    return get_command(app)


def _load(load: Callable[[Path, Sequence[str]], object], path: Path | None, overrides: Sequence[str]) -> None:
    if path is None:  # --schema
        return
    if _PLACEHOLDER.fullmatch(str(path)):
        path = STAND_INS[str(path)]
    _require(path.is_file(), f"{path}: no recipe of ours, and no page shows a block that begins with '# {path}'")
    try:
        load(path, overrides)
    except ValueError as error:
        raise Refused(str(error)) from None
    except Exception as error:
        if type(error).__name__ != "ConfigError":
            raise
        raise Refused(str(error)) from None


STAND_INS = {"RECIPE": ROOT / "recipes/aquila_med/cpt_stage1.yaml"}


def _train_recipe(path: Path, overrides: Sequence[str]) -> object:
    from megatron_aquila.config_loader import load_config

    return load_config(path, overrides)


def _data_recipe(kind: str) -> Callable[[Path, Sequence[str]], object]:
    from data_tools.corpus.recipe import load_recipe as corpus
    from data_tools.dialogues.recipe import load_recipe as dialogues
    from data_tools.labelling.recipe import load_label_recipe as label
    from data_tools.preferences.recipe import load_pairs_recipe as pairs

    loaders: dict[str, Callable[[Path, Sequence[str]], object]] = {
        "corpus": corpus,
        "dialogues": dialogues,
        "pairs": pairs,
        "label": label,
    }
    return loaders[kind]


def _judge_recipe(kind: str) -> Callable[[Path, Sequence[str]], object]:
    from megatron_aquila.evaluation.judge.config import PairConfig, RubricConfig, load

    return lambda path, overrides: load(PairConfig if kind == "pair" else RubricConfig, path, overrides)


def _check_evaluation(what: Sequence[str]) -> None:
    from data_tools.config_files import ConfigFileError, load_model
    from megatron_aquila.evaluation.settings import EvaluationSettings

    try:
        load_model(EvaluationSettings, None, [given for given in what if "=" in given])
    except ConfigFileError as error:
        raise Refused(str(error)) from None
    from megatron_aquila.evaluation.tasks.catalog import DIALOGUE_SETS, groups, tasks

    known = {*tasks(), *groups(), *DIALOGUE_SETS}
    for task in filter(_TASK.fullmatch, what):
        _require(task in known, f"there is no task {task}")


# -- what starts aquila ------------------------------------------------------------------------------------------


def _check_module(module: str, arguments: Sequence[str]) -> None:
    if module == "megatron_aquila":
        check_aquila(arguments)
        return
    if module in ("pip", "venv"):
        return
    _require(importlib.util.find_spec(module) is not None, f"there is no module {module}")
    if module == "pytest":
        for path in (word for word in arguments if word.startswith("tests/")):
            _require((ROOT / path.partition("::")[0]).exists(), f"there is no {path}")
    elif module.startswith(("benchmarks.", "tests.")):
        place = ROOT / module.replace(".", "/")
        files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        source = "".join(path.read_text(encoding="utf-8") for path in files)
        for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
            parameter = option.removeprefix("--").replace("-", "_")  # of a function that typer runs
            known = f'"{option}"' in source or f"    {parameter}: Annotated[" in source
            _require(known, f"{module} has no option {option}")


def _check_launched(arguments: Sequence[str], needs: str | None) -> None:
    for place, word in enumerate(arguments):
        if word == "-m" or word == "--module":
            _check_module(arguments[place + 1], arguments[place + 2 :])
            return
    _require(needs is not None, "what is launched has no -m MODULE: mark the block, where it is a program of others")


def _check_script(words: Sequence[str]) -> None:
    place = next((place for place, word in enumerate(words) if word.endswith((".sh", ".sbatch"))), None)
    _require(place is not None, "what is run has no name of a script")
    assert place is not None
    _require((ROOT / words[place]).is_file(), f"there is no {words[place]}")
    if words[place].startswith("recipes/launch/"):
        check_aquila(["train", *words[place + 1 :]])
