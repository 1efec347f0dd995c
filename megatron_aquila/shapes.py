"""Model shapes: the sizes that define a Llama-like decoder, the Aquila family, Hugging Face's
``config.json``.

Every shape is pre-norm RMSNorm, half-split RoPE, SwiGLU, grouped-query attention, no dropout; Aquila and
Aquila2 are that architecture block for block under the same weight names, and Aquila3 is it too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from megatron_aquila.errors import ConfigError


class ModelShape(BaseModel):
    """The sizes of one decoder-only model. Frozen; equal shapes compare equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: PositiveInt = Field(description="width of the residual stream")
    num_layers: PositiveInt = Field(description="number of transformer layers")
    num_attention_heads: PositiveInt = Field(description="query heads")
    num_query_groups: PositiveInt = Field(
        default_factory=lambda data: data.get("num_attention_heads", 1),
        description="key/value heads of grouped-query attention; default: one per query head",
    )
    ffn_hidden_size: PositiveInt = Field(description="width of the SwiGLU MLP (of gate and of up, each)")
    vocab_size: PositiveInt = Field(description="rows of the embedding, before padding for tensor parallelism")
    head_dim: PositiveInt = Field(
        default_factory=lambda data: max(1, data.get("hidden_size", 1) // data.get("num_attention_heads", 1)),
        description="width of one head; default: hidden_size / num_attention_heads",
    )
    rms_norm_eps: PositiveFloat = Field(default=1e-5, description="added to the mean square under the root")
    rope_theta: PositiveFloat = Field(default=10000.0, description="base of the rotary frequencies")
    rope_scaling_factor: PositiveFloat | None = Field(
        default=None, description="linear position interpolation: positions are divided by this; null: none"
    )
    max_position_embeddings: PositiveInt = Field(description="longest sequence the model was made for, in tokens")
    tie_embeddings: bool = Field(default=False, description="the output layer is the embedding's own matrix")
    qkv_bias: bool = Field(default=False, description="bias on the q, k and v projections (on nothing else)")
    bos_id: int | None = Field(default=None, ge=0, description="token id that begins a document")
    eos_id: int | None = Field(default=None, ge=0, description="token id that ends a document")
    pad_id: int | None = Field(default=None, ge=0, description="token id of padding")

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ModelShape":
        if self.num_attention_heads % self.num_query_groups:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_query_groups {self.num_query_groups}"
            )
        if "head_dim" not in self.model_fields_set and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; give head_dim"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embeddings rotate pairs")
        for name in ("bos_id", "eos_id", "pad_id"):
            token = getattr(self, name)
            if token is not None and token >= self.vocab_size:
                raise ValueError(f"{name} {token} is outside a vocabulary of {self.vocab_size}")
        return self

    def parameters(self) -> int:
        """Exact number of parameters, without vocabulary padding."""
        h = self.hidden_size
        q = self.num_attention_heads * self.head_dim
        kv = self.num_query_groups * self.head_dim
        attention = 2 * h * q + 2 * h * kv + (q + 2 * kv if self.qkv_bias else 0)
        layer = attention + 3 * h * self.ffn_hidden_size + 2 * h
        return self.num_layers * layer + h + self.vocab_size * h * (1 if self.tie_embeddings else 2)

    def flops_per_token(self, sequence_length: float) -> float:
        """FLOPs of forward and backward for one token, in NVIDIA's convention.

        ``6 (P - E) + 12 L a s``: P parameters, E those of the input embedding (a look-up multiplies nothing;
        a tied matrix is still multiplied once, as the output layer, so then nothing is taken off), L layers,
        a = heads * head_dim, s = ``sequence_length``. Attention counts as full, not causal, and recomputation
        is not counted. For packed data pass the mean length of the attended documents, or the number is
        inflated.
        """
        embedding = 0 if self.tie_embeddings else self.vocab_size * self.hidden_size
        attended = self.num_attention_heads * self.head_dim * sequence_length
        return 6.0 * (self.parameters() - embedding) + 12.0 * self.num_layers * attended


