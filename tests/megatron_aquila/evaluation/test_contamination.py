"""Planted questions are all found, with the record that holds them; real text that holds none is left alone."""

import gzip
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from typer.testing import CliRunner

from data_tools.clinic import general_documents, make_world, questions
from data_tools.corpus.decontaminate import DecontaminateConfig, QuestionIndex, question_item
from data_tools.inputs import InputError
from data_tools.publish import sha256_file
from megatron_aquila import cli_contamination
from megatron_aquila.evaluation import contamination as reports
from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.contamination import Contamination, ContaminationError, Settings, find_contamination
from megatron_aquila.evaluation.contamination_scan import training_texts
from megatron_aquila.evaluation.contamination_scores import split_scores
from megatron_aquila.evaluation.results import Evaluation, Item, ModelFacts
from megatron_aquila.evaluation.summary import task_result
from tests.data_tools.corpus.question_oracle import Oracle
from tests.data_tools.corpus.real_texts import chatdoctor, dialogues, medquad, needs_shared, passages

app = typer.Typer()
app.command()(cli_contamination.contamination)


def _lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _documents(path: Path, texts: Sequence[str]) -> Path:
    return _lines(path, [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)])


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def clinic() -> list[dict[str, Any]]:
    """Questions of the synthetic clinic: both languages, some so short that they are looked for whole."""
    found = list(questions(make_world()))
    return random.Random(0).sample(found, 160)


@pytest.fixture(scope="module")
def ordinary() -> list[str]:
    return [record["text"] for _, record in zip(range(300), general_documents())]


def _flagged(report: Contamination, name: str) -> dict[str, int]:
    return {item.id: item.records for item in report.sets[name].items}


def test_a_page_with_forty_questions_flags_all_forty(
    tmp_path: Path, clinic: list[dict[str, Any]], ordinary: list[str]
) -> None:
    held, others = clinic[:40], clinic[40:]
    page = "\n".join(f"{number}. {question['question'].upper()}" for number, question in enumerate(held, 1))
    training = _documents(tmp_path / "web.jsonl.gz", [*ordinary, page])
    report = find_contamination([training], [_lines(tmp_path / "exam.jsonl", clinic)])
    exam = report.sets["exam"]
    short = set(exam.short_ids)
    expected = {question["id"] for question in held} - short
    asked = {question["question"].casefold() for question in held}
    expected |= {question["id"] for question in others if question["question"].casefold() in asked} - short
    assert _flagged(report, "exam") == dict.fromkeys(sorted(expected, key=[q["id"] for q in clinic].index), 1)
    assert len(expected) >= 35
    assert {shown.training_id for item in exam.items for shown in item.evidence} == {"d300"}
    assert {shown.file for item in exam.items for shown in item.evidence} == {"web.jsonl.gz"}
    texts = {question["id"]: question["question"] for question in clinic}
    for item in exam.items:  # 13 words, or 13 characters
        text = texts[item.id]
        tokens = len(text.split()) if text.isascii() else len(re.findall(r"\w", text))
        assert item.evidence[0].part == ("question" if tokens >= 13 else "short question")
    assert (exam.n, exam.flagged, exam.share) == (160, len(expected), len(expected) / 160)
    assert (report.training[0].files[0].records, report.training[0].files[0].holding) == (301, 1)


def test_all_of_equal_questions_are_flagged(tmp_path: Path) -> None:
    """The kernel keeps the first of equal patterns; each of the items is held nevertheless."""
    stems = [
        "哪种药物治疗罗瓦病",
        "哪种药物治疗罗瓦病？",
        "Which of the listed drugs would a doctor usually give for Lowa disease?",
    ]
    rows = [
        {"id": f"{number}-{copy}", "question": stem, "options": {"A": f"甲{copy}号药片", "B": "乙"}, "answer": ["A"]}
        for number, stem in enumerate(stems)
        for copy in range(12)  # more than `common`
    ]
    training = _documents(tmp_path / "t.jsonl", [f"前文。{stems[0]}？后文。", f"Before. {stems[2]} After."])
    settings = Settings(options_alone=True)
    report = find_contamination([training], [_lines(tmp_path / "q.jsonl", rows)], settings)
    assert _flagged(report, "q") == {row["id"]: 1 for row in rows}


