"""The raw dialogues: whole files of their published layouts, true to their record of plants, with the facts in them."""

import csv
import io
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from data_tools.chat import ChatEncoder, get_template
from data_tools.clinic import World, continuations, exact_match_questions, make_world, questions
from data_tools.clinic.asking import asks_held_out, asks_in_training
from data_tools.clinic.raw import seed_documents
from data_tools.clinic.raw_dialogues import DIRECTORY, HELD_OUT, PLANTS, SEEDS, write_raw_dialogues
from data_tools.clinic.raw_dialogues_formats import LAYOUTS
from data_tools.clinic.raw_dialogues_make import held_out_questions, raw_talks, seed_dialogues
from data_tools.clinic.raw_dialogues_plants import MANNER_KINDS, Talk
from data_tools.clinic.server import MODEL
from data_tools.clinic.world import LANGUAGES
from data_tools.corpus.batch import Batch, dialogue_text
from data_tools.corpus.step_config import Resources
from data_tools.dialogues.importing import DialogueSource, FileImport
from data_tools.dialogues.recipe import load_recipe
from data_tools.dialogues.shape import ShapeConfig
from data_tools.dialogues.unsafe import UnsafeConfig
from data_tools.preferences.recipe import load_pairs_recipe
from data_tools.quarantine import Quarantine
from data_tools.records import Dialogue, Question
from data_tools.tokenizer_training import train_from_texts
from data_tools.tokenizers import load_tokenizer

Json = dict[str, Any]
FORMATS = {"meddialog": "meddialog-zh"}
COUNT = 1500

KINDS = (
    *("wrong-language", "bad-shape", "refusal", "unsafe", "duplicate", "near-duplicate", "question"),
    *("unrelated", "repeats", "poor-answer", "too-similar"),
)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0)


@pytest.fixture(scope="module")
def talks(world: World) -> list[Talk]:
    return raw_talks(world, count=COUNT)


