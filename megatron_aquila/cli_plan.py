"""`aquila plan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from megatron_aquila.gpus import GPU

_DOES_NOT_FIT = 1


def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe: a YAML file, as in recipes/.", metavar="RECIPE")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Changes to it, as in parallel.tensor_parallel=4.", metavar="[KEY=VALUE]...", show_default=False
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs in all.", min=1)] = 8,
    gpu: Annotated[str | None, typer.Option(help="Which, as in a100-40g or h100.", show_default=False)] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(help="GiB of one GPU, where it is not in the table.", show_default=False)
    ] = None,
    node: Annotated[int, typer.Option(help="GPUs of a node; tensor parallelism stays within one.", min=1)] = 8,
    mfu: Annotated[
        float | None,
        typer.Option(help="Share of the peak that training reaches; default: by the GPU.", show_default=False),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="sft, dpo: training samples, where no data are there.", show_default=False)
    ] = None,
    sample_tokens: Annotated[
        float | None, typer.Option(help="sft, dpo: mean tokens of a sample (a whole pair).", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(help="Layouts to show.", min=0)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    build: Annotated[
        bool, typer.Option("--build", help="Also build ranks without weights or GPU, take a step of shapes, compare.")
    ] = False,
) -> None:
    """Say what a run needs, before it is launched.

    Time, memory of every rank, disk; whether it fits, and what makes it fit. Needs no GPU. Ends with 1 if it does not
    fit."""
    import json

    from rich.console import Console

    from megatron_aquila.config_loader import load_config
    from megatron_aquila.plan import report
    from megatron_aquila.plan.planning import make_plan
    from megatron_aquila.plan.timing import Machine
    from megatron_aquila.plan.workload import Samples

    run = load_config(recipe, overrides or [])
    device = _device(gpu, gpu_memory)
    made = make_plan(
        run,
        gpus=gpus,
        machine=Machine(device, node, device.mfu if mfu is None else _share(mfu)),
        memory=int(device.memory * (1 << 30)),
        samples=Samples(samples, sample_tokens),
        top=top,
    )
    built = None
    if build and made.assessment is not None:
        from megatron_aquila.plan.built import compare

        built = compare(run, made.shape, made.assessment.sizes)
    if as_json:
        print(json.dumps({**report.as_json(made), "built": built and built.as_json()}, indent=2))
    else:
        console = Console()
        report.render(made, console)
        for line in built.lines() if built else ():
            console.print(line, highlight=False, markup=False)
    raise typer.Exit(0 if made.fits and (built is None or built.as_planned) else _DOES_NOT_FIT)


def _device(name: str | None, memory: float | None) -> "GPU":
    """The GPU asked for, of `memory` GiB if that is given. Raises ConfigError."""
    from dataclasses import replace

    from megatron_aquila.errors import ConfigError
    from megatron_aquila.gpus import GPUS

    if memory is not None and memory <= 0:
        raise ConfigError(f"--gpu-memory {memory:g} is no number of GiB")
    if name is None:
        if memory is None:
            raise ConfigError(f"say which GPU: --gpu {'|'.join(GPUS)}, or --gpu-memory GIB")
        return replace(GPUS["a100-80g"], name=f"{memory:g} GiB (as fast as A100)", memory=memory)
    if name.lower() not in GPUS:
        raise ConfigError(f"--gpu {name} is not known; known are {', '.join(GPUS)}. For others give --gpu-memory GIB")
    found = GPUS[name.lower()]
    return found if memory is None else replace(found, memory=memory)


def _share(mfu: float) -> float:
    from megatron_aquila.errors import ConfigError

    if not 0 < mfu <= 1:
        raise ConfigError(f"--mfu {mfu:g} is not a share between 0 and 1")
    return mfu