def test_every_match_is_that_of_a_plain_matcher(clinic: list[dict[str, Any]], ordinary: list[str]) -> None:
    """Each question alone, by the slow oracle of the corpus tests, in texts of up to six questions."""
    generator = random.Random(1)
    asked = list({question["question"]: question["id"] for question in clinic[:40]}.items())
    texts = []
    for text in ordinary[:25]:
        planted = [question for question, _ in generator.sample(asked, generator.randrange(7))]
        ends = [generator.choice((len(question), generator.randrange(len(question)))) for question in planted]
        cut = [question[:end] for question, end in zip(planted, ends)]
        texts.append("\n".join([text[:200], *cut]))
    config = DecontaminateConfig(questions=("unused",), parts=("question",), common=1000)
    index = QuestionIndex(config, [question_item({"id": key, "question": question}, "") for question, key in asked])
    found = {(one.text, one.pattern.item): (round(one.ratio, 9), list(one.span)) for one in index.all(texts)}
    limits = {"words": config.words, "characters": config.characters}
    expected = {}
    for item, (question, key) in enumerate(asked):
        oracle = Oracle({key: question}, limits, 1000)
        for place, text in enumerate(texts):
            if match := oracle.find(text):
                expected[place, item] = (round(match[2], 9), match[1])
    assert found == expected
    assert len(found) > 30
    assert max(len([key for key in found if key[0] == place]) for place in range(25)) > 2
    patterns, ratios, _ = index.best(texts)
    for place, pattern in enumerate(patterns.tolist()):
        if pattern >= 0 and ratios[place] >= 0.5:
            assert found[place, index.patterns[pattern].item][0] == round(float(ratios[place]), 9)


def test_dialogues_pairs_and_questions_are_read_whole(tmp_path: Path, clinic: list[dict[str, Any]]) -> None:
    texts = [q["question"] for q in clinic if len(q["question"]) > 30][:4]
    held = [question for question in clinic if question["question"] in texts]
    training = _lines(
        tmp_path / "mixed.jsonl",
        [
            {"id": "dialogue", "messages": [_user("Hello."), _assistant("Hi."), _user(texts[0]), _assistant("A.")]},
            {"id": "pair", "prompt": [_user(texts[1])], "chosen": [_assistant("B")], "rejected": [_assistant("C")]},
            {
                "id": "answer",
                "prompt": [_user("Tell me more.")],
                "chosen": [_assistant("No.")],
                "rejected": [_assistant(f"You ask: {texts[2]}")],
            },
            {"id": "exam", "question": texts[3], "options": {"A": "x", "B": "y"}, "answer": ["A"]},
        ],
    )
    report = find_contamination([training], [_lines(tmp_path / "q.jsonl", clinic)])
    by_text = {question["id"]: question["question"] for question in held}
    where = {by_text[item.id]: item.evidence[0].training_id for item in report.sets["q"].items if item.id in by_text}
    assert where == dict(zip(texts, ("dialogue", "pair", "answer", "exam")))
    # The prompt stands in both texts of a pair; it is one record nevertheless.
    assert all(item.records == 1 for item in report.sets["q"].items)


def test_options_need_their_question_unless_said_otherwise(tmp_path: Path) -> None:
    options = {"A": "diabetic ketoacidosis", "B": "acute pancreatitis", "C": "bacterial meningitis", "D": "renal colic"}
    question = "A man of 54 years has had pain and vomiting since the morning; what is the most likely cause?"
    rows = [{"id": "q", "question": question, "options": options, "answer": ["B"]}]
    training = _documents(tmp_path / "t.jsonl", ["What fits a high lipase best? " + "; ".join(options.values())])
    exam = _lines(tmp_path / "exam.jsonl", rows)
    assert find_contamination([training], [exam]).sets["exam"].flagged == 0
    found = find_contamination([training], [exam], Settings(options_alone=True)).sets["exam"]
    assert found.parts == {"options": 1}


def test_a_textbook_sentence_is_not_the_question_that_it_answers(tmp_path: Path) -> None:
    answer = "肾上腺素能使支气管平滑肌松弛并收缩支气管黏膜血管"
    options = {"A": answer, "B": "肾上腺素使心率减慢"}
    exam = _lines(
        tmp_path / "exam.jsonl", [{"id": "q", "question": "下列叙述正确的是", "options": options, "answer": ["A"]}]
    )
    training = _documents(tmp_path / "t.jsonl", [f"药理学：{answer}，因此用于哮喘。"])
    assert find_contamination([training], [exam]).sets["exam"].flagged == 0
    assert find_contamination([training], [exam], Settings(options_alone=True)).sets["exam"].parts == {"answer": 1}


