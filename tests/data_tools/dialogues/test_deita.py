"""Deita's scores beside the published formula, written out in numpy over the logits of transformers alone."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError

from data_tools.causal_model import CausalModel, CausalSettings, load_causal_model
from data_tools.corpus.batch import Batch, Outcome, dialogue_text
from data_tools.corpus.chain import Chain, Documents
from data_tools.corpus.step_config import Resources
from data_tools.dialogues.deita import Deita, DeitaConfig
from data_tools.dialogues.deita_prompts import (
    QUESTION_CHARACTERS,
    complexity_prompt,
    exchanges,
    quality_prompt,
    quality_text,
)
from data_tools.dialogues.deita_scorers import DigitScorer, expected_scores
from data_tools.inputs import InputError
from data_tools.records import Messages
from data_tools.scorers import load_scorer
from data_tools.scorers.training import train_scorer
from data_tools.tokenizers import Tokenizer, load_tokenizer
from tests.data_tools.corpus.real_texts import dialogues as real_dialogues
from tests.data_tools.corpus.real_texts import needs_shared
from tests.data_tools.one_thread import one_thread  # noqa: F401 (a fixture)
from tests.data_tools.scorers.seed_samples import clinic_seeds, scored_seeds, write_seeds
from tests.data_tools.small_causal import TEXTS, small_causal_model
from tests.data_tools.small_tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the scorers of complexity and of quality."""
    made = [small_causal_model(tmp_path_factory.mktemp("model"), seed=seed) for seed in (1, 2)]
    return made[0], made[1]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def causal(directory: Path, **settings: Any) -> dict[str, Any]:
    return {"causal": {"model": directory, "device": "cpu", **settings}}


def step_of(directories: tuple[Path, Path], tokenizer: Tokenizer, **keys: Any) -> Deita:
    given = {"complexity": causal(directories[0]), "quality": causal(directories[1]), **keys}
    return DeitaConfig(**given).build(Resources(tokenizer, 0))


def dialogue(*said: str, system: str = "") -> Messages:
    roles = ("user", "assistant")
    first = ({"role": "system", "content": system},) if system else ()
    return (*first, *({"role": roles[place % 2], "content": text} for place, text in enumerate(said)))


def batch_of(dialogues: Sequence[Messages], metas: Sequence[dict[str, Any]] = ()) -> Batch:
    count = len(dialogues)
    texts = [dialogue_text(messages) for messages in dialogues]
    given = list(metas) or [{} for _ in texts]
    return Batch([f"d{place}" for place in range(count)], texts, [""] * count, [""] * count, given, list(dialogues))


def scores(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(note))["scores"] for note in outcome.notes if note is not None]


class Original:
    """Deita's scorer by its facts: the logits of "1" … "6" at the first new position, a softmax over these six, and
    the sum of k·pₖ. float64, one prompt at a time, transformers alone.
    """

    def __init__(self, directory: Path) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
        self.coder = transformers.AutoTokenizer.from_pretrained(directory)

    def __call__(self, prompt: str) -> float:
        with torch.no_grad():
            logits = self.model(torch.tensor([self.coder.encode(prompt)])).logits[0, -1]
        return formula([float(logits[self.coder.convert_tokens_to_ids(digit)]) for digit in "123456"])


def formula(logits: Sequence[float]) -> float:
    odds = [math.exp(logit) for logit in logits]
    return sum(k * odd for k, odd in enumerate(odds, 1)) / sum(odds)


ROUNDING = 3e-6  # of products, relative: the step's models compute in float32
DIALOGUES = [
    dialogue("发热三天，咳嗽，怎么办？", "多喝水，注意休息。"),
    dialogue("Is ibuprofen safe?", "Yes, for most.", "And at night?", "Yes.", "Which dose?", "200 mg to 400 mg."),
    dialogue("{instruction} 100% {0}", "{output}\n#Response#:\n", system="You are a doctor."),
    dialogue("头痛", "请问多久了？", "两天"),  # nobody answered
    dialogue("  ", "?"),
]


