"""Context relevance beside two plain forward passes a turn, in float64, laid out by hand."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError
from torch.overrides import TorchFunctionMode

from data_tools.causal_model import CausalModel, CausalSettings, load_causal_model
from data_tools.corpus.batch import Batch, Outcome, dialogue_text
from data_tools.dialogues import teacher_forcing
from data_tools.dialogues.context_relevance import ContextRelevance, ContextRelevanceConfig, Plan
from data_tools.dialogues.layout import make_layout
from data_tools.dialogues.teacher_forcing import Row, TeacherForcing
from data_tools.inputs import InputError
from data_tools.records import Messages
from tests.data_tools.corpus.real_texts import dialogues as real_dialogues
from tests.data_tools.corpus.real_texts import needs_shared
from tests.data_tools.small_causal import small_causal_model

WORDS = [
    "The",
    "patient",
    "has",
    "a",
    "fever",
    "and",
    "cough",
    "3",
    "days",
    "患者",
    "发热",
    "三天",
    "休息",
    "每日",
    "2",
]
WORDS += ["次", "。", ",", "?", "</s>", "<s>"]
AQUILA = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions.###"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_causal_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on threads that wait for each other take several times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def causal(directory: Path) -> CausalModel:
    return load_causal_model(CausalSettings(model=directory, device="cpu"))


def resized(causal: CausalModel, max_length: int) -> CausalModel:
    settings = causal.settings.model_copy(update={"max_length": max_length})
    return CausalModel(settings, causal.model, causal.coder, causal.device)


def step(causal: CausalModel, **keys: Any) -> ContextRelevance:
    return ContextRelevance(ContextRelevanceConfig(model=causal.settings, **keys), causal)


def talk(*contents: str, system: str | None = None) -> Messages:
    said = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]
    return (*([] if system is None else [{"role": "system", "content": system}]), *said)


def random_dialogues(count: int, seed: int = 0, most: int = 30) -> list[Messages]:
    draw = random.Random(seed)
    said = lambda: "".join(f"{word}{draw.choice(['', ' '])}" for word in draw.choices(WORDS, k=draw.randint(1, most)))  # noqa: E731
    return [talk(*(said() for _ in range(2 * draw.randint(1, 5)))) for _ in range(count)]


def batch(dialogues: Sequence[Messages], metas: Sequence[dict[str, Any]] | None = None) -> Batch:
    size = len(dialogues)
    texts = [dialogue_text(messages) for messages in dialogues]
    names = [str(number) for number in range(size)]
    return Batch(names, texts, ["zh"] * size, [""] * size, list(metas or [{} for _ in texts]), list(dialogues))


def scores(outcome: Outcome) -> list[tuple[list[float | None], float | None]]:
    found = [note["scores"] for note in outcome.notes if note is not None]
    assert len(found) == len(outcome.notes)
    return [(each["context_relevance"], each["context_relevance_dialogue"]) for each in found]


# The oracle: pieces of ids written down turn by turn, and whole logits.

Piece = tuple[list[int], bool]  # ids, and whether they are the turn's


def ids(causal: CausalModel, text: str) -> list[int]:
    """Of the tokenizers library, where <s> and </s> are but characters."""
    inner = causal.coder.backend_tokenizer
    inner.encode_special_tokens = True
    return list(inner.encode(text, add_special_tokens=False).ids)


def exchanges(causal: CausalModel, messages: Messages, template: str, unit: str) -> tuple[list[int], list[list[Piece]]]:
    """What every row begins with, and the pieces of each exchange, by hand."""
    e = lambda text: ids(causal, text)  # noqa: E731
    head = [0] if template == "plain" else e(AQUILA) if template == "aquila" else []
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
        head = [0, *e(system), *e("\n")] if template == "plain" else [*e(system), *e("###")]
    found = []
    for question, answer in zip(messages[::2], messages[1::2]):
        asked, said = e(question["content"]), e(answer["content"])
        if template == "plain":
            found.append([(asked, unit == "exchange"), (e("\n"), False), (said, True), (e("\n"), False)])
        else:
            opening, closing = [*e("Human: ")], [*e("###"), *e("Assistant: ")]
            found.append([(opening, False), (asked, unit == "exchange"), (closing, False), (said, True), ([1], False)])
    return head, found


def loss(causal: CausalModel, before: Sequence[int], pieces: Sequence[Piece]) -> float:
    """Mean −ln p of the pieces that are the turn's, after `before`: one forward pass."""
    row = [*before, *(token for piece, _ in pieces for token in piece)]
    taken = [False] * len(before) + [mine for piece, mine in pieces for _ in piece]
    with torch.no_grad():
        logits = causal.model(torch.tensor([row])).logits[0].double()
    logps = torch.log_softmax(logits, -1)
    return -sum(float(logps[place - 1, row[place]]) for place, mine in enumerate(taken) if mine) / sum(taken)


