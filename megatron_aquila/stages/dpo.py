"""Preference training: DPO and its relatives on pairs of answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from data_tools.tokenizers import load_tokenizer
from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.datasets.sample_data import SampleData, digest_of
from megatron_aquila.datasets.samples import PackedSamples, Sample
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss
from megatron_aquila.stages import Stage, Start, shape_for_tokenizer
from megatron_aquila.stages.reference_logps import ReferenceCache, compute_reference

# TRL's names of the sums that op B returns
METRICS = {
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "logps/chosen": "chosen_logps",
    "logps/rejected": "rejected_logps",
}


class PreferenceTraining(Stage):
    """Packs of whole pairs, as `aquila data index --kind pairs` has rendered them.

    There is no second model: the reference's log-probs of all answers are computed once, before training, and kept
    on disk (`reference_logps.py`). A step's loss is the mean over its pairs, however they are packed.
    """

    metric_names = tuple(METRICS)
    sample_name = "pairs"

    def __init__(self, run: RunConfig) -> None:
        self._run = run
        self.tokenizer = load_tokenizer(run.data.tokenizer)
        self.shape = shape_for_tokenizer(run, self.tokenizer)
        self._data = SampleData(run, self.tokenizer, self.shape, "pairs")
        self.chat_template = self._data.template["name"]
        self._loss = loss_settings(run)
        self.checks_start = self._loss.needs_reference and run.preference.reference_weights is None
        self._reference: ReferenceCache | None = None

    def datasets(self) -> tuple[PackedSamples, PackedSamples | None]:
        return self._data.train, self._data.valid

    def prepare(self, start: Start) -> None:
        if self._loss.needs_reference:
            self._reference = compute_reference(self._run, self._data, self.tokenizer.digest, start)

    def digest(self) -> str:
        reference = self._reference.key if self._reference is not None else None
        return digest_of({**self._data.digest(), "reference": reference})

    def collate(self, rows: list[list[Sample]]) -> MicroBatch:
        batch = self._data.collate(rows)
        if self._reference is None:
            return batch
        return replace(batch, extra={**batch.extra, "reference": self._reference.of(batch.extra["samples"])})

    def loss(
        self, logps: torch.Tensor, batch: MicroBatch
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        extra: dict[str, Any] = batch.extra
        result = preference_loss(logps, batch.labels, extra["sequences"], extra.get("reference"), self._loss)
        count = torch.tensor(len(extra["samples"]), device=logps.device)
        return result.loss, count, {name: result.total(ours) for name, ours in METRICS.items()}

    def check_start(self, means: dict[str, float]) -> str | None:
        """A policy that is its own reference has margin 0 on every pair, and the loss of that."""
        tolerance = self._run.preference.start_tolerance
        wrong = [
            f"{name} {means[name]:.3g} instead of 0"
            for name in ("rewards/chosen", "rewards/rejected", "rewards/margins")
            if not abs(means[name]) < tolerance
        ]
        expected = loss_of_equal_models(self._loss)
        if not self._loss.sft_weight and not abs(means["loss"] - expected) < tolerance:
            wrong.insert(0, f"loss {means['loss']:.7f} instead of {expected:.7f}")
        if not wrong:
            return None
        return (
            f"the model is its own reference and yet {', '.join(wrong)} (preference.start_tolerance {tolerance:g}). "
            "The reference log-probs are not those of the weights that training starts from; or, in bf16 and fp16, "
            "they were computed on another layout or with packs of another length: compute them as this run does, or "
            "raise the tolerance"
        )

    def describe(self) -> str:
        return self._data.describe()


def loss_settings(run: RunConfig) -> PreferenceLoss:
    """The kernel's settings of a run's `preference` section."""
    given = run.preference
    return PreferenceLoss(
        loss=given.loss,
        beta=given.beta,
        label_smoothing=given.label_smoothing,
        length_normalised=given.length_normalised,
        margin=given.margin,
        sft_weight=given.sft_weight,
    )


def loss_of_equal_models(settings: PreferenceLoss) -> float:
    """The loss of a pair where policy and reference agree, its SFT term left out."""
    if settings.loss == "hinge":
        return 1.0
    if settings.loss == "ipo":
        return (1 / (2 * settings.beta)) ** 2
    return math.log(2)