def test_short_turns_of_dialogue_sets_are_what_everybody_says(tmp_path: Path) -> None:
    long = "孩子三岁半，昨天夜里开始发烧，最高三十九度二，还一直咳嗽，吃了布洛芬退不下来怎么办？"
    answer = "建议先做血常规和胸片检查，如果白细胞升高再考虑使用抗生素，同时注意补充水分并观察精神状态。"
    case = "患者男，五十四岁，反复上腹部疼痛三年，加重两天，伴有恶心呕吐，既往有十二指肠溃疡病史。"
    thanks = {"user": "谢谢医生，我知道了", "reference": "不客气"}
    rows = [
        {"id": "asked", "lang": "zh", "rounds": [{"user": long, "reference": None}, thanks]},
        {"id": "thanks", "lang": "zh", "rounds": [thanks]},
        {"id": "told", "lang": "zh", "rounds": [{"user": "怎么办呢医生", "reference": answer}]},
        {"id": "case", "lang": "zh", "case": case, "rounds": [{"user": "可能的诊断是什么？", "reference": None}]},
    ]
    training = _documents(tmp_path / "t.jsonl", [long, "谢谢医生，我知道了", f"医生：{answer}", case, "怎么办呢医生"])
    report = find_contamination([training], [_lines(tmp_path / "set.jsonl", rows)])
    found = report.sets["set"]
    assert {item.id: item.evidence[0].part for item in found.items} == {
        "asked": "question",
        "told": "answer",
        "case": "case",
    }
    assert found.short_ids == ("thanks",)


def test_evidence_is_the_clearest_and_short_and_holds_no_private_value(tmp_path: Path) -> None:
    text = (
        "A woman of 67 years with a mobile number of 13812345678 has noticed over the last three weeks that her left "
        "arm becomes weak when she hangs out the washing; which investigation should be done first in this patient?"
    )
    half = text[: int(len(text) * 0.75)]
    exam = _lines(
        tmp_path / "exam.jsonl",
        [{"id": "q", "question": text, "options": {"A": "Doppler", "B": "none"}, "answer": ["A"]}],
    )
    training = _documents(tmp_path / "t.jsonl", [half, "Nothing.", f"Read: {text}", half, half])
    item = find_contamination([training], [exam]).sets["exam"].items[0]
    assert item.records == 4
    assert [shown.training_id for shown in item.evidence] == ["d2", "d0", "d3"]
    assert item.evidence[0].ratio == 1 > item.evidence[1].ratio >= 0.5
    for shown in item.evidence:
        assert len(shown.excerpt) <= 160
        assert "A woman of 67 years" in shown.excerpt and "13812345678" not in shown.excerpt


def _published(directory: Path, noun: str, names: dict[str, list[dict[str, Any]]]) -> Path:
    files = {name: _lines(directory / name, rows) for name, rows in names.items()}
    facts = {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in sorted(files.items())}
    manifest = {"format": noun, "files": facts} | ({"noun": noun} if noun != "pairs" else {})
    (directory / "manifest.json").write_bytes(orjson.dumps(manifest))
    return directory


def test_of_published_data_what_is_trained_on_is_read(tmp_path: Path, clinic: list[dict[str, Any]]) -> None:
    first, second, third = [question for question in clinic if len(question["question"]) > 25][:3]
    corpus = _published(
        tmp_path / "corpus",
        "documents",
        {
            "documents/stage1/web-00000.jsonl": [{"id": "w", "text": first["question"]}],
            "quarantine.jsonl": [{"id": "x", "text": third["question"]}],
        },
    )
    pairs = _published(
        tmp_path / "pairs",
        "pairs",
        {
            f"pairs_{part}.jsonl": [
                {"id": part, "prompt": [_user(text)], "chosen": [_assistant("a")], "rejected": [_assistant("b")]}
            ]
            for part, text in (("train", second["question"]), ("valid", third["question"]))
        },
    )
    exam = _lines(tmp_path / "exam.jsonl", clinic)
    report = find_contamination([corpus, pairs], [exam])
    texts = {q["id"]: q["question"] for q in clinic}
    assert {texts[item.id] for item in report.sets["exam"].items} == {first["question"], second["question"]}
    assert [source.digest for source in report.training] == [sha256_file(p / "manifest.json") for p in (corpus, pairs)]
    assert report.training[0].files[0].path == "documents/stage1/web-00000.jsonl"
    assert find_contamination([corpus], [exam]).digest == report.training[0].digest
    (corpus / "documents/stage1/web-00000.jsonl").write_text("{}")
    with pytest.raises(ContaminationError, match=r"web-00000.jsonl is not what .*manifest.json says"):
        find_contamination([corpus], [exam])


