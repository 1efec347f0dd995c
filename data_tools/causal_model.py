"""Causal language models on this machine, for scores that need logits: through transformers, torch imported inside
functions only. Needs the extra `[scorers]`.

No code of a model's repository is run. N: rows; T: tokens of a row; V: vocabulary; H: hidden size.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_tools.inputs import InputError


class CausalSettings(BaseModel):
    """Which model, and how it is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    """A directory with a transformers model and its tokenizer, such as `aquila export` writes. Its files enter the
    run's digest."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one. Worker processes take the GPUs in turn."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of weights and products. auto: bfloat16 on a GPU, float32 on a CPU."""
    max_length: int = Field(2048, ge=8)
    """Tokens of a row that are looked at."""
    batch_tokens: int = Field(16384, ge=1)
    """Tokens of a forward pass, padding included; decides time and memory."""

    def files(self) -> tuple[Path, ...]:
        """What decides the scores."""
        return (self.model,)


@dataclass(frozen=True)
class CausalModel:
    """A loaded model: `model` is transformers', in eval mode, `coder` its tokenizer."""

    settings: CausalSettings
    model: Any
    coder: Any
    device: str


def load_causal_model(settings: CausalSettings, key: str = "model") -> CausalModel:
    """The model that `settings` name; `key` is what error messages call them.

    Raises:
        InputError: torch or transformers is not installed, no such model, a GPU is asked for and not there.
    """
    raise NotImplementedError
