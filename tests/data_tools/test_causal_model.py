"""Logits and log-probabilities beside plain forward passes in float64, one row at a time."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from data_tools import local_model
from data_tools.causal_model import CausalModel, CausalSettings, gpu_of_process, load_causal_model
from data_tools.corpus.batch import Batch
from data_tools.dialogues.embedding import ModelEmbedding
from data_tools.dialogues.teacher_forcing import Row, TeacherForcing
from data_tools.inputs import InputError
from data_tools.records import Messages
from tests.data_tools.one_thread import one_thread  # noqa: F401 (a fixture)
from tests.data_tools.small_causal import TEXTS, small_causal_model

IDS = [300, 7, 18, 301]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_causal_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def causal(directory: Path) -> CausalModel:
    return load_causal_model(CausalSettings(model=directory, device="cpu", max_length=300, batch_tokens=700))


def rows_of(causal: CausalModel) -> list[list[int]]:
    """Of 1 to `max_length` tokens; several of one length, and of lengths around the borders of the padding."""
    texts = [text * count for count in (1, 3, 20) for text in TEXTS]
    long = causal.encode("".join(texts) * 4)
    lengths = (1, 2, 31, 32, 33, 96, 97, 128, 129, 255, 256, 257, 299, 300, 300, 300)
    return [causal.encode(text)[:300] for text in texts] + [long[place : place + n] for place, n in enumerate(lengths)]


def plain_logits(model: Any, row: Sequence[int]) -> npt.NDArray[np.float64]:
    """[T, V], in float64 from transformers alone."""
    with torch.no_grad():
        return model(torch.tensor([row])).logits[0].double().numpy()


def test_next_token_logits_are_those_of_each_row_alone(causal: CausalModel, directory: Path) -> None:
    rows = rows_of(causal)
    exact = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    expected = np.array([plain_logits(exact, row)[-1, IDS] for row in rows])
    found = causal.next_token_logits(rows, IDS)
    assert found.dtype == np.float64 and expected.std() > 1
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert causal.next_token_logits([], IDS).shape == (0, 4)


def test_a_rows_logits_do_not_follow_its_neighbours(causal: CausalModel) -> None:
    rows = rows_of(causal)
    together = causal.next_token_logits(rows, IDS)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(causal.next_token_logits([rows[place] for place in order], IDS), together[order])
    alone = np.concatenate([causal.next_token_logits([row], IDS) for row in rows])
    np.testing.assert_array_equal(alone, together)
    all_logps, each = causal.token_logps(rows), [causal.token_logps([row])[0] for row in rows]
    assert all(np.array_equal(one, other) for one, other in zip(all_logps, each))


def test_the_head_sees_one_position_a_row(causal: CausalModel) -> None:
    seen: list[tuple[int, ...]] = []
    head = causal.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, given, logits: seen.append(tuple(logits.shape)))
    try:
        causal.next_token_logits([[5] * 200] * 7, IDS)
    finally:
        hook.remove()
    # passes of 512 tokens or fewer on a CPU, 224 a row with the padding; the last one is filled up
    assert seen == [(2, 1, head.weight.shape[0])] * 4
    assert causal.model(torch.tensor([[5] * 9])).logits.shape[1] == 9  # nothing of it is left


def test_token_logps_are_those_of_each_row_alone(causal: CausalModel, directory: Path) -> None:
    rows = rows_of(causal)
    exact = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    for row, found in zip(rows, causal.token_logps(rows)):
        logits_TV = plain_logits(exact, row)
        logps_TV = logits_TV - np.log(np.exp(logits_TV).sum(1, keepdims=True))
        np.testing.assert_allclose(found, logps_TV[np.arange(len(row) - 1), row[1:]], atol=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "gpt2"])
def test_what_a_model_does_after_its_head_is_done(family: str, directory: Path, tmp_path: Path) -> None:
    """Gemma 2 caps its logits, Cohere scales them, GPT-2 has learnt positions."""
    sizes = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    configs = {
        "gemma2": lambda: transformers.Gemma2Config(
            **sizes,
            intermediate_size=64,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=0.5,
            initializer_range=0.2,
            sliding_window=16,
        ),
        "cohere": lambda: transformers.CohereConfig(
            **sizes, intermediate_size=64, logit_scale=7.0, initializer_range=0.2
        ),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=600, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2
        ),
    }
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(directory / name, tmp_path / name)
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(configs[family]()).save_pretrained(tmp_path)
    causal = load_causal_model(CausalSettings(model=tmp_path, device="cpu"))
    assert causal.max_length == (64 if family == "gpt2" else 2048)
    rows = [list(range(3, 3 + count)) for count in (1, 20, 40, 64)]
    expected = np.array([plain_logits(causal.model, row)[-1, IDS] for row in rows])
    np.testing.assert_allclose(causal.next_token_logits(rows, IDS), expected, atol=1e-5)


def test_rows_that_cannot_be_scored_are_refused(causal: CausalModel) -> None:
    for rows, count in (([[3], []], 0), ([[3], [4] * 301], 301)):
        with pytest.raises(ValueError, match=f"row 1 has {count} tokens: it must have 1 to 300"):
            causal.next_token_logits(rows, IDS)
        with pytest.raises(ValueError, match=f"row 1 has {count} tokens"):
            causal.token_logps(rows)


def test_encode_is_the_models_own_tokenizer(causal: CausalModel) -> None:
    assert causal.encode("发热 3") == [0, *causal.encode("发热 3", add_special_tokens=False)]
    assert causal.coder.decode(causal.encode("发热 3", add_special_tokens=False)) == "发热 3"


def refused(directory: Path, sentence: str, **settings: Any) -> None:
    with pytest.raises(InputError, match=sentence):
        load_causal_model(CausalSettings(model=directory, **settings), "complexity.causal")


def test_a_model_that_cannot_be_used_is_named(directory: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none", r"complexity\.causal\.model is .*none, and there is no such directory")

    bare = tmp_path / "without tokenizer"
    shutil.copytree(directory, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    refused(bare, "whose tokenizer cannot be loaded .*: save the model's tokenizer beside it")

    empty = tmp_path / "without model"
    shutil.copytree(directory, empty, ignore=shutil.ignore_patterns("*.safetensors"))
    refused(empty, "without model, which cannot be loaded")

    torn = shutil.copytree(directory, tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(torn, "torn, which cannot be loaded")

    other = shutil.copytree(directory, tmp_path / "other")
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=8, num_hidden_layers=1)
    ).save_pretrained(other)
    refused(other, r"tokenizer has \d+ ids and whose model 99: they do not belong together")

    headless = shutil.copytree(directory, tmp_path / "headless")
    transformers.AutoModel.from_pretrained(directory).save_pretrained(headless)
    refused(headless, r"lacks lm_head\.weight: it was saved without the head")
    if not torch.cuda.is_available():
        refused(directory, r"complexity\.causal\.device is cuda, and torch finds no GPU", device="cuda")


def test_a_model_that_sees_later_tokens_is_refused(directory: Path, tmp_path: Path) -> None:
    """transformers loads a BERT with its masked head as a causal model, and only warns."""
    shutil.copytree(directory, tmp_path / "bert", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = transformers.BertConfig(
        vocab_size=600, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, initializer_range=0.5
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    refused(tmp_path / "bert", "whose tokens look at later ones: it is no causal language model")


def test_no_code_of_a_models_repository_is_run(directory: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(directory, tmp_path / "own code")
    config = (copied / "config.json").read_text()
    own = '"auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}, "model_type": "own"'
    (copied / "config.json").write_text(config.replace('"model_type": "llama"', own))
    (copied / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refused(copied, "own code, wh")
    assert not (tmp_path / "ran").exists()


def test_workers_take_the_gpus_in_turn() -> None:
    identities = [(), (1,), (2,), (3,), (4,), (5,)]
    assert [gpu_of_process(identity, 3) for identity in identities] == [0, 0, 1, 2, 0, 1]
    assert {gpu_of_process(identity, 1) for identity in identities} == {0}


@pytest.mark.parametrize("case", ["small model", "large model", "large model in a worker"])
def test_threads_are_used_where_they_help(causal: CausalModel, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if case != "small model":
        monkeypatch.setattr(local_model, "_ONE_THREAD", 0)
    monkeypatch.setenv("RAYON_NUM_THREADS", "1" if "worker" in case else "2")
    monkeypatch.setattr("data_tools.dialogues.embedding.load_causal_model", lambda *given: causal)
    talk: Messages = ({"role": "user", "content": "fever"}, {"role": "assistant", "content": "rest"})
    batch = Batch(["0"], ["fever\nrest"], [""], [""], [{}], [talk])
    row = np.arange(3, 9)
    work: dict[str, Callable[[], object]] = {
        "next_token_logits": lambda: causal.next_token_logits([row.tolist()], IDS),
        "token_logps": lambda: causal.token_logps([row.tolist()]),
        "losses": lambda: forcing.losses([[Row(row, np.array([3]))]]),
        "vectors": lambda: ModelEmbedding(model=causal.settings.model).embedder("d")(batch),
    }
    forcing = TeacherForcing(causal)
    seen: list[int] = []
    hook = causal.model.base_model.register_forward_hook(lambda *given: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        for function in work.values():
            function()
            assert torch.get_num_threads() == 2, "others in this process have theirs back"
    finally:
        hook.remove()
        torch.set_num_threads(1)
    assert seen == [2 if case == "large model" else 1] * len(work)


@pytest.mark.gpu
def test_on_a_gpu_logits_do_not_follow_neighbours_either(directory: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    causal = load_causal_model(CausalSettings(model=directory, device="cuda", max_length=300))
    assert causal.device == "cuda:0" and causal.model.dtype == torch.bfloat16
    rows = rows_of(causal)
    together = causal.next_token_logits(rows, IDS)
    np.testing.assert_array_equal(causal.next_token_logits(rows[::-1], IDS)[::-1], together)
    exact = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    expected = np.array([plain_logits(exact, row)[-1, IDS] for row in rows])
    np.testing.assert_allclose(together, expected, atol=0.02 * expected.std() + 0.1)
