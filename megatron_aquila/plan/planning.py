"""The plan of a run: everything that `aquila plan` says, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from megatron_aquila.config import RunConfig
from megatron_aquila.plan.assessment import Assessment, assess
from megatron_aquila.plan.memory import ELEMENT
from megatron_aquila.plan.search import Candidate, layouts, remedies, resolved
from megatron_aquila.plan.timing import Machine
from megatron_aquila.plan.workload import Samples, Workload, workload
from megatron_aquila.shapes import ModelShape, padded_vocab_size


@dataclass(frozen=True)
class Plan:
    """What a run needs on `gpus` devices of `memory` bytes.

    problems: why it cannot be laid out so; `assessment` is then None. remedies: what makes it fit, where it does not.
    layouts: all that fit, the fastest first, one of each division of the model.
    """

    run: RunConfig
    shape: ModelShape
    machine: Machine
    gpus: int
    memory: int
    work: Workload
    problems: tuple[str, ...]
    assessment: Assessment | None
    remedies: tuple[Candidate, ...]
    layouts: tuple[Candidate, ...]
    top: int  # layouts asked for

    @property
    def fits(self) -> bool:
        return self.assessment is not None and self.assessment.fits

    @property
    def padding(self) -> int:
        """Rows added to the vocabulary, so that it divides."""
        parallel = self.run.parallel.tensor_parallel
        vocabulary = self.shape.vocab_size
        return padded_vocab_size(vocabulary, self.run.model.vocab_divisible_by, parallel) - vocabulary

    @property
    def flops(self) -> float | None:
        return self.work.flops(self.shape)

    @property
    def seconds(self) -> float | None:
        """Of the run at the stated MFU, which is taken to have everything in it."""
        return None if self.flops is None else self.flops / self.rate

    @property
    def rate(self) -> float:
        """FLOP/s of all devices at the stated MFU."""
        return self.gpus * self.machine.gpu.tflops * 1e12 * self.machine.mfu

    @property
    def tokens_per_second(self) -> float:
        return self.rate / self.shape.flops_per_token(self.work.attended)

    @property
    def checkpoint_bytes(self) -> int:
        """Of the tensors of one checkpoint: weights, Adam's moments, and float32 values where weights are not; without
        vocabulary padding. JSON and random states add some kilobytes a rank."""
        element = ELEMENT[self.run.training.precision]
        return self.shape.parameters() * (element + 8 + (4 if element == 2 else 0))

    @property
    def checkpoints(self) -> int:
        """Kept at once."""
        return self.run.checkpoint.keep + self.run.checkpoint.best


def make_plan(
    run: RunConfig, *, gpus: int, machine: Machine, memory: int, samples: Samples | None = None, top: int = 5
) -> Plan:
    """Assess `run` on `gpus` devices of `memory` bytes each, and all its other layouts.

    Raises:
        ConfigError: the shape's weights cannot be read.
        ManifestError: the data's cannot.
    """
    shape = run.model.resolve()
    run = resolved(run, shape)
    work = workload(run, samples or Samples(None, None))
    assess_run = partial(assess, shape=shape, work=work, gpus=gpus, machine=machine, memory=memory)
    found = assess_run(run)
    assessment = found if isinstance(found, Assessment) else None
    wanted: list[Candidate] = []
    if assessment is not None and not assessment.fits:
        wanted = remedies(run, assess_run, machine.node)
    return Plan(
        run=run,
        shape=shape,
        machine=machine,
        gpus=gpus,
        memory=memory,
        work=work,
        problems=() if isinstance(found, Assessment) else tuple(found),
        assessment=assessment,
        remedies=tuple(wanted),
        layouts=tuple(layouts(run, shape, assess_run, gpus, machine.node)[:top]) if top else (),
        top=top,
    )