def test_the_prompts_are_deitas_to_the_character() -> None:
    assert complexity_prompt("QUERY") == (
        "You are a helpful assistant. Please identify the complexity score of the following user query. "
        "\n##Query: QUERY  \n##Complexity: "
    )
    assert quality_prompt("QUERY", "ANSWER") == (
        "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. "
        "\n #Question#:\nQUERY\n#Response#:\nANSWER \n##Quality: "
    )
    assert complexity_prompt("{output} {").count("{output} {") == 1


def test_an_exchange_is_a_question_and_its_answer() -> None:
    messages = [("system", "s"), ("assistant", "hello"), ("user", "a"), ("user", "b"), ("assistant", "c")]
    messages += [("assistant", "d"), ("user", "e")]
    found = exchanges(tuple({"role": role, "content": text} for role, text in messages))
    assert found == [("a\nb", "c\nd", ()), ("e", "", ("a\nb", "c\nd"))]


@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@pytest.mark.parametrize("unanswered", ["score", "skip"])
@pytest.mark.parametrize("history", [False, True])
def test_scores_are_those_of_the_published_formula(
    aggregate: str, unanswered: str, history: bool, directories: tuple[Path, Path], tokenizer: Tokenizer
) -> None:
    keys = {"aggregate": aggregate, "unanswered": unanswered, "history": history}
    outcome = step_of(directories, tokenizer, **keys)(batch_of(DIALOGUES))
    complexity, quality = Original(directories[0]), Original(directories[1])
    assert outcome.drops == [None] * len(DIALOGUES)
    everything = []
    for messages, found in zip(DIALOGUES, scores(outcome)):
        said = [message["content"] for message in messages if message["role"] != "system"]
        cs, qs = [], []
        for place in range(0, len(said), 2):  # even places are the user's, odd ones the assistant's
            answer = said[place + 1] if place + 1 < len(said) else ""
            if answer or unanswered == "score":
                instruction = "\n".join(said[: place + 1]) if history else said[place]
                cs.append(complexity(complexity_prompt(instruction)))
                qs.append(quality(quality_prompt(instruction, answer)))
        np.testing.assert_allclose(found["complexity"], cs, atol=1e-5)
        np.testing.assert_allclose(found["quality"], qs, atol=1e-5)
        products = np.array(cs) * np.array(qs)
        deita = products.sum() if aggregate == "sum" else products.mean()
        np.testing.assert_allclose(found["deita"], deita, rtol=ROUNDING)
        everything += cs
    assert np.ptp(everything) > 0.3  # the model tells them apart
    asked = 8 if unanswered == "score" else 7
    assert outcome.counts["exchanges scored"] == asked and outcome.counts["texts cut"] == 0
    assert outcome.counts["unanswered questions"] == asked - 7


