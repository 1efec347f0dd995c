"""Our model against transformers': the same weights give the same logits, and come back unchanged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megatron_aquila.shapes import SHAPES, ModelShape, shape_to_hf
from tests.megatron_aquila.engine.runs import tiny_run
from tests.world import world

_SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 203,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}


def _shrunk(name: str) -> dict[str, Any]:
    """A shape of the Aquila family at a fraction of its width and depth, its ratios and constants kept."""
    shape = SHAPES[name]
    heads, groups = shape.num_attention_heads // 8, max(2, shape.num_query_groups // 8)
    small = ModelShape(
        hidden_size=16 * heads,
        num_layers=4,
        num_attention_heads=heads,
        num_query_groups=groups,
        ffn_hidden_size=shape.ffn_hidden_size // 128,
        vocab_size=shape.vocab_size % 1000 + 17,
        rms_norm_eps=shape.rms_norm_eps,
        rope_theta=shape.rope_theta,
        max_position_embeddings=64,
    )
    return shape_to_hf(small)


CONFIGS: dict[str, dict[str, Any]] = {
    "MHA": {},
    "GQA": {"num_key_value_heads": 2},
    "QKV bias": {"num_key_value_heads": 2, "attention_bias": True},
    "tied": {"tie_word_embeddings": True},
    "head_dim": {"head_dim": 24},
    "linear rope": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_theta": 20000.0},
    "aquila-7b": _shrunk("aquila-7b"),
    "aquila2-7b": _shrunk("aquila2-7b"),
    "aquila3-7b": _shrunk("aquila3-7b"),
}


def _random_llama(directory: Path, changes: dict[str, Any], shard_size: str = "5GB") -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**{**_SMALL, **changes}))
    for name, parameter in model.named_parameters():  # norms and biases too must not be their defaults
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1)
        if name.endswith("o_proj.bias"):
            torch.nn.init.zeros_(parameter)
    model.save_pretrained(directory, max_shard_size=shard_size)
    return model


def _tokens(vocab_size: int) -> torch.Tensor:
    return torch.randint(0, vocab_size, (2, 32), generator=torch.Generator().manual_seed(1))


def logits_and_checkpoint(directory: str, output: str, **changes: Any) -> Any:
    """Load `directory` into our model; logits of `_tokens`, from the last stage's first rank; a checkpoint."""
    import json

    from megatron_aquila import checkpoint
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.model import build_model
    from megatron_aquila.engine.optimizer import OptimizerState, build_optimizer, wrap_data_parallel
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.snapshot import Snapshot
    from megatron_aquila.engine.weights import load_weights
    from megatron_aquila.huggingface import HuggingFaceReader

    run = tiny_run(model__shape="from-weights", model__weights=directory, **changes)
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        reader = HuggingFaceReader(Path(directory))
        chunks, config = build_model(run, reader.shape, device)
        load_weights(chunks, reader.shape, layout, reader)
        logits = _pipeline_logits(chunks, config, _tokens(reader.shape.vocab_size), layout)
        chunks = wrap_data_parallel(run, config, chunks)
        optimizer = build_optimizer(run, config, chunks)
        snapshot = Snapshot(chunks, reader.shape, layout, OptimizerState(optimizer, chunks, reader.shape, layout))
        checkpoint.save(
            Path(output) / "checkpoints",
            1,
            snapshot.write,
            state={
                "shape": json.loads(reader.shape.model_dump_json()),
                "chat_template": "aquila",
                **snapshot.state(),
            },
            keep=1,
            communicator=layout,
        )
    return logits


