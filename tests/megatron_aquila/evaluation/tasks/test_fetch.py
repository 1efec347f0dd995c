"""From files as published to records: every layout, exact counts, and what is refused in which words."""

from __future__ import annotations

import functools
import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.evaluation.tasks import archives
from megatron_aquila.evaluation.tasks.data import EvaluationDataError, load_split, verify
from megatron_aquila.evaluation.tasks.fetch import fetch
from megatron_aquila.evaluation.tasks.sources.chinese import draw
from megatron_aquila.evaluation.tasks.sources.subjects import CEVAL_VAL, MMLU_TEST
from tests.megatron_aquila.evaluation.tasks import published


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(EvaluationDataError) as caught:
        fetch(*args, **options)
    return str(caught.value)


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                package.write(path, path.relative_to(folder).as_posix())
    return archive


def test_ceval_has_113_questions(tmp_path: Path) -> None:
    published.ceval(tmp_path / "files", CEVAL_VAL.__getitem__)
    done = fetch("ceval", str(zipped(tmp_path / "files", tmp_path / "ceval-exam.zip")), tmp_path / "data")
    assert done.splits == {"dev": 20, "val": 113}
    rows = load_split(tmp_path / "data", "ceval", "val", subject="physician", rows=49)
    row = published.choice("physician val", 3)
    assert rows[3] == {
        "id": "physician-val-3",
        "question": row["question"],
        "options": {letter: row[letter] for letter in "ABCD"},
        "answer": [row["answer"]],
        "explanation": "因为",
        "source": "ceval",
        "split": "val",
        "meta": {"cluster": "physician-val-3", "subject": "physician"},
    }
    assert verify(tmp_path / "data") == []


def test_other_counts_are_refused_and_may_be_asked_for(tmp_path: Path) -> None:
    published.ceval(tmp_path / "files", lambda subject: 18 if subject == "physician" else CEVAL_VAL[subject])
    said = refusal("ceval", str(tmp_path / "files"), tmp_path / "data")
    assert said.startswith("physician_val.csv: 18 rows in val of physician where the published file has 49: ")
    assert not (tmp_path / "data" / "ceval").exists()
    fetch("ceval", str(tmp_path / "files"), tmp_path / "data", any_rows=True)
    manifest = json.loads((tmp_path / "data" / "ceval" / "manifest.json").read_text())
    assert manifest["any_rows"] is True and manifest["splits"]["val"]["rows"] == 82
    assert len(load_split(tmp_path / "data", "ceval", "val", subject="physician", rows=49)) == 18


def test_mmlu_as_csv_and_as_parquet_are_the_same(tmp_path: Path) -> None:
    published.mmlu(tmp_path / "csv", MMLU_TEST.__getitem__)
    for subject in MMLU_TEST:
        for split, count in (("dev", 5), ("test", MMLU_TEST[subject])):
            rows = [published.choice(f"{subject} {split}", n) for n in range(count)]
            shaped = [
                {
                    "question": row["question"],
                    "subject": subject,
                    "choices": [row[letter] for letter in "ABCD"],
                    "answer": "ABCD".index(row["answer"]),
                }
                for row in rows
            ]
            published.write_parquet(tmp_path / "parquet" / subject / f"{split}-00000-of-00001.parquet", shaped)
    for form in ("csv", "parquet"):
        assert fetch("mmlu", str(tmp_path / form), tmp_path / f"from_{form}").splits == {"dev": 30, "test": 1089}
    for split in ("dev", "test"):
        texts = [(tmp_path / f"from_{form}" / "mmlu" / f"{split}.jsonl").read_bytes() for form in ("csv", "parquet")]
        assert texts[0] == texts[1]


