"""TRL's side: its own trainers, with the settings that serve it best on a CPU.

    python -m benchmarks.training.trl_side '{"stage": …}'      (a `Task` as JSON; prints a `Result`)

It gets the token ids and masks that our index holds, so that both sides train on the same tokens. Off for all: gradient
checkpointing (on by default), bf16 (likewise), saving, reports. Further settings are variants, by name in `SETTINGS`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from benchmarks.training.samples import read_dialogues, read_pairs
from benchmarks.training.task import BETA, LEARNING_RATE, Clock, Result, Task

# A micro-batch is the whole batch unless said otherwise; the batch is then made up by accumulation. DPO has no form
# without padding in this version, where one pair at a time comes closest to it.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "dpo": {
        "TRL": {},
        "TRL, reference first": {"precompute_ref_log_probs": True},
        "TRL, reference first, one at a time": {"precompute_ref_log_probs": True, "per_device_train_batch_size": 1},
    },
    "sft": {"TRL": {}, "TRL, no padding": {"padding_free": True, "max_length": None}},
}


class _Ticks(TrainerCallback):
    def __init__(self, clock: Clock, batch: int) -> None:
        self._clock, self._batch = clock, batch

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        self._clock.tick(state.global_step * self._batch)


class _PairsTrainer(DPOTrainer):
    """Takes token ids instead of text."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def main(task: Task) -> Result:
    torch.set_num_threads(task.threads)
    clock = Clock()
    began = time.perf_counter()
    trainer = _trainer(task, clock)
    before = time.perf_counter() - began
    outcome = trainer.train()
    return clock.result(task.warm_up, outcome.training_loss, before)


def _trainer(task: Task, clock: Clock) -> Any:
    settings = {"per_device_train_batch_size": task.batch, **SETTINGS[task.stage][task.side]}
    common: dict[str, Any] = {
        "output_dir": task.output,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "gradient_accumulation_steps": task.batch // settings["per_device_train_batch_size"],
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "logging_steps": task.warm_up + task.steps,
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        **settings,
    }
    common.setdefault("max_length", task.length)
    model = AutoModelForCausalLM.from_pretrained(task.model, trust_remote_code=False)
    arguments: dict[str, Any] = {
        "model": model,
        "processing_class": _tokenizer(),
        "callbacks": [_Ticks(clock, task.batch)],
    }
    if task.stage == "sft":
        return SFTTrainer(args=SFTConfig(**common), train_dataset=_dialogues(task), **arguments)
    return _PairsTrainer(args=DPOConfig(beta=BETA, **common), train_dataset=_pairs(task), **arguments)


def _dialogues(task: Task) -> Dataset:
    rows = read_dialogues(Path(task.prefix))[: task.samples]
    return Dataset.from_list([{"input_ids": list(tokens), "completion_mask": list(mask)} for tokens, mask in rows])


def _pairs(task: Task) -> Dataset:
    rows = []
    for (chosen, mask), (rejected, _) in read_pairs(Path(task.prefix))[: task.samples]:
        prompt = mask.index(1)
        rows.append({"prompt_ids": chosen[:prompt], "chosen_ids": chosen[prompt:], "rejected_ids": rejected[prompt:]})
    return Dataset.from_list(rows)


def _tokenizer() -> PreTrainedTokenizerFast:
    """One that nothing is tokenized with; TRL asks it for the padding token, which no mask and no loss counts."""
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


if __name__ == "__main__":
    print(json.dumps(asdict(main(Task(**json.loads(sys.argv[1]))))))
