"""What TRL and transformers compute on a small model and given pairs, in float32: the oracle of our fine-tuning.

TRL's own code gives every number. `sigmoid`, `hinge`, `ipo`, `robust`, `sigmoid_norm`, `sft` are driven through the
`compute_loss` of a `DPOTrainer`; `simpo` and `orpo` through the loss functions of its experimental `CPOTrainer` and
`ORPOTrainer`. What TRL 1.16.0 lacks or does otherwise:

- Its `sigmoid` ignores `label_smoothing`. Conservative DPO is its `aot` on one pair at a time, where nothing is sorted.
- Its `sft` term is a mean over the tokens of a micro-batch, ours a mean over pairs of the mean over each one's tokens:
  the same on one pair at a time. Every case is driven so, as TRL is with micro-batches of one pair.
- Its ORPO takes the likelihood term over prompt and answer. The paper (arXiv 2403.07691, eq. 6) takes the answer alone,
  and so do we: that one term is written out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

VOCAB_SIZE = 320
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "tie_word_embeddings": False,
}
METRICS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
LOGPS = ("logps/chosen", "logps/rejected")


@dataclass(frozen=True)
class Pair:
    """Token ids of a prompt and its two answers."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class Case:
    """A loss by our names of it (`preference.*` of a recipe), and by TRL's."""

    ours: dict[str, Any]
    trl: dict[str, Any]


CASES: dict[str, Case] = {
    "sigmoid": Case({"loss": "sigmoid", "beta": 0.3}, {"loss_types": ["sigmoid"], "beta": 0.3}),
    "conservative": Case(
        {"loss": "sigmoid", "beta": 0.3, "label_smoothing": 0.2},
        {"loss_types": ["aot"], "beta": 0.3, "label_smoothing": 0.2},
    ),
    "robust": Case(
        {"loss": "robust", "beta": 0.3, "label_smoothing": 0.2},
        {"loss_types": ["robust"], "beta": 0.3, "label_smoothing": 0.2},
    ),
    "hinge": Case({"loss": "hinge", "beta": 2.0}, {"loss_types": ["hinge"], "beta": 2.0}),
    "ipo": Case({"loss": "ipo", "beta": 0.4}, {"loss_types": ["ipo"], "beta": 0.4}),
    "length normalised": Case(
        {"loss": "sigmoid", "beta": 2.0, "length_normalised": True}, {"loss_types": ["sigmoid_norm"], "beta": 2.0}
    ),
    "sigmoid and sft": Case(
        {"loss": "sigmoid", "beta": 0.3, "sft_weight": 0.7},
        {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7], "beta": 0.3},
    ),
    "simpo": Case(
        {"loss": "simpo", "beta": 2.0, "margin": 0.6, "label_smoothing": 0.1},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.6, "label_smoothing": 0.1, "alpha": 0.0},
    ),
    "orpo": Case({"loss": "orpo", "beta": 0.5}, {"beta": 0.5}),
}


