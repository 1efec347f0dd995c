"""``aquila export`` and ``aquila chat``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(StrEnum):
    """Number formats of exported weights."""

    bf16 = "bf16"
    fp32 = "fp32"


def export(
    run: Annotated[Path, typer.Argument(help="A run or a checkpoint.", metavar="RUN")],
    output: Annotated[Path, typer.Option(help="Directory to write; must not exist or be empty.")],
    step: Annotated[int | None, typer.Option(help="The checkpoint; default: the best one, else the newest.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Cast the weights; default: as trained.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in its card; default: the run's.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Licence in the card, as apache-2.0; none is guessed.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="ID", help="The Hub's name of the model it was made from.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Results for the card besides those in the run's own folder; repeatable."),
    ] = None,
    card: Annotated[bool, typer.Option("--card/--no-card", help="Write README.md and datasets/*.md.")] = True,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Read all back: finite, and as transformers expects it.")
    ] = True,
) -> None:
    """Write a trained model for Hugging Face.

    The directory holds a LlamaForCausalLM in safetensors, its tokenizer and chat template, and cards of model and
    data."""
    from megatron_aquila.release.export import ReleaseOptions, release

    options = ReleaseOptions(
        step=step,
        dtype=None if dtype is None else dtype.value,
        name=name,
        licence=licence,
        base_model=base_model,
        evaluations=tuple(evaluation or ()),
        card=card,
        check=check,
    )
    released = release(run, output, options)
    for note in released.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{released.directory}")


def chat(
    model: Annotated[Path, typer.Argument(help="An exported model; or a run or a checkpoint.", metavar="MODEL")],
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the likeliest token, always.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the draws, where the temperature is above 0.")] = 0,
) -> None:
    """Talk to an exported model in the terminal.

    Reads questions from a pipe too, one a line. Nothing said is written to disk."""
    from megatron_aquila.chat import chat as start

    start(model, system=system, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