def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    published.ceval(tmp_path, CEVAL_VAL.__getitem__)
    path = tmp_path / "val" / "physician_val.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    header, row = lines[0], lines[4].split(",")
    path.write_text("\n".join([header, *lines[1:4], ",".join([*row[:-2], "E", row[-1]])]), encoding="utf-8")
    said = refusal("ceval", str(tmp_path), tmp_path / "data")
    assert said == f"{path}, line 5: 'answer' must list letters out of ['A', 'B', 'C', 'D'], it is ['E']"
    path.write_text("\n".join([header, *lines[1:4], "1,2,3"]), encoding="utf-8")
    assert refusal("ceval", str(tmp_path), tmp_path / "data") == f"{path}, line 5: 3 fields where the header has 8"


def test_medqa_forms(tmp_path: Path) -> None:
    published.medqa(tmp_path / "authors", 6, 8)
    for split, count in (("test", 6), ("train", 8)):
        rows = [published.choice(f"medqa {split}", n) for n in range(count)]
        shaped = [
            {
                "id": str(n),
                "sent1": row["question"],
                "sent2": "",
                **{f"ending{k}": row[letter] for k, letter in enumerate("ABCD")},
                "label": "ABCD".index(row["answer"]),
            }
            for n, row in enumerate(rows)
        ]
        published.write_jsonl(tmp_path / "hf" / f"{split}.json", shaped)
    for form in ("authors", "hf"):
        fetch("medqa", str(tmp_path / form), tmp_path / f"from_{form}", any_rows=True)
    assert load_split(tmp_path / "from_hf", "medqa", "test") == load_split(tmp_path / "from_authors", "medqa", "test")
    said = refusal("medqa", str(tmp_path / "hf"), tmp_path / "data")
    assert said.startswith("train.json: 8 rows in train where the published file has 10,178")
    five = {"question": "q", "options": dict.fromkeys("ABCDE", "x"), "answer_idx": "A"}
    published.write_jsonl(tmp_path / "five" / "test.jsonl", [five])
    assert "5 options where this task has 4" in refusal("medqa", str(tmp_path / "five"), tmp_path / "data")


@pytest.mark.parametrize("first", [0, 1])
def test_medmcqa_counts_from_0_or_1(tmp_path: Path, first: int) -> None:
    rows = published.medmcqa_rows("validation", 40, first)
    published.write_jsonl(tmp_path / "dev.json", rows)
    done = fetch("medmcqa", str(tmp_path), tmp_path / "data", any_rows=True)
    assert done.notes == (f"dev.json: cop counts from {first}",)
    right = [record["answer"] for record in load_split(tmp_path / "data", "medmcqa", "validation")]
    assert right == [[published.choice("medmcqa validation", n)["answer"]] for n in range(40)]


def test_medmcqa_where_the_numbers_do_not_tell(tmp_path: Path) -> None:
    rows = [row for row in published.medmcqa_rows("validation", 40, 0) if row["cop"] in (1, 2)]
    published.write_jsonl(tmp_path / "dev.json", rows)
    said = refusal("medmcqa", str(tmp_path), tmp_path / "data", any_rows=True)
    assert "'cop' takes the values [1, 2]" in said and said.endswith("say which with --cop-base")
    fetch("medmcqa", str(tmp_path), tmp_path / "data", any_rows=True, cop_base=1)
    found = {record["answer"][0] for record in load_split(tmp_path / "data", "medmcqa", "validation")}
    assert found == {"A", "B"}
    published.write_jsonl(tmp_path / "dev.json", [{**row, "cop": -1} for row in rows])
    assert "labels" in refusal("medmcqa", str(tmp_path), tmp_path / "data", any_rows=True)


