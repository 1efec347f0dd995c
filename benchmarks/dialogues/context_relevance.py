"""Context relevance beside two plain passes a turn, as one writes it from the paper with transformers.

The peer calls `model(ids, labels=labels).loss`, batch 1, once with and once without history for every turn from the
second on; `sliced` spares it the cross-entropy of the history. Both sides read the same ids of the same turns. The real
sample data are of one exchange each: those of one department are chained to dialogues here, as many in each as in
CMtMedQA's, so that lengths and turns are real ones and the scores say little.

Without a model of your own a Llama of random weights is made: 2 layers of 128 and the first 20,000 entries of the
tokenizer, so that 1,000 dialogues cost the peer minutes, not an hour. `--vocabulary 0` takes all entries.

Slices of the dialogues are timed in turn, ours and theirs, on one core, or on the GPU where there is one. Prints
seconds, the ratio, its least over the slices, and the largest difference between the scores of both sides.

    python -m benchmarks.dialogues.context_relevance --data FILE... --tokenizer DIR [--model DIR] [--dialogues 1000]
"""

import csv
import itertools
import json
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import transformers
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from data_tools.causal_model import CausalModel, CausalSettings, load_causal_model
from data_tools.corpus.batch import Batch, dialogue_text
from data_tools.dialogues.context_relevance import TURNS, ContextRelevance, ContextRelevanceConfig
from data_tools.records import Messages

_SLICES = 20
# Exchanges of the 1,000 dialogues of CMtMedQA's test set (of Zhongjing, arXiv 2308.03549). 23 more are of one exchange,
# which has no score: they are left out.
_CMTMEDQA = {2: 26, 3: 91, 4: 335, 5: 347, 6: 136, 7: 29, 8: 8, 9: 4, 10: 1}