def test_files_without_a_manifest_are_named_by_their_content(tmp_path: Path, clinic: list[dict[str, Any]]) -> None:
    exam = _lines(tmp_path / "exam.jsonl", clinic[:5])
    folder = tmp_path / "data"
    _documents(folder / "a.jsonl", ["one"])
    _documents(folder / "b" / "c.jsonl.gz", ["two"])
    before = find_contamination([folder], [exam], workers=2)
    assert [file.path for file in before.training[0].files] == ["a.jsonl", "b/c.jsonl.gz"]
    assert before == find_contamination([folder], [exam])
    _documents(folder / "a.jsonl", ["three"])
    assert find_contamination([folder], [exam]).digest != before.digest


def test_what_cannot_be_read_is_said(tmp_path: Path, clinic: list[dict[str, Any]]) -> None:
    exam = _lines(tmp_path / "exam.jsonl", clinic[:5])
    mixed = _lines(tmp_path / "mixed.jsonl", [{"id": "d", "text": "fine"}, {"id": "e"}, {"messages": []}])
    file = find_contamination([mixed], [exam]).training[0].files[0]
    assert (file.records, sum(file.unreadable.values())) == (1, 2)
    with pytest.raises(ContaminationError, match="holds no document, dialogue, pair or question"):
        find_contamination([_lines(tmp_path / "raw.jsonl", [{"instruction": "x"}])], [exam])
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(_documents(tmp_path / "whole.jsonl.gz", ["some text " * 50] * 200).read_bytes()[:-40])
    with pytest.raises(ContaminationError, match=r"cut\.jsonl\.gz cannot be read to its end"):
        find_contamination([cut], [exam])
    with pytest.raises(InputError):
        find_contamination([tmp_path / "missing.jsonl"], [exam])
    with pytest.raises(ContaminationError, match="there is no file of questions"):
        find_contamination([mixed], [tmp_path / "none.jsonl"])


def test_a_directory_of_sets_gives_the_splits_that_are_scored(tmp_path: Path) -> None:
    def question(key: str, text: str, subject: str) -> dict[str, Any]:
        options = {"A": "first", "B": "second"}
        return {"id": key, "question": text, "options": options, "answer": ["A"], "meta": {"subject": subject}}

    long = "Which of the cranial nerves leaves the brain stem on its dorsal side and then crosses to the other?"
    data = tmp_path / "data"
    _lines(data / "mmlu" / "test.jsonl", [question("t0", long, "anatomy"), question("t1", "Other?", "college_biology")])
    _lines(data / "mmlu" / "dev.jsonl", [question("d0", "A shown example of what is asked here?", "anatomy")])
    _lines(data / "own" / "held_out.jsonl", [question("h0", long, "x")])
    _lines(data / "own" / "train.jsonl", [question("h1", long, "x")])
    report = find_contamination([_documents(tmp_path / "t.jsonl", [long])], [data])
    assert {name: found.flagged for name, found in report.sets.items()} == {"mmlu/test": 1, "own/held_out": 1}
    tasks = {name: (found.n, found.flagged) for name, found in report.tasks.items()}
    assert tasks == {"aqm_mmlu_anatomy": (1, 1), "aqm_mmlu_college_biology": (1, 0)}
    with pytest.raises(ContaminationError, match="holds no evaluation set"):
        find_contamination([tmp_path / "t.jsonl"], [tmp_path / "data" / "mmlu"])


@pytest.fixture
def scored(tmp_path: Path, clinic: list[dict[str, Any]]) -> tuple[Path, Path, Path]:
    """Training data that holds the first 60 questions, all questions, and an evaluation that is right on the first."""
    exam = _lines(tmp_path / "exam.jsonl", clinic)
    training = _documents(tmp_path / "t.jsonl", [question["question"] for question in clinic[:60]])
    items = [
        Item(id=q["id"], cluster=q["id"], right=n < 60 or n % 4 == 0, answer=("A",), said=("A",))
        for n, q in enumerate(clinic)
    ]
    task = task_result(
        items, group=None, shots=0, kind="log-likelihood", data=sha256_file(exam), prompt="p", metrics={}
    )
    facts = {"path": "", "kind": "checkpoint", "digest": "", "step": 1, "backend": "aquila", "layout": "tp1"}
    model = ModelFacts(name="m", precision="fp32", chat_template=None, **facts)  # type: ignore[arg-type]
    tasks = {"exam": task, "other": task.model_copy(update={"data": "of another file"})}
    made = Evaluation(model=model, suite=None, seed=0, tasks=tasks, groups={}, versions={}, began="", seconds=0)
    results.write(tmp_path / "evaluation", made, {"exam": items, "other": items})
    return training, exam, tmp_path / "evaluation"