def test_cmb_exam(tmp_path: Path) -> None:
    """The zip beside the answers, as in the repository; answers that do not belong to the questions are refused."""
    published.cmb_exam(tmp_path / "files", 6, 4)
    inside = tmp_path / "files" / "CMB-Exam"
    (tmp_path / "repository" / "data").mkdir(parents=True)
    zipped(inside.parent, tmp_path / "repository" / "data" / "CMB.zip")
    with zipfile.ZipFile(tmp_path / "repository" / "data" / "CMB.zip", "a") as package:
        package.writestr("__MACOSX/._CMB-val-merge.json", b"\0\5\x16\7")
    answers = tmp_path / "repository" / "data" / "CMB-test-choice-answer.json"
    answers.write_bytes((tmp_path / "files" / "CMB-test-choice-answer.json").read_bytes())
    fetch("cmb_exam", str(tmp_path / "repository"), tmp_path / "data", any_rows=True)
    rows = load_split(tmp_path / "data", "cmb_exam", "test")
    assert [row["answer"] for row in rows] == [list("ACD"), ["B"], ["C"], list("ACD"), ["A"], ["B"]]
    assert rows[0]["options"]["A"] == "钙" and rows[1]["meta"]["subject"] == "医师考试/执业医师"
    assert len(load_split(tmp_path / "data", "cmb_exam", "val")) == 4
    key = json.loads(answers.read_text(encoding="utf-8"))
    published.write_json(answers, key[:-1])
    said = refusal("cmb_exam", str(tmp_path / "repository"), tmp_path / "data", any_rows=True)
    assert "CMB-test-choice-answer.json has no answer to the id 6" in said
    assert said.startswith(f"{tmp_path}/repository/CMB.zip/CMB-Exam/CMB-test/")
    published.write_json(answers, [*key[:-1], {**key[-1], "question_type": "多项选择题"}])
    assert "different versions" in refusal("cmb_exam", str(tmp_path / "repository"), tmp_path / "data", any_rows=True)


def test_dialogue_sets(tmp_path: Path) -> None:
    turns = [["您好，我头疼。", "多久了？"], ["三天。", "发烧吗？"]]
    dialogue = {
        "id": "j1",
        "cate1": "内科",
        "cate2": "神经",
        "instruction": "不发烧。",
        "input": "",
        "output": "休息。",
    }
    rows = [
        {**dialogue, "history": turns},
        {**dialogue, "history": []},
        {"instruct": " 被诅咒了？", "output": " 不是。"},
    ]
    published.write_json(tmp_path / "CMtMedQA_test.json", rows)
    done = fetch("cmtmedqa", str(tmp_path / "CMtMedQA_test.json"), tmp_path / "data", any_rows=True)
    assert done.splits == {"test": 2, "safety": 1} and done.notes == ("4 rounds in 2 dialogues",)
    assert done.files[0].as_published is False
    first = load_split(tmp_path / "data", "cmtmedqa", "test")[0]
    said = [*turns, ["不发烧。", "休息。"]]
    assert first["rounds"] == [{"user": user, "reference": reference} for user, reference in said]
    assert load_split(tmp_path / "data", "cmtmedqa", "safety")[0]["rounds"] == [
        {"user": "被诅咒了？", "reference": "不是。"}
    ]
    case = {"id": 0, "title": "疝", "description": "病史", "QA_pairs": [{"question": "诊断？", "solution": "疝。"}]}
    published.write_json(tmp_path / "clin" / "CMB-Clin-qa.json", [case])
    fetch("cmb_clin", str(tmp_path / "clin"), tmp_path / "data", any_rows=True)
    (clin,) = load_split(tmp_path / "data", "cmb_clin", "test")
    assert clin["case"] == "病史" and clin["rounds"] == [{"user": "诊断？", "reference": "疝。"}]


def test_the_draw_of_huatuo_goes_by_content(tmp_path: Path) -> None:
    rows = [{"id": "", "instruction": [f"问{n}？"], "input": "", "output": [f"答{n}。"]} for n in range(600)]
    drawn = []
    for name, order in (("one", rows), ("other", rows[::-1])):
        published.write_json(tmp_path / name / "huatuo26M_test.json", order)
        fetch("huatuo", str(tmp_path / name), tmp_path / f"{name}_data", any_rows=True)
        drawn.append(load_split(tmp_path / f"{name}_data", "huatuo", "test"))
    assert drawn[0] == drawn[1] and len(drawn[0]) == 500
    assert draw(drawn[0], 100, seed=1) != draw(drawn[0], 100, seed=0)