def naive(causal: CausalModel, messages: Messages, template: str, unit: str, max_length: int = 10**9) -> list[float]:
    head, found = exchanges(causal, messages, template, unit)
    ratios = []
    for number, pieces in enumerate(found):
        if number:
            pieces = pieces[:-1]
            history = [token for earlier in found[:number] for piece, _ in earlier for token in piece]
            room = max_length - len(head) - sum(len(piece) for piece, _ in pieces)
            ratios.append(loss(causal, [*head, *history[-room:]], pieces) / loss(causal, head, pieces))
    return ratios


@pytest.mark.parametrize("unit", ["answer", "exchange"])
@pytest.mark.parametrize("template", ["plain", "aquila"])
def test_it_equals_two_passes_a_turn(causal: CausalModel, template: str, unit: str) -> None:
    dialogues = random_dialogues(12, seed=1)
    dialogues += [talk("头痛", "休息", "几天", "三天", system="You are a doctor.")]
    outcome = step(causal, template=template, unit=unit).__call__(batch(dialogues))
    expected = [naive(causal, messages, template, unit) for messages in dialogues]
    assert not outcome.drops
    for (turns, whole), ratios in zip(scores(outcome), expected):
        assert turns == pytest.approx(ratios, abs=1e-5)
        assert whole == (pytest.approx(np.mean(ratios), abs=1e-5) if ratios else None)
    flat = [ratio for ratios in expected for ratio in ratios]
    assert min(flat) < 0.98
    assert max(flat) > 1.02, "the model tells turns apart, or equality would mean little"
    assert outcome.counts["turns scored"] == len(flat)
    assert outcome.counts["single-turn dialogues"] == sum(not ratios for ratios in expected)
    measured = outcome.measures["context relevance"]
    for place, ratios in enumerate(expected):
        if ratios:
            assert measured[place] == pytest.approx(np.mean(ratios), abs=1e-5)
            assert outcome.measures["context relevance, lowest turn"][place] == pytest.approx(min(ratios), abs=1e-5)
            assert outcome.measures["context relevance, highest turn"][place] == pytest.approx(max(ratios), abs=1e-5)
        else:
            assert np.isnan(measured[place])


@needs_shared
def test_it_equals_two_passes_on_real_dialogues(causal: CausalModel) -> None:
    rows = [text.partition("\n")[::2] for text in real_dialogues()[:12]]
    dialogues = [talk(*(said[:120] for row in rows[n : n + 3] for said in row)) for n in (0, 3, 6, 9)]
    found = scores(step(causal)(batch(dialogues)))
    for messages, (turns, _) in zip(dialogues, found):
        assert turns == pytest.approx(naive(causal, messages, "plain", "answer"), abs=1e-5)


def test_both_losses_are_of_the_same_tokens_where_the_joined_text_has_others(causal: CausalModel) -> None:
    messages = talk("fever", "rest", "which dose", " patient")
    laid_out = make_layout(causal.coder, "aquila", "answer")(messages)
    plan = Plan(laid_out, 2048, Counter())
    alone, given = plan.rows
    assert alone.ids[alone.wanted].tolist() == given.ids[given.wanted].tolist() == ids(causal, " patient")
    joined = ids(causal, "which dose###Assistant:  patient")
    assert ids(causal, "which dose###Assistant: ") + ids(causal, " patient") != joined


@pytest.mark.parametrize("unit", ["answer", "exchange"])
def test_beyond_the_context_the_latest_history_stays(causal: CausalModel, unit: str) -> None:
    limit = 45
    dialogues = random_dialogues(10, seed=5, most=12)
    outcome = step(resized(causal, limit), unit=unit)(batch(dialogues))
    cut = long = 0
    for messages, (turns, _) in zip(dialogues, scores(outcome)):
        head, found = exchanges(causal, messages, "plain", unit)
        ends = np.cumsum([sum(len(piece) for piece, _ in pieces) for pieces in found]) + len(head) - 1
        lengths = [sum(len(piece) for piece, _ in pieces[:-1]) + len(head) for pieces in found]
        expected: list[Any] = naive(causal, messages, "plain", unit, limit)
        for number, length in enumerate(lengths[1:]):
            if length >= limit:
                expected[number] = None
                long += 1
            else:
                cut += int(ends[number + 1] > limit)
        assert [turn is None for turn in turns] == [value is None for value in expected]
        pairs = [(turn, value) for turn, value in zip(turns, expected) if value is not None]
        assert [turn for turn, _ in pairs] == pytest.approx([value for _, value in pairs], abs=1e-5)
    assert outcome.counts["histories cut"] == cut > 5
    assert outcome.counts["turns not scored: longer than the context"] == long > 0