def padded_vocab_size(vocab_size: int, divisible_by: int, tensor_parallel: int) -> int:
    """``vocab_size`` rounded up until every tensor-parallel rank holds a multiple of ``divisible_by``."""
    multiple = divisible_by * tensor_parallel
    return -(-vocab_size // multiple) * multiple


def _seven_b(**changes: Any) -> ModelShape:
    base = {
        "hidden_size": 4096,
        "num_layers": 32,
        "num_attention_heads": 32,
        "num_query_groups": 32,
        "ffn_hidden_size": 11008,
    }
    return ModelShape(**{**base, **changes})


SHAPES: Mapping[str, ModelShape] = {
    # BAAI/Aquila-7B, 2023. Its config.json names bos 1 and eos 2, which its tokenizer contradicts.
    "aquila-7b": _seven_b(
        vocab_size=100008,
        rms_norm_eps=1e-6,
        max_position_embeddings=2048,
        bos_id=100006,
        eos_id=100007,
        pad_id=0,
    ),
    # BAAI/Aquila2-7B, October 2023
    "aquila2-7b": _seven_b(vocab_size=100008, max_position_embeddings=2048, bos_id=100006, eos_id=100007, pad_id=0),
    # BAAI/Aquila2-7B, the refresh of June 2024: another vocabulary
    "aquila2-7b-2024": _seven_b(
        vocab_size=143973, rope_theta=1e6, max_position_embeddings=8192, bos_id=143717, eos_id=143718
    ),
    # What Aquila-Med was built on: sizes from the paper (arXiv 2406.12182, 2.1.3), vocabulary from the
    # released weights' size, eps, theta and ids from BAAI's sibling AquilaDense. Whether q, k, v have a bias
    # is not published.
    "aquila3-7b": _seven_b(
        num_query_groups=8,
        ffn_hidden_size=14336,
        vocab_size=151851,
        rope_theta=1e6,
        max_position_embeddings=4096,
        bos_id=151849,
        eos_id=151850,
        pad_id=151643,
    ),
    # For two CPU cores. The vocabulary is the tokenizer's: set model.vocab_size.
    "aquila-tiny": ModelShape(
        hidden_size=192,
        num_layers=4,
        num_attention_heads=4,
        num_query_groups=2,
        ffn_hidden_size=512,
        vocab_size=4096,
        max_position_embeddings=1024,
    ),
}

# Hugging Face model types whose weights and arithmetic are Llama's.
_LLAMA_LIKE = frozenset({"llama", "aquila", "aquila3", "aquiladense"})


def read_shape(weights: Path) -> ModelShape:
    """The shape of the model at ``weights``: a Hugging Face directory, a run or a checkpoint.

    Raises ConfigError where it is none of them. Of a run any checkpoint will do: whoever reads the weights compares.
    """
    states = [weights / "state.json", *sorted((weights / "checkpoints").glob("step-*/state.json"), reverse=True)]
    state = next((path for path in states if path.is_file()), None)
    if state is None or (weights / "config.json").is_file():
        return read_hf_shape(weights)
    try:
        return ModelShape.model_validate(json.loads(state.read_text(encoding="utf-8"))["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{state} does not tell the model's shape ({error!r}): start from another one") from error


def read_hf_shape(directory: Path) -> ModelShape:
    """The shape of the Hugging Face model in ``directory``; ConfigError if its config.json will not do."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give a Hugging Face model directory") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    try:
        return shape_from_hf(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def shape_from_hf(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a Hugging Face ``config.json`` describes.

    Takes Llama's keys, those of transformers 5 (``rope_parameters``) as well as the 2023 Aquila files, which
    lack ``num_key_value_heads`` (= heads), ``rope_theta`` (= 10000) and ``rope_scaling`` (= none).

    ``attention_bias`` is read as ``qkv_bias``. transformers' Llama then has a bias on ``o_proj`` too,
    Megatron has not: whoever reads the weights must refuse an ``o_proj.bias`` that is not zero.

    Raises ConfigError for anything the engine would compute otherwise: another architecture or activation,
    another kind of rope scaling, biases in the MLP.
    """
    kind = _model_type(config)
    if kind not in _LLAMA_LIKE:
        raise ConfigError(f"model_type '{kind}' is not one of {', '.join(sorted(_LLAMA_LIKE))}")
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise ConfigError(f"hidden_act is '{activation}'; only silu (SwiGLU) is supported")
    if config.get("mlp_bias"):
        raise ConfigError("mlp_bias is true; biases in the MLP are not supported")
    theta, factor = _rope(config)
    bos, eos, pad = (_token_id(config.get(f"{name}_token_id")) for name in ("bos", "eos", "pad"))
    vocab_size = _required(config, "vocab_size")
    if vocab_size == 100008 and (bos, eos) == (1, 2):
        bos, eos = 100006, 100007  # BAAI/Aquila-7B's config.json kept Llama's ids; its tokenizer has these
    sizes = {
        "hidden_size": _required(config, "hidden_size"),
        "num_layers": _required(config, "num_hidden_layers"),
        "num_attention_heads": _required(config, "num_attention_heads"),
        "num_query_groups": config.get("num_key_value_heads"),
        "ffn_hidden_size": _required(config, "intermediate_size"),
        "vocab_size": vocab_size,
        "head_dim": config.get("head_dim"),
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope_theta": theta,
        "rope_scaling_factor": factor,
        "max_position_embeddings": config.get("max_position_embeddings", 2048),
        "tie_embeddings": config.get("tie_word_embeddings", False),
        "qkv_bias": config.get("attention_bias", False),
        "bos_id": bos,
        "eos_id": eos,
        "pad_id": pad,
    }
    try:
        return ModelShape(**{key: value for key, value in sizes.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from error


def shape_to_hf(shape: ModelShape) -> dict[str, Any]:
    """``config.json`` of the ``LlamaForCausalLM`` equal to ``shape``; read by transformers 4 and 5.

    With ``qkv_bias`` it says ``attention_bias: true``, for which transformers' Llama also creates
    ``o_proj.bias``: the weights beside it must hold that bias as zeros, and the model is then exact.
    """
    scaling = None
    if shape.rope_scaling_factor is not None:
        scaling = {"rope_type": "linear", "factor": shape.rope_scaling_factor}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_query_groups,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": shape.tie_embeddings,
        "attention_bias": shape.qkv_bias,
        "mlp_bias": False,
        "bos_token_id": shape.bos_id,
        "eos_token_id": shape.eos_id,
        "pad_token_id": shape.pad_id,
    }


def _model_type(config: Mapping[str, Any]) -> str:
    kind = config.get("model_type")
    if kind is None:
        architecture = (config.get("architectures") or [""])[0]
        kind = architecture.removesuffix("ForCausalLM").removesuffix("Model").lower()
    if not kind:
        raise ConfigError("model_type and architectures are both absent, so the architecture is unknown")
    return str(kind)


def _rope(config: Mapping[str, Any]) -> tuple[float, float | None]:
    """(theta, linear factor or None), from transformers 5's ``rope_parameters`` or the older pair of keys."""
    nested = config.get("rope_parameters") or {}
    scaling = nested or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear"):
        raise ConfigError(f"rope type '{kind}' is not supported; only default and linear are")
    if nested.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) not in (None, 1.0):
        raise ConfigError("partial_rotary_factor is not 1; only whole heads are rotated")
    theta = nested.get("rope_theta", config.get("rope_theta"))
    if kind == "linear" and "factor" not in scaling:
        raise ConfigError("linear rope scaling has no factor")
    return (10000.0 if theta is None else float(theta)), (float(scaling["factor"]) if kind == "linear" else None)


def _token_id(value: Any) -> int | None:
    """A token id; of several (Llama 3 lists its ends) the first."""
    if isinstance(value, list):
        return int(value[0]) if value else None
    return None if value is None or value < 0 else int(value)


def _required(config: Mapping[str, Any], key: str) -> int:
    if not isinstance(config.get(key), int):
        raise ConfigError(f"{key} is absent or not a whole number")
    return int(config[key])
