"""`aquila data label` and `train-scorer`. Only typer is imported here, so that `--help` is instant."""

from pathlib import Path
from typing import Annotated, Any

import typer

from data_tools.cli_common import console, one_sentence


def label(
    recipe: Annotated[Path, typer.Argument(help="YAML file: inputs, output, label, model.", metavar="RECIPE")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys to change, such as model.mode=replay.", metavar="[KEY=VALUE]..."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls, tokens and cost, and ask nothing.")] = False,
) -> None:
    """Have a language model label documents or dialogues, as seeds for a scorer.

    Tasks: domain and quality, of documents; complexity and response-quality, of each exchange of dialogues; safety,
    of whole dialogues. Each is asked about several times; those whose answers differ are dropped. The model is any
    server that speaks the OpenAI protocol. Answers are kept: nothing is asked, or paid for, twice.
    """
    with one_sentence():
        from data_tools.inputs import RunError
        from data_tools.labelling import LabellingError, plan
        from data_tools.labelling import label as label_documents
        from data_tools.labelling.recipe import load_label_recipe
        from data_tools.llm import LanguageModel, LanguageModelError

        loaded = load_label_recipe(recipe, overrides or ())
        model = LanguageModel(loaded.model)
        terminal = console()
        try:
            if dry_run:
                terminal.print(str(plan(loaded.inputs, loaded.label, model)))
                return
            manifest = label_documents(loaded.inputs, loaded.output, loaded.label, model)
        except (LabellingError, LanguageModelError) as error:
            raise RunError(str(error)) from error
        _print(terminal, str(loaded.output), manifest["counts"])


def train_scorer(
    seeds: Annotated[
        list[str], typer.Argument(help="Files of labelled texts: text, and label or score.", metavar="SEEDS...")
    ],
    output: Annotated[Path, typer.Option(help="Directory to write; it must not exist.", metavar="DIRECTORY")],
    kind: Annotated[str, typer.Option(help="linear, fasttext or encoder: from cheap to dear.")] = "linear",
    task: Annotated[
        str | None,
        typer.Option(help="classification (domain) or regression (scores) [what `aquila data label` wrote]."),
    ] = None,
    score_range: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Of a regression [what `aquila data label` wrote, or 0 6].", metavar="LOW HIGH"),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The corpus recipe's, whose tokens a linear scorer counts.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(help="Of the kind, such as epochs=3 or model=models/bert; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split and the training.")] = 0,
) -> None:
    """Train a scorer of documents or dialogues from labelled seeds, and report how good it is on held-out ones."""
    with one_sentence():
        from data_tools.config_files import parse_value
        from data_tools.inputs import InputError, resolve_inputs
        from data_tools.scorers.seeds import labelled_range
        from data_tools.scorers.training import train_scorer as train

        settings: dict[str, Any] = {}
        for given in setting or ():
            key, equals, value = given.partition("=")
            if not equals:
                raise InputError(f"--setting {given!r} is not KEY=VALUE")
            settings[key] = parse_value(value)
        if task is None:
            task = "regression" if labelled_range(resolve_inputs(seeds)) else "classification"
        terminal = console()
        report = train(
            seeds,
            output,
            kind=kind,
            task=task,
            score_range=score_range,
            tokenizer=tokenizer,
            settings=settings,
            seed=seed,
            on_progress=lambda message: terminal.print(message, style="dim"),
        )
        _print(terminal, str(output), report["test"])


def _print(terminal: Any, title: str, facts: dict[str, Any]) -> None:
    """Facts, nested ones indented, a line each."""
    terminal.print(title, style="bold", markup=False)
    _print_facts(terminal, facts, 1)


def _print_facts(terminal: Any, facts: dict[str, Any], depth: int) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            terminal.print(f"{'  ' * depth}{name}", markup=False)
            _print_facts(terminal, value, depth + 1)
        else:
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            terminal.print(f"{'  ' * depth}{name}: {text}", markup=False)