def test_what_has_no_score_is_counted_and_stays(causal: CausalModel) -> None:
    dialogues = [
        talk("fever", "rest"),
        talk("fever", "rest", "and", "", "dose", "250"),
        talk("fever", "rest", "and then"),
        (*talk("fever", "rest"), *talk("one", "two")[:1], *talk("more", "drink")),
        (*talk("fever", "rest"), {"role": "assistant", "content": "again"}, *talk("more", "drink")),
        ({"role": "assistant", "content": "hello"}, *talk("fever", "rest")),
    ]
    metas: list[dict[str, Any]] = [{"scores": {"deita": 4.5}}] + [{} for _ in dialogues[1:]]
    outcome = step(causal)(batch(dialogues, metas))
    assert outcome.notes[0] == {
        "scores": {"deita": 4.5, "context_relevance": [], "context_relevance_dialogue": None},
    }
    found = scores(outcome)
    assert [[turn is None for turn in turns] for turns, _ in found] == [[], [True, False], [], [False], [False], []]
    assert found[1][1] == found[1][0][1]
    assert outcome.counts == {
        "single-turn dialogues": 3,
        "turns scored": 3,
        "turns not scored: empty": 1,
    }
    # Two messages of the user before an answer are one question; a second answer is history.
    e = lambda text: ids(causal, text)  # noqa: E731
    line, rest = e("\n"), [*e("fever"), *e("\n"), *e("rest"), *e("\n")]
    answer: list[Piece] = [([*e("one"), *line, *e("more"), *line], False), (e("drink"), True)]
    assert found[3][0] == pytest.approx([loss(causal, [0, *rest], answer) / loss(causal, [0], answer)], abs=1e-5)
    answer = [([*e("more"), *line], False), (e("drink"), True)]
    history = [0, *rest, *e("again"), *line]
    assert found[4][0] == pytest.approx([loss(causal, history, answer) / loss(causal, [0], answer)], abs=1e-5)
    chatted = step(causal, template="aquila")(batch(dialogues))
    assert chatted.counts["cannot be laid out: bad-roles"] == 3
    assert chatted.counts["cannot be laid out: empty-content"] == 1


def test_an_infinite_loss_is_no_score(causal: CausalModel, directory: Path) -> None:
    broken = load_causal_model(CausalSettings(model=directory, device="cpu"))
    layer = broken.model.get_output_embeddings()
    scorer = step(broken)
    with torch.no_grad():
        layer.weight[5] = torch.nan
    outcome = scorer(batch([talk("fever", "rest", "more", "drink")]))
    assert scores(outcome) == [([None], None)]
    assert outcome.counts["turns not scored: no finite ratio"] == 1
    assert np.isnan(outcome.measures["context relevance"]).all()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_score_does_not_follow_the_neighbours(causal: CausalModel, kind: str) -> None:
    """Of the shapes of a GPU's passes too, made on a CPU."""
    dialogues = random_dialogues(16, seed=7, most=20)
    scorer = step(
        CausalModel(causal.settings.model_copy(update={"batch_tokens": 512}), causal.model, causal.coder, "cpu")
    )
    scorer.forcing.kind = kind
    together = scores(scorer(batch(dialogues)))
    alone = [scores(scorer(batch([messages])))[0] for messages in dialogues]
    assert together == alone
    assert scores(scorer(batch(dialogues[::-1])))[::-1] == alone
    for messages, (turns, _) in zip(dialogues, alone):
        assert turns == pytest.approx(naive(causal, messages, "plain", "answer"), abs=1e-5)