@needs_shared
def test_real_dialogues_are_scored_as_the_formula_does(directories: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    texts = [text.split("\n", 1) for text in real_dialogues()[:3000:100]]
    found = scores(step_of(directories, tokenizer)(batch_of([dialogue(*text) for text in texts])))
    complexity, quality = Original(directories[0]), Original(directories[1])
    expected = [(complexity(complexity_prompt(ask)), quality(quality_prompt(ask, answer))) for ask, answer in texts]
    np.testing.assert_allclose([one["complexity"][0] for one in found], [c for c, _ in expected], atol=1e-5)
    np.testing.assert_allclose([one["quality"][0] for one in found], [q for _, q in expected], atol=1e-5)
    np.testing.assert_allclose([one["deita"] for one in found], [c * q for c, q in expected], rtol=ROUNDING)


def test_a_score_depends_on_the_dialogue_alone(directories: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    step = step_of(directories, tokenizer)
    together = scores(step(batch_of(DIALOGUES)))
    assert [scores(step(batch_of([messages])))[0] for messages in DIALOGUES] == together
    assert scores(step(batch_of(DIALOGUES[::-1])))[::-1] == together
    assert scores(step(batch_of([]))) == []


def test_scores_go_into_metas_and_histograms(directories: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    step = step_of(directories, tokenizer)
    nothing = ({"role": "assistant", "content": "hello"},)
    batch = batch_of([*DIALOGUES[:2], nothing], [{"scores": {"judge": 4}, "department": "内科"}, {}, {}])
    chain = Chain([step], tokenizer, [None])
    left, decisions = chain(Documents(batch, [0, 1, 2]))
    first, second = left.batch.metas
    assert first["department"] == "内科" and first["scores"]["judge"] == 4
    assert set(second["scores"]) == {"complexity", "quality", "deita"}
    assert len(second["scores"]["complexity"]) == len(second["scores"]["quality"]) == 3
    assert [(decision["id"], decision["reason"]) for decision in decisions] == [("d2", "no-score")]
    histograms = json.loads(json.dumps(chain.tallies["deita"].to_json()))["histograms"]
    for name, found in (
        ("complexity", [np.mean(meta["scores"]["complexity"]) for meta in (first, second)]),
        ("quality", [np.mean(meta["scores"]["quality"]) for meta in (first, second)]),
        ("deita", [meta["scores"]["deita"] for meta in (first, second)]),
    ):
        low, high, bins = (1, 36, 70) if name == "deita" else (1, 6, 50)
        assert histograms[name][""] == np.histogram(found, bins, (low, high))[0].tolist(), name


@pytest.mark.parametrize(
    ("logits", "score"),
    [
        ([0, 0, 0, 0, 0, 0], 3.5),
        ([0, 0, 0, 0, 900, 0], 5),
        ([math.log(3), -math.inf, -math.inf, -math.inf, -math.inf, 0], (3 * 1 + 6) / 4),
        ([-900, -900, -900, -900 + math.log(4), -900, -900], (1 + 2 + 3 + 4 * 4 + 5 + 6) / 9),
        ([math.nan, 0, 0, 0, 0, 0], math.nan),
        ([math.inf, 0, 0, 0, 0, 0], math.nan),
        ([-math.inf] * 6, math.nan),
    ],
)
def test_the_expected_value_by_hand(logits: list[float], score: float) -> None:
    np.testing.assert_allclose(expected_scores(np.array([logits], np.float64)), [score], rtol=1e-12)


def test_the_same_logits_give_the_same_scores() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (200, 6))
    np.testing.assert_allclose(expected_scores(logits), [formula(row) for row in logits.tolist()], rtol=1e-12)


def test_a_digit_may_have_the_prompts_last_space_in_its_token(tmp_path: Path) -> None:
    directory = small_causal_model(tmp_path, digits_apart=False)
    loaded = load_causal_model(CausalSettings(model=directory, device="cpu"))
    scorer = DigitScorer(loaded, "quality.causal", quality=True)
    assert loaded.coder.convert_ids_to_tokens(scorer.token_ids) == [f"Ġ{digit}" for digit in range(1, 7)]
    row, cut = scorer.row("头痛", "休息")
    # digit and prompt are what the tokenizer makes of both together
    assert [*row, scorer.token_ids[3]] == loaded.encode(quality_prompt("头痛", "休息") + "4") and not cut


def test_a_tokenizer_of_llamas_form_has_a_space_and_a_digit(directories: tuple[Path, Path], tmp_path: Path) -> None:
    """As in Llama's tokenizer.json: no pre-tokenizer, "▁" before a text and for each space, digits never merged."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

    coder = Fast(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    coder.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    coder.pre_tokenizer = pre_tokenizers.Digits(individual_digits=True)
    special = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [quality_prompt(text, text) for text in TEXTS] + [f"{digit} 咳" for digit in range(10)]
    coder.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=570, special_tokens=special, show_progress=False))
    written = json.loads(coder.to_str()) | {"pre_tokenizer": None}
    coder = Fast.from_str(json.dumps(written))
    coder.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    llama = shutil.copytree(directories[0], tmp_path / "llama")
    coder.save(str(llama / "tokenizer.json"))
    loaded = load_causal_model(CausalSettings(model=llama, device="cpu"))
    scorer = DigitScorer(loaded, "complexity.causal", quality=False)
    assert loaded.coder.convert_ids_to_tokens(scorer.token_ids) == list("123456")
    row, _ = scorer.row("头痛", None)
    assert row == loaded.encode(complexity_prompt("头痛")) and row[0] == 0  # what Deita's code shows the model


def test_a_tokenizer_that_ends_texts_is_read_before_the_end(directories: tuple[Path, Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import processors

    ending = shutil.copytree(directories[0], tmp_path / "ending")
    coder = Fast.from_file(str(ending / "tokenizer.json"))
    coder.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    coder.save(str(ending / "tokenizer.json"))
    asked = [("头痛", None), ("Which dose?", None)]
    found = []
    for directory in (directories[0], ending):
        loaded = load_causal_model(CausalSettings(model=directory, device="cpu"))
        found.append(DigitScorer(loaded, "complexity.causal", quality=False).score(asked)[0])
    assert loaded.encode("a")[-1] == 1
    np.testing.assert_array_equal(*found)


def test_a_tokenizer_without_tokens_of_digits_is_refused(
    directories: tuple[Path, Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """All digits would be one unknown token, and every score 3.5."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers

    wordless = shutil.copytree(directories[0], tmp_path / "wordless")
    coder = Fast(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, "Complexity": 3, ":": 4}, unk_token="<unk>"))
    coder.pre_tokenizer = pre_tokenizers.Whitespace()
    coder.save(str(wordless / "tokenizer.json"))
    with pytest.raises(InputError, match=r"complexity\.causal\.model is .*wordless, whose tokenizer does not make one"):
        step_of(directories, tokenizer, complexity=causal(wordless))


