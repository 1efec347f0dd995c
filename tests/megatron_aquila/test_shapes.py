"""Shapes against the published sizes and against transformers' own Llama."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.errors import ConfigError
from megatron_aquila.shapes import (
    SHAPES,
    ModelShape,
    padded_vocab_size,
    read_hf_shape,
    shape_from_hf,
    shape_to_hf,
)

# config.json of BAAI/AquilaChat2-7B, October 2023: no rope_theta, no num_key_value_heads
AQUILA2_2023 = {
    "architectures": ["AquilaForCausalLM"],
    "model_type": "aquila",
    "vocab_size": 100008,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "bos_token_id": 100006,
    "eos_token_id": 100007,
    "pad_token_id": 0,
    "torch_dtype": "float16",
}


def tiny(**changes: Any) -> ModelShape:
    sizes: dict[str, Any] = {
        "hidden_size": 48,
        "num_layers": 3,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "ffn_hidden_size": 80,
        "vocab_size": 101,
        "max_position_embeddings": 64,
        "bos_id": 1,
        "eos_id": 2,
    }
    return ModelShape(**{**sizes, **changes})


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # aquila3-7b: equals the released AquilaMed-RL shards; the others: 2 V h + L (4 h² + 3 h f + 2 h) + h
        ("aquila3-7b", 8_223_551_488),
        ("aquila-7b", 2 * 100008 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096),
        ("aquila2-7b", 7_295_537_152),
        ("aquila2-7b-2024", 7_655_698_432),
    ],
)
def test_parameters_of_the_family(name: str, count: int) -> None:
    assert SHAPES[name].parameters() == count


@pytest.mark.parametrize(
    "shape",
    [tiny(), tiny(tie_embeddings=True), tiny(qkv_bias=True), tiny(head_dim=16), tiny(num_query_groups=4)],
    ids=["gqa", "tied", "bias", "head_dim", "mha"],
)
def test_parameters_equal_those_of_transformers(shape: ModelShape) -> None:
    transformers = pytest.importorskip("transformers", reason="the reference model is transformers'")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(shape_to_hf(shape)))
    counted = sum(p.numel() for n, p in model.named_parameters() if not n.endswith("o_proj.bias"))
    assert shape.parameters() == counted


@pytest.mark.parametrize(("length", "gigaflops"), [(2048, 44.5), (4096, 47.8), (8192, 54.2)])
def test_flops_in_nvidias_convention(length: int, gigaflops: float) -> None:
    assert SHAPES["aquila2-7b"].flops_per_token(length) / 1e9 == pytest.approx(gigaflops, abs=0.05)


def test_flops_of_a_tied_model_count_its_matrix_once() -> None:
    assert tiny(tie_embeddings=True).flops_per_token(64) == tiny().flops_per_token(64)


def test_padded_vocabulary() -> None:
    assert padded_vocab_size(100008, 128, 1) == 100096
    assert padded_vocab_size(100008, 128, 4) == 100352
    assert padded_vocab_size(256, 128, 2) == 256


def test_2023_aquila_configuration() -> None:
    assert shape_from_hf(AQUILA2_2023) == SHAPES["aquila2-7b"]


def test_first_aquila_has_wrong_ids_in_its_file() -> None:
    config = {
        **AQUILA2_2023,
        "model_type": "llama",
        "rms_norm_eps": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    assert shape_from_hf(config) == SHAPES["aquila-7b"]


def test_defaults_where_the_file_is_silent() -> None:
    config = {key: AQUILA2_2023[key] for key in AQUILA2_2023 if key not in ("rms_norm_eps", "max_position_embeddings")}
    shape = shape_from_hf(config)
    assert (shape.rms_norm_eps, shape.max_position_embeddings, shape.rope_theta) == (1e-6, 2048, 10000.0)
    assert (shape.num_query_groups, shape.head_dim, shape.qkv_bias) == (32, 128, False)


@pytest.mark.parametrize(
    ("keys", "theta", "factor"),
    [
        ({"rope_theta": 1e6}, 1e6, None),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 1e4, 4.0),  # AquilaChat2-34B-16K
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 5e5, 2.0),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, 1e6, None),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8}}, 1e6, 8.0),
    ],
)
def test_rope_old_and_new(keys: dict[str, Any], theta: float, factor: float | None) -> None:
    shape = shape_from_hf({**AQUILA2_2023, **keys})
    assert (shape.rope_theta, shape.rope_scaling_factor) == (theta, factor)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope type 'llama3' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 8.0}}, "rope type 'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "linear rope scaling has no factor"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor",
        ),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias is true"),
        ({"model_type": "gemma2"}, "model_type 'gemma2' is not one of"),
        ({"model_type": None, "architectures": None}, "the architecture is unknown"),
        ({"hidden_size": None}, "hidden_size is absent"),
        ({"num_key_value_heads": 5}, "num_attention_heads 32 is not a multiple of num_query_groups 5"),
        ({"eos_token_id": 100008}, "eos_id 100008 is outside a vocabulary of 100008"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        shape_from_hf({**AQUILA2_2023, **keys})


@pytest.mark.parametrize("name", SHAPES)
def test_to_hugging_face_and_back(name: str) -> None:
    assert shape_from_hf(shape_to_hf(SHAPES[name])) == SHAPES[name]


@pytest.mark.parametrize("shape", [tiny(rope_scaling_factor=4.0, qkv_bias=True), tiny(head_dim=16, rope_theta=1e6)])
def test_transformers_saves_what_we_read(shape: ModelShape, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the file must be one that transformers wrote")
    transformers.LlamaConfig.from_dict(shape_to_hf(shape)).save_pretrained(tmp_path)
    assert "rope_parameters" in json.loads((tmp_path / "config.json").read_text())  # the newer form
    assert read_hf_shape(tmp_path) == shape


def test_transformers_rotates_by_our_theta_and_factor() -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers' own rotary embedding")
    config = transformers.LlamaConfig.from_dict(shape_to_hf(tiny(rope_theta=1e6, rope_scaling_factor=4.0)))
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    expected = [1e6 ** (-2 * i / 12) / 4.0 for i in range(6)]
    assert rotary.inv_freq.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_query_groups": 3}, "not a multiple of num_query_groups"),
        ({"hidden_size": 50}, "give head_dim"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"pad_id": 101}, "pad_id 101 is outside a vocabulary of 101"),
    ],
)
def test_impossible_sizes(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        tiny(**changes)


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a Hugging Face model directory"):
        read_hf_shape(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_hf_shape(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match=r"config\.json: model_type 'bert'"):
        read_hf_shape(tmp_path)