def test_scores_with_and_without_what_was_trained_on(scored: tuple[Path, Path, Path], tmp_path: Path) -> None:
    training, exam, evaluation = scored
    report = find_contamination([training], [exam])
    (row,) = split_scores(evaluation, report)
    held = {item.id for item in report.sets["exam"].items}
    items = results.read_items(evaluation, "exam")
    flagged = [item.right for item in items if item.id in held]
    assert (row.flagged.n, row.flagged.right) == (len(flagged), sum(flagged))
    assert row.clean.n + row.flagged.n == 160
    assert row.difference == pytest.approx(sum(flagged) / len(flagged) - row.clean.right / row.clean.n)
    assert row.verdict == "better" and row.interval is not None and row.interval.low > 0.3
    unlike = {"id": "1", "question": "Is it?", "options": {"A": "1", "B": "2"}, "answer": ["A"]}
    other = find_contamination([training], [_lines(tmp_path / "else.jsonl", [unlike])])
    with pytest.raises(ContaminationError, match="of other questions"):
        split_scores(evaluation, other)
    clean = find_contamination([_documents(tmp_path / "clean.jsonl", ["nothing"])], [exam])
    (row,) = split_scores(evaluation, clean)
    assert (row.flagged.n, row.flagged.accuracy, row.difference, row.verdict) == (0, None, None, None)


def test_the_command(scored: tuple[Path, Path, Path], tmp_path: Path) -> None:
    training, exam, evaluation = scored
    report = tmp_path / "report.json"
    arguments = [str(training), "--data", str(exam), "--output", str(report), "--evaluation", str(evaluation)]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert "Evaluation items in the training data" in found.output and "flagged items" in found.output
    assert reports.read_report(report) == find_contamination([training], [exam])
    assert CliRunner().invoke(app, [*arguments, "--fail-above", "0.9"]).exit_code == 0
    failed = CliRunner().invoke(app, [*arguments, "--fail-above", "0.1"])
    assert failed.exit_code == 1 and "more than 10.00% of exam stands in the training data" in failed.output
    report.write_text(json.dumps({"format": 1}))
    with pytest.raises(ContaminationError, match="is not a contamination report"):
        reports.read_report(report)
    with pytest.raises(ContaminationError, match="make it with"):
        reports.read_report(tmp_path / "none.json")


@needs_shared
def test_real_text_flags_what_was_planted_and_nothing_else(tmp_path: Path, clinic: list[dict[str, Any]]) -> None:
    """Chinese and English dialogues, NIH answers and passages of books; then with real questions in them."""
    texts = [*dialogues()[-3000:], *chatdoctor()[:1000], *medquad()[:800], *passages()[::20]]
    exam = _lines(tmp_path / "exam.jsonl", clinic)
    assert find_contamination([_documents(tmp_path / "real.jsonl", texts)], [exam]).sets["exam"].flagged == 0
    # Real questions, asked of the other half of the same sources: each is planted in one record.
    asked = [text for text in dict.fromkeys(text.partition("\n")[0] for text in dialogues()[-150:]) if len(text) > 12]
    options = {"A": "是", "B": "否"}
    real = [{"id": f"r{n}", "question": q, "options": options, "answer": ["A"]} for n, q in enumerate(asked)]
    others = [text for text in texts if not any(question in text for question in asked)]
    hosts = {f"r{n}": 10 * n for n in range(len(real))}
    planted = list(others)
    for row in real:
        planted[hosts[row["id"]]] += f"\n{row['question']}"
    report = find_contamination([_documents(tmp_path / "p.jsonl", planted)], [_lines(tmp_path / "r.jsonl", real)])
    found = {item.id: {shown.training_id for shown in item.evidence} for item in report.sets["r"].items}
    assert found.keys() == hosts.keys() - set(report.sets["r"].short_ids)
    assert len(found) > 60
    assert all(f"d{hosts[key]}" in where for key, where in found.items())


def test_what_a_training_record_may_be() -> None:
    assert training_texts({"text": "a"}) == ["a"]
    assert training_texts({"messages": [_user("a"), _assistant("b")]}) == ["a\nb"]
    pair = {"prompt": [_user("a")], "chosen": [_assistant("b")], "rejected": [_assistant("c")]}
    assert training_texts(pair) == ["a\nb", "a\nc"]