def test_what_changed_since_is_named(tmp_path: Path) -> None:
    published.clinic(tmp_path / "demo")
    fetch("clinic", str(tmp_path / "demo"), tmp_path / "data")
    path = tmp_path / "data" / "clinic" / "cloze.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"en-", b"en_", 1))
    assert verify(tmp_path / "data") == [f"{path} has changed since it was fetched: its SHA-256 is not the manifest's"]
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    assert verify(tmp_path / "data")[1] == f"{path} has 1 rows where the manifest has 6"
    path.unlink()
    (path.parent / "more.jsonl").write_text("{}")
    assert verify(tmp_path / "data", ["clinic"]) == [
        f"{path} is missing",
        f"{path.parent / 'more.jsonl'} is not in the manifest",
    ]
    with pytest.raises(EvaluationDataError, match="holds no evaluation set"):
        verify(tmp_path / "nothing")


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A mirror on this machine: its address and its directory."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    (tmp_path / "mirror").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "mirror"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path / "mirror"
        server.shutdown()


def test_mirrors(mirror: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = mirror
    said = refusal("pubmedqa", f"{address}/none", tmp_path / "data")
    assert (
        said == f"{address}/none has none of the layouts of pubmedqa: not found are data/ori_pqal.json, ori_pqal.json"
    )
    published.pubmedqa(folder / "data", 20, 8)
    done = fetch("pubmedqa", address, tmp_path / "data", any_rows=True)
    assert done.splits == {"test": 8, "train": 12}
    assert json.loads((tmp_path / "data/pubmedqa/manifest.json").read_text())["from"] == address
    fetch("pubmedqa", str(folder), tmp_path / "local", any_rows=True)
    for split in ("test", "train"):
        name = f"pubmedqa/{split}.jsonl"
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    said = refusal("pubmedqa", address, tmp_path / "data", max_bytes=1000)
    assert said == f"{address}/data/ori_pqal.json is larger than 1,000 bytes: it is not taken"
    zipped(folder / "data", folder / "all.zip")
    assert fetch("pubmedqa", f"{address}/all.zip", tmp_path / "zip", any_rows=True).splits == done.splits
    (folder / "data" / "test_ground_truth.json").write_text("{")
    said = refusal("pubmedqa", address, tmp_path / "data", any_rows=True)
    assert said.startswith(f"{address}/data/test_ground_truth.json is not JSON")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".locks", "pubmedqa"]  # nothing left over


def test_only_http_is_read(tmp_path: Path) -> None:
    assert "an address of http or https" in refusal("mmlu", "file:///etc", tmp_path / "data")
    assert refusal("mmlu", str(tmp_path / "no"), tmp_path / "data").startswith("there is nothing at ")
    assert refusal("nonsense", str(tmp_path), tmp_path / "data").startswith("there is no set 'nonsense': choose out of")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside", "C:/x", "a\\b"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_stay_inside(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as package:
            package.writestr(name, "x")
    else:
        with tarfile.open(archive, "w") as bundle:
            bundle.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(EvaluationDataError, match="would lie outside the directory"):
        archives.unpack(archive, tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "evil.tar", "w") as bundle:
        bundle.addfile(member)
    with pytest.raises(EvaluationDataError, match="link or a device"):
        archives.unpack(tmp_path / "evil.tar", tmp_path / "target")
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as package:
        package.writestr(entry, "/etc/passwd")
    with pytest.raises(EvaluationDataError, match="link or a device"):
        archives.unpack(tmp_path / "evil.zip", tmp_path / "target")


def test_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("zeros", bytes(20 << 20))
    assert bomb.stat().st_size * archives.MAX_RATIO < 20 << 20
    with pytest.raises(EvaluationDataError, match="unpacks to more than"):
        archives.unpack(bomb, tmp_path / "target")
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bomb.read_bytes()[:5000])
    with pytest.raises(EvaluationDataError, match="cannot be unpacked"):
        archives.unpack(damaged, tmp_path / "target")