@pytest.mark.parametrize("keep_end", [False, True])
def test_what_is_too_long_is_cut_within_the_prompt(keep_end: bool, directories: tuple[Path, Path]) -> None:
    loaded = load_causal_model(CausalSettings(model=directories[0], device="cpu", max_length=256))

    def cut_row(instruction: str, response: str) -> str:
        row, cut = DigitScorer(loaded, "quality.causal", quality=True, keep_end=keep_end).row(instruction, response)
        assert cut and 250 <= len(row) <= 256 and row[0] == 0
        text: str = loaded.coder.decode(row[1:], clean_up_tokenization_spaces=False)
        assert text.startswith(quality_prompt("", "").split("\n", maxsplit=1)[0]) and text.endswith(" \n##Quality: ")
        return text.split("#Question#:\n")[1].removesuffix(" \n##Quality: ")

    words = [f"w{number}" for number in range(2000)]
    long = " ".join(words)
    instruction, response = cut_row(long, "the answer").split("\n#Response#:\n")
    assert response == "the answer" and len(instruction) > 150
    assert long.endswith(instruction) if keep_end else long.startswith(instruction)
    assert cut_row("the question", long).startswith("the question\n#Response#:\nw0 w1 w2 ")
    instruction, response = cut_row(long, long).split("\n#Response#:\n")
    assert long.startswith(response) and 0.5 < len(loaded.encode(instruction)) / len(loaded.encode(response)) < 2
    assert "w0 w1" in cut_row("头痛" * 500, long) and cut_row("咳" * 10**6, "")  # characters of several tokens