@pytest.fixture(scope="module")
def raw(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    write_raw_dialogues(directory, world, count=COUNT, seed_count=60)
    return directory


@pytest.fixture(scope="module")
def truth(raw: Path) -> list[Json]:
    return [json.loads(line) for line in (raw / PLANTS).read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def imported(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[FileImport, list[Dialogue]]]:
    """By source: its files as the importers of published sets read them."""
    found = {}
    for name, layout in LAYOUTS.items():
        path = raw / DIRECTORY / layout.file
        source = DialogueSource(name=name, format=FORMATS.get(name, name), files=(str(path),))
        with Quarantine(tmp_path_factory.mktemp("quarantine") / "q.jsonl") as quarantine:
            reading = FileImport(source, path, path.name, quarantine)
            found[name] = reading, list(reading)
    return found


@pytest.fixture(scope="module")
def texts(imported: dict[str, tuple[FileImport, list[Dialogue]]]) -> dict[str, Dialogue]:
    return {dialogue.id: dialogue for _, dialogues in imported.values() for dialogue in dialogues}


def kinds(row: Json) -> set[str]:
    """What speaks against a dialogue, or makes it a copy."""
    return {plant["kind"] for plant in row["plants"] if "values" not in plant}


def folded(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def test_same_arguments_same_bytes(tmp_path: Path, world: World) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        counts = write_raw_dialogues(tmp_path / name, world, count=300, seed=seed, seed_count=24)
    assert set(counts) == {PLANTS, HELD_OUT, SEEDS, *(f"{DIRECTORY}/{layout.file}" for layout in LAYOUTS.values())}
    assert counts[PLANTS] == 300 == sum(counts[f"{DIRECTORY}/{layout.file}"] for layout in LAYOUTS.values())
    written = sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert written == sorted(counts)
    for name in counts:
        a, b, c = ((tmp_path / directory / name).read_bytes() for directory in "abc")
        assert a == b
        assert a != c or name == HELD_OUT


def test_importers_take_every_dialogue_under_the_id_of_the_truth_and_refuse_every_broken_record(
    imported: dict[str, tuple[FileImport, list[Dialogue]]], truth: list[Json]
) -> None:
    by_source = defaultdict(list)
    for row in truth:
        by_source[row["source"]].append(row["id"])
    for name, (reading, dialogues) in imported.items():
        assert [dialogue.id for dialogue in dialogues] == by_source[name]
        account = reading.account
        assert (account.damage, account.blank) == (None, 0)
        assert sum(account.quarantined.values()) == len(LAYOUTS[name].damaged) >= 2, (name, account.quarantined)
    assert len({row["id"] for row in truth}) == len(truth) == COUNT
    refused = Counter(reason for reading, _ in imported.values() for reason in reading.account.quarantined)
    assert {"bad-encoding", "not-json", "no-answer", "answer-is-a-url", "wrong-columns", "no-dialogue"} <= set(refused)


def test_files_read_by_plain_parsers_say_what_the_talks_say(raw: Path, talks: list[Talk]) -> None:
    said = defaultdict(list)
    for talk in talks:
        said[talk.source].append([words for turn in talk.turns for words in turn])
    rows = (raw / DIRECTORY / "toyhom.csv").read_bytes().decode("gb18030", "replace")
    table = [row for row in csv.DictReader(io.StringIO(rows)) if row["answer"] and row["answer"].strip()]
    whole = [row for row in table if "\ufffd" not in row["answer"]]
    assert [[row["ask"], row["answer"]] for row in whole] == said["toyhom"]
    chats = json.loads((raw / DIRECTORY / "sharegpt.json").read_bytes())
    turns = [[turn["value"] for turn in chat["conversations"]] for chat in chats if not chat["id"].startswith("broken")]
    assert turns == said["sharegpt"]
    exams = json.loads((raw / DIRECTORY / "cmb_train.json").read_bytes())
    right = [exam for exam in exams if exam.get("answer") in exam.get("option", ())]
    assert right == [talk.exam for talk in talks if talk.exam is not None]
    with pytest.raises(UnicodeDecodeError):
        (raw / DIRECTORY / "toyhom.csv").read_bytes().decode("utf-8")


def test_good_dialogues_teach_every_fact_that_may_be_asked_and_put_no_test_question(
    talks: list[Talk], world: World
) -> None:
    good = [talk for talk in talks if not kinds({"plants": talk.plants})]
    languages = Counter(talk.lang for talk in good if talk.exam is None)
    assert abs(languages["zh"] - languages["en"]) <= 1
    for lang in LANGUAGES:
        opened = {(talk.ask.condition.index, talk.ask.attribute) for talk in good if talk.ask and talk.lang == lang}
        asked = {(ask.condition.index, ask.attribute) for ask in asks_in_training(world, lang)}
        assert opened == asked
        held_out = [ask.question for ask, _ in asks_held_out(world, lang)]
        text = "\n".join(talk.text for talk in good if talk.lang == lang)
        assert not [question for question in held_out if question in text]
    cloze = [question["question"] for question in questions(world)]
    text = "\n".join(talk.text for talk in good)
    assert not [question for question in cloze if question in text]
    for talk in good:
        if talk.ask is not None:
            assert talk.ask.value in talk.text


def test_the_demos_size_has_as_many_good_dialogues_as_the_demo_trains_on(world: World) -> None:
    talks = raw_talks(world, count=4600)
    good = [talk for talk in talks if talk.exam is None and not kinds({"plants": talk.plants})]
    assert len(good) >= 2800
    assert len({talk.text for talk in good}) == len(good)


def test_each_kind_is_planted_in_both_languages_and_is_what_it_says(
    truth: list[Json], texts: dict[str, Dialogue], world: World
) -> None:
    found: defaultdict[str, list[Json]] = defaultdict(list)
    for row in truth:
        for plant in row["plants"]:
            found[plant["kind"]].append(row | {"plant": plant})
    assert set(KINDS) <= set(found)
    for kind in set(KINDS) - {"wrong-language", "too-similar"}:
        assert {row["lang"] for row in found[kind]} == {"zh", "en"}, kind
    for row in found["duplicate"]:
        copy, original = (dialogue_text(texts[name].messages) for name in (row["id"], row["plant"]["of"]))
        assert folded(copy) == folded(original)
    assert any(texts[r["id"]].source != texts[r["plant"]["of"]].source for r in found["duplicate"])
    for row in found["near-duplicate"]:
        copy, original = (dialogue_text(texts[name].messages) for name in (row["id"], row["plant"]["of"]))
        assert folded(copy) != folded(original)
        assert row["plant"]["jaccard"] >= 0.8
    known = {question["id"]: question["messages"][0]["content"] for question in exact_match_questions(world)}
    known |= {question["id"]: question["question"] for question in questions(world)}
    for row in found["too-similar"]:
        copy, original = (dialogue_text(texts[name].messages) for name in (row["id"], row["plant"]["of"]))
        assert copy != original
        assert Counter(copy.replace("。", "").split("\n")[1]) == Counter(original.split("\n")[1].replace("。", ""))
        options = [{line[3:] for line in text.split("\n")[2:6]} for text in (copy, original)]
        assert options[0] == options[1]
    for row in found["question"]:
        assert folded(known[row["plant"]["of"]]) in folded(dialogue_text(texts[row["id"]].messages))
    assert {row["plant"]["manner"] for row in found["poor-answer"]} == set(MANNER_KINDS)


def test_the_unsafe_and_the_misshapen_are_dropped_by_the_steps_and_no_good_one_is(
    truth: list[Json], texts: dict[str, Dialogue]
) -> None:
    rows = [row for row in truth if not kinds(row) - {"unsafe", "bad-shape", "refusal"}]
    dialogues = [texts[row["id"]] for row in rows]
    batch = Batch(
        [dialogue.id for dialogue in dialogues],
        [dialogue_text(dialogue.messages) for dialogue in dialogues],
        [row["lang"] for row in rows],
        [dialogue.source for dialogue in dialogues],
        [dialogue.meta for dialogue in dialogues],
        [dialogue.messages for dialogue in dialogues],
    )
    shape = ShapeConfig.model_validate({"lengths": {"least_question": {"zh": 2, "en": 5}}}).build()
    unsafe = UnsafeConfig().build(Resources(None, 0))  # type: ignore[arg-type]  # without a scorer it needs no tokenizer
    dropped = [(bool(one), bool(two)) for one, two in zip(shape(batch).drops, unsafe(batch).drops)]
    for row, found in zip(rows, dropped):
        assert found == (bool(kinds(row) & {"bad-shape", "refusal"}), "unsafe" in kinds(row)), texts[row["id"]]


def test_good_dialogues_fit_the_demos_length(
    truth: list[Json], texts: dict[str, Dialogue], world: World, tmp_path: Path
) -> None:
    documents = (seed["text"] for seed in seed_documents(world, count=600) if seed["label"] == "medical")
    template = get_template("chatml")
    train_from_texts(documents, tmp_path / "t", vocab_size=2048, control_tokens=template.control_tokens)
    encoder = ChatEncoder(template, load_tokenizer(tmp_path / "t"))
    good = [texts[row["id"]].messages for row in truth if not kinds(row)]
    assert max(len(turns.tokens) for turns in encoder.encode_batch(good)) <= 128


def test_the_tiny_recipes_read_these_files_under_the_names_that_the_truth_goes_by(raw: Path) -> None:
    recipes = Path(__file__).resolve().parents[2] / "recipes" / "tiny"
    sft, dpo = load_recipe(recipes / "data_sft.yaml"), load_pairs_recipe(recipes / "data_dpo.yaml")
    found = {source.name: (source.format, source.files) for source in sft.sources}
    assert found == {
        name: (FORMATS.get(name, name), (f"demo/data/{DIRECTORY}/{layout.file}",)) for name, layout in LAYOUTS.items()
    }
    assert dpo.objective is not None
    assert dpo.objective.questions == (f"demo/data/{DIRECTORY}/{LAYOUTS['cmb'].file}",)
    assert dpo.subjective is not None
    assert dpo.subjective.author.model == dpo.subjective.judge.model == MODEL
    assert f"demo/data/{HELD_OUT}" in next(step.questions for step in sft.steps if step.step == "decontaminate")


def test_held_out_questions_are_those_of_the_exact_match(world: World) -> None:
    asked = {record["id"]: record for record in exact_match_questions(world)}
    found = [Question.from_json(record, source_file="q", offset=0) for record in held_out_questions(world)]
    assert {question.id for question in found} == set(asked)
    for question in found:
        (letter,) = question.answer
        record = asked[question.id]
        assert (question.question, question.options[letter]) == (record["messages"][0]["content"], record["answer"])
        assert sorted(question.options.values()) == sorted(record["values"])


def test_seeds_are_other_dialogues_without_test_questions(world: World, talks: list[Talk]) -> None:
    seeds = [Dialogue.from_json(record, source_file="s", offset=0) for record in seed_dialogues(world, count=240)]
    assert len({seed.id for seed in seeds}) == 240
    assert list(map(Dialogue.to_json, seeds)) == list(seed_dialogues(world, count=240))
    said = "\n".join(dialogue_text(seed.messages) for seed in seeds)
    assert not [q for q in exact_match_questions(world) if q["messages"][0]["content"] in said]
    assert not [q for q in questions(world) if q["question"] + continuations(q)[q["answer"][0]] in said]
    assert {seed.lang for seed in seeds} == {"zh", "en"}
