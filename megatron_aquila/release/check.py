"""An export is opened once as its users will open it, before they do.

Weights are read a tensor at a time, and compared with a model of transformers that has shapes and no storage.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from data_tools.chat import TEMPLATES, ChatEncoder
from data_tools.tokenizers import load_tokenizer
from megatron_aquila.huggingface import HuggingFaceReader
from megatron_aquila.release.evidence import ReleaseError

_PROBE = ("发热 38.5℃，咳嗽三天。", "Fever and cough for three days?")
_ROWS = 1 << 24  # elements looked at together


def check_export(directory: Path) -> None:
    """Whether a directory holds a whole, finite model that transformers opens without remote code.

    Raises:
        ReleaseError: a tensor holds a value that is not finite; a tensor is missing, too many, or of another shape than
            transformers' Llama has; an end-of-text id is outside the vocabulary; transformers renders or encodes a
            conversation otherwise than training did.
        HuggingFaceError: the tensors are not those of the config.json.
    """
    if find_spec("transformers") is None:
        raise ReleaseError(
            "checking an export needs transformers: pip install 'megatron-aquila[huggingface]', or give --no-check"
        )
    HuggingFaceReader(directory)  # names and shapes by our own table
    found = _finite_tensors(directory)
    _compare(directory, found, _expected_by_transformers(directory))
    _check_generation(directory)
    _check_tokenizer(directory)


def _finite_tensors(directory: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape, after a look at every value."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                tensor = file.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                bad = sum(int((~torch.isfinite(part)).sum()) for part in tensor.flatten().split(_ROWS))
                if bad:
                    raise ReleaseError(
                        f"{name} holds {bad:,} values that are not finite: training has diverged by this step; export "
                        "an earlier one (--step), and look at the run's losses and gradient norms"
                    )
    return shapes


def _expected_by_transformers(directory: Path) -> dict[str, tuple[int, ...]]:
    from transformers import AutoConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def _compare(directory: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        name = wrong[0]
        raise ReleaseError(
            f"{directory}: {name} is {_shown(found.get(name))}, and transformers' Llama of this config.json has it "
            f"{_shown(expected.get(name))} ({len(wrong)} tensors differ)"
        )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def _check_generation(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((directory / "generation_config.json").read_text(encoding="utf-8"))
    ends = generation.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and not 0 <= end < config["vocab_size"]:
            raise ReleaseError(
                f"{directory / 'generation_config.json'}: end-of-text id {end} is outside the vocabulary of "
                f"{config['vocab_size']}: no answer would ever end by it"
            )


def _check_tokenizer(directory: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    ours = load_tokenizer(directory)
    for probe in _PROBE:
        ids = theirs(probe, add_special_tokens=False).input_ids
        if ids != list(ours.encode(probe)):
            raise ReleaseError(
                f"{directory}: transformers encodes {probe!r} otherwise than the tokenizer that the model was trained "
                "with: please report this, with the files of the tokenizer"
            )
    path = directory / "chat_template.jinja"
    if not path.is_file():
        return
    template = next((t for t in TEMPLATES.values() if t.jinja() == path.read_text(encoding="utf-8")), None)
    if template is None:
        raise ReleaseError(f"{path} is not a template of this version")
    messages = [{"role": "user", "content": probe} for probe in _PROBE]
    messages.insert(1, {"role": "assistant", "content": "多喝水，注意休息。"})
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True).input_ids
    if ids != ChatEncoder(template, ours).prompt(messages).tolist():
        raise ReleaseError(
            f"{path}: transformers renders a conversation otherwise than training did; please report this"
        )