def main(
    data: Annotated[
        list[Path], typer.Option(help="Single-turn sets: .csv (ask, answer, department), .json (input, output).")
    ],
    tokenizer: Annotated[Path | None, typer.Option(help="vocab.json and merges.txt; needed without --model.")] = None,
    model: Annotated[Path | None, typer.Option(help="A causal model of transformers.")] = None,
    dialogues: Annotated[int, typer.Option(min=_SLICES)] = 1000,
    exchanges: Annotated[
        str | None, typer.Option(help="Of a dialogue, such as 2-3, all equally often; default: as in CMtMedQA.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Hidden size of the random Llama.")] = 128,
    layers: Annotated[int, typer.Option(help="Its layers.")] = 2,
    vocabulary: Annotated[int, typer.Option(help="Its first entries of the tokenizer; 0 for all.")] = 20_000,
    unit: str = "answer",
    sliced: Annotated[bool, typer.Option(help="The peer's cross-entropy of the turn alone.")] = False,
) -> None:
    """Time both sides on the same dialogues."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if model is None:
            if tokenizer is None:
                raise typer.BadParameter("give --tokenizer or --model")
            model = _random_llama(Path(scratch), tokenizer, hidden, layers, vocabulary)
        causal = load_causal_model(CausalSettings(model=model))
    step = ContextRelevance(ContextRelevanceConfig(model=causal.settings, unit=unit), causal)  # type: ignore[arg-type]
    weights = _CMTMEDQA
    if exchanges is not None:
        fewest, most = map(int, exchanges.split("-"))
        weights = dict.fromkeys(range(fewest, most + 1), 1)
    talks = _chained([exchange for path in data for exchange in _read(path)], dialogues, weights)
    parameters = sum(each.numel() for each in causal.model.parameters())
    head = causal.model.get_output_embeddings().weight.shape
    print(f"{parameters / 1e6:.1f} million parameters, {head[0]:,} entries, hidden size {head[1]}, on {causal.device}")
    print(
        f"{len(talks):,} dialogues; exchanges: {_distribution(talks)} (one exchange has no score: left out)", flush=True
    )
    step(_batch(talks[:2]))
    _naive(causal, talks[0], unit, sliced)
    ours, theirs, ratios, differences = 0.0, 0.0, [], [0.0]
    size = -(-len(talks) // _SLICES)
    for start in range(0, len(talks), size):
        part = talks[start : start + size]
        began = _now(causal)
        notes = step(_batch(part)).notes
        between = _now(causal)
        expected = [_naive(causal, messages, unit, sliced) for messages in part]
        ended = _now(causal)
        ours, theirs = ours + between - began, theirs + ended - between
        ratios.append((ended - between) / (between - began))
        for note, values in zip(notes, expected):
            assert note is not None
            differences += [abs(mine - value) for mine, value in zip(note["scores"][TURNS], values, strict=True)]
    turns = len(differences) - 1
    print(f"{turns:,} {unit}s scored")
    print(f"ours {ours:.1f} s, two passes a turn {theirs:.1f} s: {theirs / ours:.2f} times as fast")
    print(f"least of {len(ratios)} slices {min(ratios):.2f}; largest difference of a score {max(differences):.1e}")


def _now(causal: CausalModel) -> float:
    """Seconds of this process, on one core; of the clock on a GPU, whose results have arrived by then."""
    return time.process_time() if causal.device == "cpu" else time.perf_counter()


def _naive(causal: CausalModel, messages: Messages, unit: str, sliced: bool) -> list[float]:
    coder = causal.coder
    texts = [coder(message["content"], add_special_tokens=False)["input_ids"] for message in messages]
    line = coder("\n", add_special_tokens=False)["input_ids"]
    start = [coder.eos_token_id if coder.bos_token_id is None else coder.bos_token_id]
    scores = []
    for number in range(3, len(messages), 2):
        question, answer = texts[number - 1], texts[number]
        turn = [*question, *line, *answer]
        unscored = 0 if unit == "exchange" else len(question) + len(line)
        labels = turn[unscored:]
        if unit == "exchange":  # the line end between question and answer is of the layout
            labels = [*question, *[-100] * len(line), *answer]
        history = list(itertools.chain(*(part for text in texts[: number - 1] for part in (text, line))))
        pair = [
            _loss(causal, [*start, *before, *turn[:unscored]], turn[unscored:], labels, sliced)
            for before in (history, [])
        ]
        scores.append(pair[0] / pair[1])
    return scores


def _loss(causal: CausalModel, before: list[int], turn: list[int], labels: list[int], sliced: bool) -> float:
    ids = torch.tensor([before + turn], device=causal.device)
    wanted = torch.tensor([[-100] * len(before) + labels], device=causal.device)
    with torch.inference_mode():
        if not sliced:
            return float(causal.model(input_ids=ids, labels=wanted).loss)
        logits = causal.model(input_ids=ids).logits[0, len(before) - 1 : -1].float()
        return float(torch.nn.functional.cross_entropy(logits, wanted[0, len(before) :]))


def _batch(talks: list[Messages]) -> Batch:
    size = len(talks)
    texts = [dialogue_text(messages) for messages in talks]
    return Batch([str(n) for n in range(size)], texts, [""] * size, [""] * size, [{} for _ in texts], talks)


def _read(path: Path) -> list[tuple[str, str, str]]:
    """Department (or file), question and answer of each record."""
    if path.suffix == ".json":
        return [(path.name, record["input"], record["output"]) for record in json.loads(path.read_bytes())]
    with path.open(encoding="gb18030", newline="") as rows:
        return [(row["department"], row["ask"], row["answer"]) for row in csv.DictReader(rows)]


def _chained(exchanges: list[tuple[str, str, str]], count: int, weights: dict[int, int]) -> list[Messages]:
    """Dialogues of exchanges of one department or file; `weights`: how often they are of so many. An exchange stands in
    one dialogue, until there are no more of its department: then all are dealt once more.
    """
    draw = random.Random(0)
    subjects: dict[str, list[tuple[str, str]]] = {}
    for subject, question, answer in exchanges:
        if question.strip() and answer.strip():
            subjects.setdefault(subject, []).append((question.strip(), answer.strip()))
    longest = max(weights)
    large = [subject for subject, found in subjects.items() if len(found) >= longest]
    if not large:
        raise typer.BadParameter(f"no department has {longest} exchanges")
    often = [len(subjects[subject]) for subject in large]
    stacks: dict[str, list[tuple[str, str]]] = {subject: [] for subject in large}
    talks: list[Messages] = []
    for _ in range(count):
        subject = draw.choices(large, often)[0]
        wanted = draw.choices(list(weights), list(weights.values()))[0]
        if len(stacks[subject]) < wanted:
            stacks[subject] = draw.sample(subjects[subject], len(subjects[subject]))
        said = [text for pair in (stacks[subject].pop() for _ in range(wanted)) for text in pair]
        talks.append(tuple({"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)))
    return talks


def _distribution(talks: list[Messages]) -> str:
    counts = Counter(len(messages) // 2 for messages in talks)
    return ", ".join(f"{counts[number]} of {number}" for number in sorted(counts))


def _random_llama(place: Path, tokenizer: Path, hidden: int, layers: int, vocabulary: int) -> Path:
    """`vocabulary`: so many entries of a byte-level BPE are one themselves, for an entry is merged of earlier ones."""
    entries: dict[str, int] = json.loads((tokenizer / "vocab.json").read_bytes())
    lines = (tokenizer / "merges.txt").read_text("utf-8").splitlines()
    merges = [(one, other) for one, _, other in (line.partition(" ") for line in lines if line[:8] != "#version")]
    ends = [token for token in ("</s>", "<|endoftext|>") if token in entries]
    if vocabulary:
        entries = {token: at for token, at in entries.items() if at < vocabulary}
        merges = [pair for pair in merges if {*pair, "".join(pair)} <= entries.keys()]
    coder = Tokenizer(models.BPE(entries, merges))
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    coder.add_special_tokens(ends[:1])
    transformers.PreTrainedTokenizerFast(tokenizer_object=coder, eos_token=ends[0]).save_pretrained(place)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=int(np.ceil(coder.get_vocab_size() / 8) * 8),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        max_position_embeddings=4096,
        initializer_range=0.1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    return place


if __name__ == "__main__":
    typer.run(main)