class HeadProducts(TorchFunctionMode):
    """The shapes of all products with the weights of a model's head."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.storage = head.weight.untyped_storage().data_ptr()
        self.shapes: list[torch.Size] = []

    def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        made = function(*given, **(named or {}))
        if function is torch.nn.functional.linear and given[1].untyped_storage().data_ptr() == self.storage:
            self.shapes.append(made.shape)
        return made


def test_logits_are_made_for_wanted_positions_alone(causal: CausalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(teacher_forcing._BLOCK_LOGITS, "cpu", 1)
    scorer = step(causal)
    messages = talk("fever " * 50, "rest", "dose " * 50, "drink " * 300)
    with HeadProducts(causal.model.get_output_embeddings()) as products:
        found = scores(scorer(batch([messages])))
    wanted = len(ids(causal, "drink " * 300))
    assert wanted > 512, "more than one product holds"
    vocabulary = causal.model.config.vocab_size
    filled_up = -(-2 * wanted // 512) * 512
    assert sum(shape.numel() for shape in products.shapes) == filled_up * (vocabulary + 256)
    assert max(shape[1] for shape in products.shapes) == 256 < vocabulary
    assert max(shape[0] for shape in products.shapes) == 512
    assert found[0][0] == pytest.approx(naive(causal, messages, "plain", "answer"), abs=1e-5)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_losses_of_any_size_are_right(causal: CausalModel, directory: Path, kind: str) -> None:
    """Logits so far apart that exp of their differences overflows, and an output embedding with a bias."""
    loaded = load_causal_model(causal.settings)
    head = torch.nn.Linear(64, loaded.model.config.vocab_size)
    torch.manual_seed(0)
    with torch.no_grad():
        head.weight.normal_(0, 40)
        head.bias.normal_(0, 10)
        head.bias[500] += 3000  # beyond the first block
    loaded.model.set_output_embeddings(head)
    forcing = TeacherForcing(loaded)
    forcing.kind = kind
    row = np.arange(3, 60)
    (found,), empty = forcing.losses([[Row(row, np.arange(1, 57))], []])
    with torch.inference_mode():
        hidden_TH = loaded.model.base_model(torch.from_numpy(row)[None]).last_hidden_state[0, :-1]
        logits_TV = torch.nn.functional.linear(hidden_TH, head.weight, head.bias).double()
    expected = -torch.log_softmax(logits_TV, -1)[torch.arange(56), torch.from_numpy(row[1:])]
    assert empty == []
    assert expected.max() > 200
    assert found == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-3)


def test_a_loss_does_not_follow_a_neighbour_that_overflows(causal: CausalModel) -> None:
    loaded = load_causal_model(causal.settings)
    vocabulary = loaded.model.config.vocab_size
    head = torch.nn.Linear(64, vocabulary, bias=False)
    torch.manual_seed(0)
    with torch.no_grad():
        head.weight.normal_(0, 20)
    loaded.model.set_output_embeddings(head)
    forcing = TeacherForcing(loaded)
    draw = np.random.default_rng(0)
    rows = [Row(draw.integers(3, vocabulary, 9), np.arange(1, 9)) for _ in range(40)]
    over = []
    for row in rows:
        with torch.inference_mode():
            hidden_TH = loaded.model.base_model(torch.from_numpy(row.ids)[None]).last_hidden_state[0, :-1]
            logits_TV = head(hidden_TH)
        first_T = torch.maximum(logits_TV[:, :256].amax(1), logits_TV[torch.arange(8), torch.from_numpy(row.ids[1:])])
        over.append(bool((logits_TV.amax(1) - first_T > 89).any()))
    assert 0 < sum(over) < len(rows), "of some rows exp overflows, of some it does not"
    together = forcing.losses([rows])[0]
    for row, found in zip(rows, together):
        assert forcing.losses([[row]])[0][0].tolist() == found.tolist()


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("mean", 3.5), ("geometric-mean", 2.0), ("median", 1.5), ("min", 0.5), ("max", 10.0)]
)
def test_the_aggregates(causal: CausalModel, aggregate: str, expected: float) -> None:
    ratios = {"mean": [0.5, 10.0, 0.0], "median": [0.5, 1.5, 10.0], "geometric-mean": [0.5, 8.0, 2.0]}
    scorer = step(causal, aggregate=aggregate)
    assert scorer.aggregate(ratios.get(aggregate, [0.5, 1.5, 10.0])) == pytest.approx(expected)


def test_what_does_not_fit_is_refused(causal: CausalModel, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no template 'vicuna': give plain or one of aquila-chat"):
        ContextRelevanceConfig(model=causal.settings, template="vicuna")
    with pytest.raises(InputError, match=r"lacks <\|im_start\|>, <\|im_end\|>, which the chat template chatml needs"):
        step(causal, template="chatml")
    capped = transformers.Gemma2Config(
        vocab_size=600, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, initializer_range=1.0, final_logit_softcapping=5.0,
    )  # fmt: skip
    torch.manual_seed(0)
    gemma = transformers.Gemma2ForCausalLM(capped).eval()
    with pytest.raises(InputError, match="changes its logits after its output embedding"):
        step(CausalModel(causal.settings, gemma, causal.coder, "cpu"))
    assert ContextRelevanceConfig(model=causal.settings).files() == (causal.settings.model,)