def random_model(seed: int = 5) -> Any:
    """A Llama of `SIZES` with every parameter random, norms and biases too."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.15)
        if name.endswith("o_proj.bias"):  # Megatron has no such bias
            torch.nn.init.zeros_(parameter)
            parameter.requires_grad_(False)
    return model


def nearby(model: Any, distance: float = 0.03) -> Any:
    """A reference model: `model` with its parameters moved a little."""
    reference = random_model()
    reference.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if not name.endswith("o_proj.bias"):
                parameter += distance * torch.randn(parameter.shape, generator=generator)
    return reference.eval()


def preference_figures(model: Any, reference: Any, pairs: Sequence[Pair], scratch: Path) -> dict[str, dict[str, float]]:
    """By case: `loss`, `grad_norm`, `METRICS`, and with a reference `LOGPS`; means over the pairs."""
    trainer = _dpo_trainer(model, reference, scratch)
    return {
        name: _figures(model, pairs, _one_pair(trainer, case, name), case.ours["loss"] not in ("simpo", "orpo"))
        for name, case in CASES.items()
    }


def supervised_figures(model: Any, samples: Sequence[tuple[list[int], list[int]]]) -> dict[str, float]:
    """Loss a token and gradient norm of transformers on (tokens, 0/1 mask of the trained ones), one padded batch."""
    longest = max(len(tokens) for tokens, _ in samples)
    inputs = torch.zeros(len(samples), longest, dtype=torch.long)
    labels = torch.full((len(samples), longest), -100)
    attention = torch.zeros(len(samples), longest, dtype=torch.long)
    for row, (tokens, mask) in enumerate(samples):
        inputs[row, : len(tokens)] = torch.tensor(tokens)
        attention[row, : len(tokens)] = 1
        trained = torch.tensor(mask, dtype=torch.bool)
        labels[row, : len(tokens)][trained] = torch.tensor(tokens)[trained]
    model.zero_grad(set_to_none=True)
    loss = model(input_ids=inputs, attention_mask=attention, labels=labels).loss
    loss.backward()
    return {"loss": loss.item(), "grad_norm": _gradient_norm(model)}


def _figures(
    model: Any,
    pairs: Sequence[Pair],
    compute: Callable[[Pair], tuple[torch.Tensor, Mapping[str, float]]],
    summed_logps: bool,
) -> dict[str, float]:
    model.zero_grad(set_to_none=True)
    names = METRICS + LOGPS if summed_logps else METRICS
    totals = dict.fromkeys(("loss", *names), 0.0)
    for pair in pairs:
        loss, metrics = compute(pair)
        (loss / len(pairs)).backward()
        totals["loss"] += loss.item() / len(pairs)
        for name in names:
            totals[name] += metrics[name] / len(pairs)
    return {**totals, "grad_norm": _gradient_norm(model)}


def _gradient_norm(model: Any) -> float:
    trained = [parameter.grad.double().flatten() for parameter in model.parameters() if parameter.requires_grad]
    return float(torch.cat(trained).norm())


def _one_pair(trainer: Any, case: Case, name: str) -> Callable[[Pair], tuple[torch.Tensor, Mapping[str, float]]]:
    """TRL's loss and metrics of one pair, under TRL's names."""
    if name == "simpo":
        return lambda pair: _simpo(trainer.model, pair, case.trl)
    if name == "orpo":
        return lambda pair: _orpo(trainer.model, pair, case.trl)

    def compute(pair: Pair) -> tuple[torch.Tensor, Mapping[str, float]]:
        trainer.label_smoothing = 0.0
        trainer.loss_weights = [1.0] * len(case.trl["loss_types"])
        for attribute, value in case.trl.items():
            assert hasattr(trainer, attribute), attribute
            setattr(trainer, attribute, value)
        features = {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        trainer._metrics["train"].clear()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator([features]))
        return loss, {key: values[-1] for key, values in trainer._metrics["train"].items()}

    return compute


def _dpo_trainer(model: Any, reference: Any, scratch: Path) -> Any:
    """A `DPOTrainer` around the two models; its data set is there because it wants one."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCAB_SIZE)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model.train()
    return DPOTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(scratch), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False
        ),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="w0", bos_token="w1", eos_token="w2"
        ),
        train_dataset=Dataset.from_list([{"prompt": "w3", "chosen": " w4", "rejected": " w5"}]),
    )


def _answer_logps(model: Any, pair: Pair, logps: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean log-prob a token, `[1]`, of the chosen and of the rejected answer, by TRL's `get_batch_logps`."""
    means = []
    for answer in (pair.chosen, pair.rejected):
        tokens = torch.tensor([pair.prompt + answer])
        labels = tokens.clone()
        labels[:, : len(pair.prompt)] = -100
        means.append(logps(model(input_ids=tokens).logits, labels, average_log_prob=True))
    return means[0], means[1]


def _rewards(chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, float]:
    """The metrics as CPO's and ORPO's `get_batch_loss_metrics` make them of the rewards."""
    return {
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/accuracies": (chosen > rejected).float().mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
    }


def _simpo(model: Any, pair: Pair, constants: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    trainer = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **constants)
    losses, chosen, rejected = CPOTrainer.cpo_loss(trainer, *_answer_logps(model, pair, CPOTrainer.get_batch_logps))
    return losses.mean(), _rewards(chosen, rejected)


def _orpo(model: Any, pair: Pair, constants: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    trainer = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **constants)
    chosen_logps, rejected_logps = _answer_logps(model, pair, ORPOTrainer.get_batch_logps)
    losses, chosen, rejected, *_ = ORPOTrainer.odds_ratio_loss(trainer, chosen_logps, rejected_logps)
    negative_log_likelihood = -chosen_logps.mean()  # of the answer alone: see the top of this file
    return negative_log_likelihood - losses.mean(), _rewards(chosen, rejected)
