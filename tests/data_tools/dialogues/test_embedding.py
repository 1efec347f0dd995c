"""Vectors against transformers' own forward pass, and n-grams counted in plain Python."""

import math
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.corpus.batch import Batch, dialogue_text
from data_tools.corpus.step_config import Resources
from data_tools.dialogues.embedding import ModelEmbedding, NgramEmbedding
from data_tools.dialogues.select import DiversityConfig, SelectConfig
from data_tools.inputs import InputError
from tests.data_tools.small_causal import small_causal_model

DIALOGUES = [
    [("user", "患者发热三天，应该服用什么药？"), ("assistant", "建议多喝水，注意休息。")],
    [("user", "Which dose of ibuprofen is safe?"), ("assistant", "Ask a doctor.")],
    [("user", "问"), ("assistant", "答"), ("user", "还有头痛。"), ("assistant", "请及时到医院就诊。" * 20)],
    [("system", "You are a doctor."), ("user", "Hello"), ("assistant", "How can I help?")],
    [("user", "Which dose of ibuprofen is safe?"), ("assistant", "Ask a doctor!")],
]


def batch_of(dialogues: list[list[tuple[str, str]]]) -> Batch:
    messages: list[Any] = [tuple({"role": role, "content": text} for role, text in each) for each in dialogues]
    count = len(messages)
    ids = [f"d{k}" for k in range(count)]
    texts = [dialogue_text(each) for each in messages]
    return Batch(ids, texts, [""] * count, ["s"] * count, [{} for _ in messages], messages)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_causal_model(tmp_path_factory.mktemp("model"), hidden=32)


def naive(model: Path, text: str, max_length: int) -> np.ndarray:
    """The last layer's state at the last token, as transformers hands it out; of length 1."""
    import torch
    import transformers

    coder = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids = coder(text, return_tensors="pt").input_ids[:, :max_length]
    with torch.no_grad():
        state = network(ids, output_hidden_states=True).hidden_states[-1][0, -1].double().numpy()
    return np.asarray(state / np.linalg.norm(state))


def test_a_dialogue_is_the_last_state_of_its_last_token(model: Path) -> None:
    batch = batch_of(DIALOGUES)
    found = ModelEmbedding(model=model, device="cpu", max_length=64).embedder("d")(batch)
    assert found.dtype == np.float32
    assert found.shape == (5, ModelEmbedding(model=model).size("d")) == (5, 32)
    for place, text in enumerate(batch.texts):
        np.testing.assert_allclose(found[place], naive(model, text, 64), atol=1e-5)
    assert (found[1] @ found[4]) < 0.9999  # another last token


def test_a_template_is_rendered_and_what_it_cannot_render_has_no_vector(model: Path) -> None:
    batch = batch_of([*DIALOGUES, [("assistant", "first")], [("user", " ")]])
    found = ModelEmbedding(model=model, device="cpu", template="chatml").embedder("d")(batch)
    text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHow can I help?<|im_end|>\n"
    expected = naive(model, f"<|im_start|>system\nYou are a doctor.<|im_end|>\n{text}", 2048)
    np.testing.assert_allclose(found[3], expected, atol=1e-5)
    assert not found[5:].any()
    with pytest.raises(InputError, match=r"here\.template is llama-9"):
        ModelEmbedding(model=model, template="llama-9").embedder("here")


def test_a_vector_follows_its_dialogue_alone(model: Path) -> None:
    batch = batch_of(DIALOGUES)
    for settings in (ModelEmbedding(model=model, device="cpu"), NgramEmbedding()):
        embed = settings.embedder("d")
        whole = embed(batch)
        again = settings.embedder("d")(batch.select([4, 2, 0, 3, 1]))
        assert np.array_equal(whole, again[[2, 4, 1, 3, 0]])
        assert np.array_equal(whole[2:3], embed(batch.select([2])))


def test_rows_take_the_size_that_the_model_says(model: Path, tmp_path: Path) -> None:
    diversity = DiversityConfig(embedding=ModelEmbedding(model=model, device="cpu"), stored="float32")
    config = SelectConfig(score=None, diversity=diversity)
    rows = config.signer(Resources(None, 0))(batch_of(DIALOGUES))  # type: ignore[arg-type]
    assert rows.dtype == config.row_dtype
    assert rows["vector"].shape == (5, 32)
    assert config.files() == (model,)
    np.testing.assert_allclose(np.linalg.norm(rows["vector"], axis=1), 1, atol=1e-6)
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    for missing in (tmp_path, tmp_path / "nowhere"):
        broken = SelectConfig(diversity=DiversityConfig(embedding=ModelEmbedding(model=missing)))
        with pytest.raises(InputError, match=r"select\.diversity\.embedding\.model is .* hidden size"):
            _ = broken.row_dtype


def ngrams(text: str, by_words: bool) -> Counter[tuple[str, ...]]:
    """Of one and two characters or words, folded."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    words = "".join(c if unicodedata.category(c)[0] in "LN" else " " for c in folded).split()
    tokens = words if by_words else list("".join(words))
    return Counter([(one,) for one in tokens] + list(pairwise(tokens)))


def test_hashed_cosines_are_near_those_of_counted_n_grams() -> None:
    texts = {
        "zh": [
            "发热三天，咳嗽，头痛。建议多喝水！",
            "发热三天、咳嗽、头痛，建议多喝水",
            "腹痛两天，呕吐。请到医院就诊",
            "发热两天，咳嗽。请多喝水",
        ],
        "en": [
            "Fever for three days and a dry cough, a fever!",
            "A dry cough, and fever for days",
            "Pain in the left knee",
            "the left knee: pain; a cough",
        ],
    }
    for lang, some in texts.items():
        found = NgramEmbedding(dimensions=8192).vectors(some, [lang] * 4)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        weights = [{gram: 1 + math.log(count) for gram, count in ngrams(text, lang == "en").items()} for text in some]
        lengths = [math.sqrt(sum(weight**2 for weight in each.values())) for each in weights]
        for a in range(4):
            for b in range(4):
                exact = sum(weight * weights[b].get(gram, 0) for gram, weight in weights[a].items())
                assert found[a] @ found[b] == pytest.approx(exact / lengths[a] / lengths[b], abs=0.04)
        assert np.array_equal(found, NgramEmbedding(dimensions=8192).vectors(some, [""] * 4))  # the language is guessed


def test_case_width_and_punctuation_count_for_nothing_and_empty_texts_have_no_vector() -> None:
    embed = NgramEmbedding(n=3)
    found = embed.vectors(["ＡＢＣ test, 1", "abc TEST… 1", "…！?", "", "问"], ["en", "en", "zh", "zh", "zh"])
    assert np.array_equal(found[0], found[1])
    assert not found[2:4].any()
    assert np.count_nonzero(found[4]) == 1
    assert not np.array_equal(found[0], NgramEmbedding(n=1).vectors(["abc test 1"], ["en"])[0])


def test_unrelated_texts_are_far_apart() -> None:
    draw = np.random.default_rng(0)
    texts = ["".join(map(chr, draw.integers(0x4E00, 0x9000, 300))) for _ in range(200)]
    found = NgramEmbedding().vectors(texts, ["zh"] * 200)
    cosines = (found @ found.T)[np.triu_indices(200, 1)]
    assert abs(cosines.mean()) < 0.02
    assert cosines.std() == pytest.approx(1 / math.sqrt(256), rel=0.15)
