"""Exact match: the rule, and greedy answers in padded batches against one question at a time by hand."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from data_tools.chat import get_template
from data_tools.clinic import documents, exact_match_questions, make_world
from data_tools.tokenizer_training import train_from_texts
from megatron_aquila.evaluation.exact_match import exact_match, names_the_answer

Question = dict[str, Any]
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    return list(exact_match_questions(make_world(), limit=12))


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory, asked: list[Question]) -> Path:
    """A random model with a chat template; the third token of its first answer is its end of turn."""
    directory = tmp_path_factory.mktemp("assistant") / "model"
    texts = (document["text"] for document in documents(make_world(), stage=2, count=300))
    train_from_texts(texts, directory, vocab_size=700, control_tokens=("<|im_start|>", "<|im_end|>"))
    (directory / "chat_template.jinja").write_text(get_template("chatml").jinja(), encoding="utf-8")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=700,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    (first,) = by_hand(directory, asked[:1], ends=[])
    generation = {"bos_token_id": 1, "eos_token_id": [first[2]]}
    (directory / "generation_config.json").write_bytes(orjson.dumps(generation))
    return directory


def by_hand(directory: Path, asked: list[Question], ends: list[int]) -> list[list[int]]:
    """The greedy answers, one question after the other: the whole sequence through the model for each token."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    answers: list[list[int]] = []
    for question in asked:
        text = f"<|im_start|>user\n{question['messages'][0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer: list[int] = []
        with torch.no_grad():
            while len(answer) < NEW_TOKENS:
                token = int(model(torch.tensor([ids + answer])).logits[0, -1].argmax())
                if token in ends:
                    break
                answer.append(token)
        answers.append(answer)
    return answers


def test_answers_equal_greedy_decoding_by_hand(assistant: Path, asked: list[Question]) -> None:
    ends = orjson.loads((assistant / "generation_config.json").read_bytes())["eos_token_id"]
    answers = by_hand(assistant, asked, ends)
    assert len({len(question["messages"][0]["content"]) for question in asked}) > 4, "nothing is padded"
    assert {len(answer) for answer in answers} >= {2, NEW_TOKENS}, "no answer ends, or none is cut"
    tokenizer = AutoTokenizer.from_pretrained(assistant)
    texts = [tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]
    # Every third question asks for what the model is known to say, the others for what it does not.
    questions: list[Question] = [
        {**question, "answer": text if number % 3 == 0 else "never said", "values": ["never said"], "lang": str(number)}
        for number, (question, text) in enumerate(zip(asked, texts))
    ]
    found = exact_match(assistant, questions, batch_size=10, max_new_tokens=NEW_TOKENS)
    assert found.accuracy == pytest.approx(4 / 12)
    assert found.groups["lang"] == {str(number): float(number % 3 == 0) for number in range(12)}
    shares = {
        split: [number % 3 == 0 for number, question in enumerate(questions) if question["split"] == split]
        for split in ("fact", "wording")
    }
    assert found.groups["split"] == {split: pytest.approx(sum(some) / len(some)) for split, some in shares.items()}
    said = dict(zip((question["messages"][0]["content"] for question in asked), texts))
    assert len(found.examples) == 12, "each question is the only one of its language"
    assert all(example.said == said[example.question] for example in found.examples)
    by_split = exact_match(assistant, questions, group_by=["split"], max_new_tokens=NEW_TOKENS).examples
    firsts = [next(q for q in questions if q["split"] == split) for split in ("fact", "wording")]
    assert [example.question for example in by_split] == [question["messages"][0]["content"] for question in firsts]


def test_an_answer_is_right_when_it_names_the_value_and_no_other() -> None:
    values = ["liver", "lungs", "stomach"]
    assert names_the_answer("It mainly affects the Liver.", "liver", values)
    assert not names_the_answer("It mainly affects the lungs.", "liver", values)
    assert not names_the_answer("It affects the liver, or the lungs.", "liver", values)
    assert not names_the_answer("It is delivered by hand.", "liver", values)
    assert not names_the_answer("", "liver", values)
    assert names_the_answer("病变集中在肝脏。", "肝脏", ["肝脏", "脾脏"])
    assert not names_the_answer("病变集中在脾脏。", "肝脏", ["肝脏", "脾脏"])
    assert names_the_answer("答案：肝脏（选B）。", "肝脏", ["肝脏", "脾脏"])


def test_no_question_and_no_template_are_refused(assistant: Path, asked: list[Question], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no question to ask"):
        exact_match(assistant, [])
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in assistant.iterdir():
        if path.name != "chat_template.jinja":
            (bare / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="no chat template"):
        exact_match(bare, asked)
