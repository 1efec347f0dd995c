"""How a model is asked: what `aquila eval run` is given beside the model and the tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from megatron_aquila.config import ParallelConfig, Section

Backend = Literal["aquila", "hf", "vllm"]


class EvaluationSettings(Section):
    """`parallel` is a layout of its own: it need not be the one that the model was trained on."""

    backend: Backend = Field(
        default="aquila",
        description="aquila: this engine, on checkpoints and Hugging Face directories; hf, vllm: lm-eval's own "
        "classes, on Hugging Face directories",
    )
    device: Literal["auto", "cuda", "cpu"] = Field(default="auto", description="auto: cuda where there is one")
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="bf16", description="arithmetic of the model")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="how the model is divided")
    pack_tokens: PositiveInt = Field(default=8192, description="tokens of a forward pass when options are scored")
    batch_size: PositiveInt = Field(default=32, description="conversations that are answered at a time")
    max_new_tokens: PositiveInt | None = Field(
        default=None, description="where an answer is cut that does not end; null: as each task says"
    )
    shots: NonNegativeInt | None = Field(default=None, description="worked examples; null: as the suite or task says")
    chat: bool | None = Field(
        default=None, description="put questions into the model's chat template; null: as the suite says, or no"
    )
    limit: PositiveInt | None = Field(default=None, description="the first questions of each task; null: all")
    seed: NonNegativeInt = Field(default=1234, description="of the worked examples, where a task draws them")

    @model_validator(mode="after")
    def _options_combine(self) -> EvaluationSettings:
        if self.parallel.virtual_pipeline is not None:
            raise ValueError("parallel.virtual_pipeline is for training: answers are generated without it")
        if self.backend != "aquila" and self.parallel.model_parallel > 1:
            raise ValueError(f"the backend {self.backend} divides no model here: leave the parallel sizes at 1")
        return self