def _pipeline_logits(chunks: Any, config: Any, tokens: torch.Tensor, layout: Any) -> Any:
    """Forward through the pipeline; logits `[2, 32, vocab]` gathered over the tensor-parallel ranks."""
    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.pipeline_parallel import get_forward_backward_func

    found = []

    def forward_step(iterator: Any, model: torch.nn.Module) -> Any:
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        output = model(next(iterator), positions, None)

        def keep(logits: torch.Tensor) -> Any:
            found.append(logits)
            return logits.sum(), torch.tensor(1), {}

        return output, keep

    with torch.no_grad():
        get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=[iter([tokens]) for _ in chunks] if len(chunks) > 1 else iter([tokens]),
            model=chunks if len(chunks) > 1 else chunks[0],
            num_microbatches=1,
            seq_length=tokens.shape[1],
            micro_batch_size=tokens.shape[0],
            forward_only=True,
        )
    if not found:
        return None
    group = parallel_state.get_tensor_model_parallel_group()
    parts = [torch.empty_like(found[0]) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, found[0].contiguous(), group=group)
    return torch.cat(parts, dim=-1).numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_transformers_and_export_returns_the_input(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    model = _random_llama(source, CONFIGS[name], shard_size="100KB" if name == "GQA" else "5GB")
    vocab = model.config.vocab_size
    with torch.no_grad():
        expected = model.eval()(_tokens(vocab)).logits.numpy()

    layouts: list[tuple[int, dict[str, Any]]] = [
        (1, {}),
        (4, {"parallel__tensor_parallel": 2, "parallel__pipeline_parallel": 2}),
    ]
    for size, changes in layouts:
        output = tmp_path / f"run{size}"
        results = world(size, logits_and_checkpoint, directory=str(source), output=str(output), **changes)
        for logits in (found for found in results if found is not None):
            assert abs(logits[..., :vocab] - expected).max() < 1e-4
        _assert_export_equals(output, source, tmp_path / f"export{size}")


def _assert_export_equals(run: Path, source: Path, output: Path) -> None:
    from data_tools.chat import TEMPLATES
    from megatron_aquila.huggingface import export

    _copy_tokenizer(run / "tokenizer")
    export(run, output)
    assert (output / "chat_template.jinja").read_text(encoding="utf-8") == TEMPLATES["aquila"].jinja()
    given: dict[str, torch.Tensor] = {}
    for file in source.glob("*.safetensors"):
        given |= load_file(file)
    written = load_file(output / "model.safetensors")
    assert written.keys() == given.keys()
    for tensor, value in written.items():
        assert torch.equal(value, given[tensor]), tensor

    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(output)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert AutoConfig.from_pretrained(output).vocab_size == model.get_input_embeddings().weight.shape[0]


def _copy_tokenizer(directory: Path, control_tokens: Sequence[str] = ()) -> None:
    from data_tools.tokenizer_training import train_from_texts

    texts = ["fever and cough", "发热 咳嗽", "the patient rests"] * 20
    train_from_texts(texts, directory, vocab_size=300, control_tokens=control_tokens)


@pytest.mark.parametrize(("name", "ends"), [("chatml", [2, 5]), ("aquila-v1", 2), ("aquila-chat", 2)])
def test_an_export_carries_the_chat_template(name: str, ends: list[int] | int, tmp_path: Path) -> None:
    """transformers alone, from the directory alone, renders as training did, and stops where the template says."""
    from transformers import AutoTokenizer, GenerationConfig

    from data_tools.chat import TEMPLATES, ChatEncoder
    from data_tools.tokenizers import load_tokenizer
    from megatron_aquila.huggingface import HuggingFaceReader, write_model

    _random_llama(tmp_path / "source", {"vocab_size": 300})
    _copy_tokenizer(tmp_path / "tokenizer", ["<|im_start|>", "<|im_end|>", "<|startofpiece|>", "<|endofpiece|>"])
    reader = HuggingFaceReader(tmp_path / "source")
    shape = reader.shape.model_copy(update={"eos_id": 2})
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    output = tmp_path / "export"
    write_model(output, shape, reader, "", tokenizer, chat_template=TEMPLATES[name])
    theirs = AutoTokenizer.from_pretrained(output)
    turns = [("user", "发热 fever?"), ("assistant", "the patient rests"), ("user", "咳嗽")]
    messages = [{"role": role, "content": content} for role, content in turns]
    prompt = ChatEncoder(TEMPLATES[name], tokenizer).prompt(messages).tolist()
    assert theirs.apply_chat_template(messages, add_generation_prompt=True).input_ids == prompt
    assert GenerationConfig.from_pretrained(output).eos_token_id == ends
    plain = write_model(tmp_path / "plain", shape, reader, "", tokenizer)
    assert not (plain / "chat_template.jinja").exists()
    assert json.loads((plain / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"] == 2


def test_an_unknown_chat_template_is_refused() -> None:
    from megatron_aquila.checkpoint import Checkpoint
    from megatron_aquila.huggingface import HuggingFaceError, chat_template_of

    checkpoint = Checkpoint(Path("run/checkpoints/step-00000001"), 1, {"chat_template": "vicuna"}, {})
    with pytest.raises(HuggingFaceError, match="step-00000001: there is no chat template 'vicuna': give one of"):
        chat_template_of(checkpoint)


def test_2023_aquila_config_loads_with_its_silent_defaults(tmp_path: Path) -> None:
    """BAAI's 2023 files lack rope_theta, num_key_value_heads and rope_scaling, and name their own model type."""
    source = tmp_path / "aquila"
    changes = {**_SMALL, "rms_norm_eps": 1e-6}
    model = _random_llama(source, changes)
    vocab = model.config.vocab_size
    with torch.no_grad():
        expected = model.eval()(_tokens(vocab)).logits.numpy()
    old = {key: value for key, value in changes.items() if key != "num_key_value_heads"}
    old |= {"architectures": ["AquilaModel"], "model_type": "aquila", "hidden_act": "silu", "torch_dtype": "float16"}
    (source / "config.json").write_text(json.dumps(old), encoding="utf-8")
    [logits] = world(1, logits_and_checkpoint, directory=str(source), output=str(tmp_path / "run"))
    assert abs(logits[..., :vocab] - expected).max() < 1e-4