def test_texts_that_were_cut_are_counted(directories: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    short = {"complexity": causal(directories[0], max_length=100), "quality": causal(directories[1], max_length=100)}
    dialogues = [dialogue("咳嗽 " * 300, "休息"), dialogue("咳嗽", "休息 " * 300), dialogue("咳嗽", "休息")]
    outcome = step_of(directories, tokenizer, **short)(batch_of(dialogues))
    assert outcome.counts["texts cut"] == 3 and outcome.drops == [None] * 3
    with pytest.raises(InputError, match=r"complexity\.causal\.max_length is 10, and the prompt without any text"):
        step_of(directories, tokenizer, complexity=causal(directories[0], max_length=10))


def test_no_number_is_no_score(directories: tuple[Path, Path], tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Never a default: the original gives such a sample 3.0."""
    broken = shutil.copytree(directories[1], tmp_path / "broken")
    model = transformers.AutoModelForCausalLM.from_pretrained(broken)
    coder = transformers.AutoTokenizer.from_pretrained(broken)
    only = coder.encode("咳", add_special_tokens=False)[-1]
    with torch.no_grad():  # a model that has no number for rows in which 咳 stands
        model.model.embed_tokens.weight[only] = math.nan
    model.save_pretrained(broken)
    good, bad = dialogue("发热", "休息", "多久？", "三天"), dialogue("发热", "休息", "多久？", "咳三天")
    nothing = ({"role": "assistant", "content": "hello"},)
    outcome = step_of(directories, tokenizer, quality=causal(broken))(batch_of([good, bad, nothing, good]))
    found = [drop and (drop.reason, dict(drop.detail)) for drop in outcome.drops]
    assert found == [
        None,
        ("no-score", {"exchange": 2, "score": "quality"}),
        ("no-score", {"exchanges": 0}),
        None,
    ]
    assert outcome.counts["exchanges without a score"] == 1 and outcome.counts["exchanges scored"] == 5
    assert [note is None for note in outcome.notes] == [False, True, True, False]
    assert np.isnan(outcome.measures["deita"]).tolist() == [False, True, True, False]
    assert scores(outcome)[0] == scores(outcome)[1]  # a neighbour's NaN stays there


def test_trained_scorers_see_the_rendered_texts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    seeds = write_seeds(tmp_path / "seeds.jsonl", scored_seeds(200))
    train_scorer([seeds], tmp_path / "good", kind="linear", task="regression", tokenizer=tokenizer)
    trained = {"trained": tmp_path / "good"}
    config = DeitaConfig.model_validate({"complexity": trained, "quality": trained})
    assert config.files() == (tmp_path / "good" / "manifest.json",)
    messages = dialogue("fever dose 咳嗽", "the has 每日", "the the the", "fever fever dose")
    (found,) = scores(config.build(Resources(tokenizer, 0))(batch_of([messages])))
    scorer = load_scorer(tmp_path / "good", tokenizer)
    texts = ["fever dose 咳嗽", "the the the"]
    texts += [
        "#Question#:\nfever dose 咳嗽\n#Response#:\nthe has 每日",
        "#Question#:\nthe the the\n#Response#:\nfever fever dose",
    ]
    plain = Batch(list("abcd"), texts, [""] * 4, [""] * 4, [{} for _ in texts])
    expected = scorer.score(plain)[:, 0]
    np.testing.assert_allclose(found["complexity"] + found["quality"], expected, atol=1e-6)
    np.testing.assert_allclose(found["deita"], (expected[:2] * expected[2:]).mean(), atol=1e-6)
    assert found["complexity"][0] > found["complexity"][1] + 0.5


def test_a_long_question_does_not_hide_its_answer() -> None:
    question = "".join(chr(0x4E00 + place) for place in range(1000))
    text = quality_text(question, "answer")
    assert len(text) < QUESTION_CHARACTERS + 40 and text.endswith("\n#Response#:\nanswer")
    assert f"#Question#:\n{question[:200]}…{question[-100:]}\n" in text
    assert quality_text(question[:300], "a") == f"#Question#:\n{question[:300]}\n#Response#:\na"


def test_what_does_not_fit_is_refused(tokenizer: Tokenizer, tmp_path: Path, directories: tuple[Path, Path]) -> None:
    seeds = write_seeds(tmp_path / "seeds.jsonl", clinic_seeds(60))
    train_scorer([seeds], tmp_path / "labels", kind="linear", task="classification", tokenizer=tokenizer)
    with pytest.raises(InputError, match=r"quality\.trained is .*labels, which tells labels \(medical, other\)"):
        step_of(directories, tokenizer, quality={"trained": tmp_path / "labels"})
    with pytest.raises(InputError, match=r"quality\.causal\.model is .*none, and there is no such directory"):
        step_of(directories, tokenizer, quality=causal(tmp_path / "none"))
    for wrong in ({}, {**causal(directories[0]), "trained": tmp_path / "labels"}):
        with pytest.raises(ValidationError, match="give one of causal"):
            DeitaConfig.model_validate({"complexity": wrong, "quality": causal(directories[0])})


def test_one_model_for_both_is_loaded_once(directories: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    step = step_of(directories, tokenizer, quality=causal(directories[0]))
    models = [scorer._causal for scorer in (step.complexity, step.quality) if isinstance(scorer, DigitScorer)]
    assert len(models) == 2 and models[0] is models[1] and isinstance(models[0], CausalModel)
    assert step.config.files() == (directories[0],)
