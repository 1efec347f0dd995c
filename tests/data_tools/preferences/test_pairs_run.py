"""Whole runs: author and judge are a rule behind a real server on loopback."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset
from tokenizers import Tokenizer

from data_tools.causal_model import CausalSettings
from data_tools.inputs import InputError, RunError
from data_tools.preferences.choices import choice_of
from data_tools.preferences.likely import LikelyWrong
from data_tools.preferences.objective import ObjectiveConfig, question_member
from data_tools.preferences.run import build_pairs, plan_pairs
from data_tools.preferences.strata import Member
from data_tools.publish import BusyError, exclusive, sha256_file
from tests.data_tools.chat_samples import chat_tokenizer
from tests.data_tools.llm_server import LanguageModelServer, asked_to_compare, verdict
from tests.data_tools.preferences.pairs_world import (
    PHONE,
    dialogues,
    judged,
    merit,
    questions,
    read,
    recipe,
    results,
    rule,
    texts_sent,
    write,
)
from tests.data_tools.small_causal import small_causal_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def world(tmp_path: Path, tokenizer: Path) -> Path:
    write(tmp_path / "dialogues.jsonl", dialogues())
    write(tmp_path / "questions.jsonl", questions())
    (tmp_path / "tokenizer").symlink_to(tokenizer)
    return tmp_path


def bodies(server: LanguageModelServer) -> Counter[str]:
    return Counter(json.dumps(body, sort_keys=True) for body in server.answered)


def dropped(funnel: dict[str, Any]) -> dict[tuple[str, str], Counter[str]]:
    found: dict[tuple[str, str], Counter[str]] = {}
    for kind in funnel["kinds"]:
        for step in kind["steps"]:
            for row in step["dropped"]:
                found.setdefault((kind["kind"], step["name"]), Counter())[row["reason"]] += row["count"]
    return found


def test_pairs_from_dialogues_and_questions(world: Path) -> None:
    write(world / "dialogues.jsonl", dialogues(), extra="{broken\n\n")
    with LanguageModelServer(rule=rule) as server:
        made = recipe(world, server)
        plan = plan_pairs(made)
        assert not server.calls
        funnel = build_pairs(made).funnel
        assert plan.least is not None
        assert plan.most is not None
        for model in ("author", "judge"):
            called = sum(body["model"] == model for body in server.calls)
            assert getattr(plan.least, model).calls <= called <= getattr(plan.most, model).calls
            assert funnel["accounts"][model]["calls"] == called
    out = world / "out"
    sides = {side: read(out / f"pairs_{side}.jsonl") for side in ("train", "valid")}
    pairs = [pair for side in sides.values() for pair in side]
    assert Counter(pair["kind"] for pair in pairs) == {"subjective": 30, "objective": 15}
    assert Counter(pair["kind"] for pair in sides["valid"]) == {"subjective": 6, "objective": 3}
    assert len({pair["id"] for pair in pairs}) == 45

    # As many of each source and language as there are among the dialogues that are no exam questions: 81.
    groups = Counter((one["source"], one["lang"]) for one in dialogues() if one["meta"]["kind"] == "qa")
    for group, count in Counter((p["source"], p["lang"]) for p in pairs if p["kind"] == "subjective").items():
        assert abs(count - 30 * groups[group] / 81) < 1

    given = {one["id"]: one["messages"] for one in dialogues()}
    exam = {one["id"]: one for one in questions()}
    for pair in pairs:
        chosen, rejected = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        origin = pair["meta"]["of"]
        if pair["kind"] == "objective":
            assert pair["id"] == f"objective-{origin}"
            assert "".join(exam[origin]["answer"]) in chosen
            assert len(pair["meta"]["wrong"]) == 1 or pair["meta"]["right"] == "AC"
            assert chosen.replace(f"答案是{pair['meta']['right']}", f"答案是{pair['meta']['wrong']}") == rejected
            continue
        assert merit(chosen) > merit(rejected), "what both orders of the judge name"
        assert judged(chosen, rejected) == "first"
        assert judged(rejected, chosen) == "second"
        if origin != "d1":
            assert pair["prompt"] == given[origin][:-1]
        assert given[origin][-1]["content"] in (chosen, rejected)
        assert pair["meta"]["winner"] == ("original" if given[origin][-1]["content"] == chosen else "new")

    audit = read(out / "audit.jsonl.zst")
    outcomes = Counter((line["kind"], line["outcome"]) for line in audit)
    assert outcomes["subjective", "pair"] == 30
    assert {line["pair"] for line in audit if line["outcome"] == "pair"} == {pair["id"] for pair in pairs}
    asked = [line for line in audit if line["kind"] == "subjective"]
    assert len({line["id"] for line in asked}) == len(asked)
    assert all(len(line["evidence"]["judge"]) == 2 for line in asked), "both orders of each"
    gone = dropped(funnel)
    assert gone["subjective", "pairs"] == Counter(line["outcome"] for line in asked if line["outcome"] != "pair")
    assert set(gone["subjective", "pairs"]) == {"judge-disagrees", "judge-ties"}
    assert gone["subjective", "candidates"] == {"other-kind": 9}
    assert funnel["read"]["dialogues"][0]["quarantined"] == {"not-json": 1}
    assert (funnel["read"]["dialogues"][0]["units"], funnel["read"]["dialogues"][0]["blank"]) == (92, 1)
    assert [line["reason"] for line in read(out / "quarantine.jsonl")] == ["not-json"]
    assert funnel["judge"]["candidates"] == len(asked)

    coder = Tokenizer.from_file(str(world / "tokenizer" / "tokenizer.json"))
    coder.encode_special_tokens = True
    [everything] = [row for row in funnel["length_bias"]["groups"] if not row["kind"]]
    for side in ("chosen", "rejected"):
        answers = [pair[side][0]["content"] for pair in pairs]
        sizes = [len(coder.encode(answer, add_special_tokens=False).ids) for answer in answers]
        assert everything[f"{side}_tokens"]["mean"] == pytest.approx(sum(sizes) / 45, abs=1e-3)
        assert everything[f"{side}_characters"]["mean"] == pytest.approx(sum(map(len, answers)) / 45, abs=1e-3)

    for side, records in sides.items():
        index = IndexedDataset(str(out / f"pairs_{side}"))
        assert len(index) == 2 * len(records)
        assert funnel["indexes"][f"pairs_{side}"]["documents"] == len(records)
    manifest = json.loads((out / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == sha256_file(out / name), name
    assert {path.name for path in out.iterdir()} == {*manifest["files"], "manifest.json"}
    page = (out / "funnel.html").read_text()
    assert "45 pairs came out." in page
    assert page.count("judge-disagrees") >= 1


def test_a_run_that_ended_at_its_limits_goes_on_and_makes_the_same_bytes(world: Path, tmp_path: Path) -> None:
    with LanguageModelServer(rule=rule) as server:
        apart = dict.fromkeys(("subjective__author__cache", "subjective__judge__cache"), tmp_path / "other")
        whole = recipe(world, server, output=tmp_path / "whole", **apart)
        build_pairs(whole)
        expected, calls = results(tmp_path / "whole"), bodies(server)
    with LanguageModelServer(rule=rule) as server:
        for limit in (9, 14):
            stopped = recipe(world, server, subjective__judge__limits={"calls": limit})
            with pytest.raises(
                RunError, match=r"limits of subjective\.judge .* recorded, which makes \d pairs .* run again"
            ):
                build_pairs(stopped)
            assert not (world / "out" / "manifest.json").exists()
            assert not list((world / "out").glob("pairs_*"))
        summary = build_pairs(recipe(world, server))
        assert bodies(server) == calls, "each is asked and answered once, and nothing beyond"
        assert results(world / "out") == expected
        spent = summary.funnel["accounts"]["judge"]
        assert spent["calls"] == sum(body["model"] == "judge" for body in server.calls)
        assert len(json.loads((world / "out" / "accounts.json").read_text())["runs"]) == 3
        again = build_pairs(recipe(world, server))
        assert again.reused
        assert again.funnel == summary.funnel
        (world / "out" / "manifest.json").unlink()
        assert not build_pairs(recipe(world, server)).reused
        assert bodies(server) == calls
        assert results(world / "out") == expected


def test_neither_private_values_nor_evaluation_questions_get_through(world: Path) -> None:
    def leaky(body: dict[str, Any], repetition: int) -> str:
        said = rule(body, repetition)
        return said if body["model"] == "judge" else f"{said}有问题请拨打{PHONE}。"

    secret = dialogues()[2]["messages"][0]["content"]  # number 2, in Chinese
    write(
        world / "evaluation.jsonl",
        [
            {"id": "e1", "question": secret, "source": "test"},
            {"id": "e2", "question": questions()[3]["question"] + "请选择。", "options": questions()[3]["options"]},
        ],
    )
    strict = {
        "questions": [str(world / "evaluation.jsonl")],
        "characters": {"ngram": 8, "short": 6, "options": 12, "start": 3, "ratio": 0.95},
    }
    everything = {"subjective__candidates__draw": {"spare": 1}, "objective__draw": {}}
    with LanguageModelServer(rule=leaky) as server:
        funnel = build_pairs(recipe(world, server, decontaminate=strict, **everything)).funnel
        sent = texts_sent(server.calls)
    audit = {(line["kind"], line["id"]): line for line in read(world / "out" / "audit.jsonl.zst")}
    assert audit["subjective", "d2"]["outcome"] == "contaminated"
    assert audit["subjective", "d2"]["evidence"]["item"] == "e1"
    assert audit["objective", "q3"]["outcome"] == "contaminated"
    assert "第2号：头痛" not in sent, "what holds a question is not asked about"
    assert "第1号：头痛第1天，怎么办？我的电话是[手机号]" in sent
    author = json.dumps([b["messages"] for b in server.calls if b["model"] == "author"], ensure_ascii=False)
    assert PHONE not in author
    for name in ("pairs_train.jsonl", "pairs_valid.jsonl", "funnel.html", "funnel.json"):
        assert PHONE not in (world / "out" / name).read_text(), name
    assert PHONE not in json.dumps(list(audit.values()), ensure_ascii=False)
    new = [pair for side in ("train", "valid") for pair in read(world / "out" / f"pairs_{side}.jsonl")]
    assert any("请拨打[手机号]" in json.dumps(pair, ensure_ascii=False) for pair in new)
    assert funnel["masked"]["masked mobile"] > 1
    assert dropped(funnel)["objective", "pairs"] == {"contaminated": 1}


def test_a_server_that_fails_too_often_ends_the_run(world: Path) -> None:
    def faults(number: int, body: dict[str, Any]) -> str | None:
        return "400" if body["model"] == "author" and number % 4 == 0 else None

    with LanguageModelServer(rule=rule, faults=faults) as server:
        with pytest.raises(RunError, match=r"subjective\.author did not answer \d+ requests \(http-400 \d+\)"):
            build_pairs(recipe(world, server))
        account = json.loads((world / "out" / "accounts.json").read_text())["runs"][0]["author"]
        assert account["requests"] == account["recorded"] + account["answered"] + sum(account["failed"].values())
        patient = recipe(world, server, subjective__max_failed_fraction=0.9)
        funnel = build_pairs(patient).funnel
    assert sum(side["kinds"]["subjective"] for side in funnel["split"].values()) == 30, (
        "the spare ones take their place"
    )
    assert dropped(funnel)["subjective", "pairs"]["no-answer"] > 0


def test_a_server_that_goes_down_ends_the_run_and_the_next_one_goes_on(world: Path) -> None:
    down = True

    def faults(number: int, body: dict[str, Any]) -> str | None:
        return "500" if down and number > 70 and body["model"] == "judge" else None

    with LanguageModelServer(rule=rule, faults=faults) as server:
        strained = recipe(world, server, subjective__max_failed_fraction=1, subjective__judge__give_up_after=2)
        with pytest.raises(RunError, match=r"subjective\.judge gave up \(.*server-down .*run again"):
            build_pairs(strained)
        down = False
        build_pairs(recipe(world, server))
        assert set(bodies(server).values()) == {1}, "what was answered is not asked again"


def test_what_is_missing_and_what_is_out_of_balance_is_told(world: Path) -> None:
    def long_winded(body: dict[str, Any], repetition: int) -> str:
        if body["model"] != "judge":
            return rule(body, repetition)
        code, texts, _ = asked_to_compare(body)
        return verdict(code, "first" if len(texts["first"]) > len(texts["second"]) else "second")

    all_of_them = {"subjective__candidates__draw": {"count": 500, "spare": 1}, "objective__draw": {"count": 99}}
    evened = {"length_bias": {"balance": 0.6}, "objective__draw": {"count": 30}, "objective__answer": "letter-and-text"}
    with LanguageModelServer(rule=long_winded) as server:
        funnel = build_pairs(recipe(world, server, **all_of_them)).funnel
        balanced = build_pairs(recipe(world, server, **evened)).funnel
    assert any("longer" in text for text in funnel["length_bias"]["warnings"])
    assert sum(row["asked"] for row in funnel["strata"]["subjective"]) == 81, "no more than there are"
    gone = dropped(balanced)
    assert gone["subjective", "length balance"]["length-balance"] == 30, "the longer one always won: no pair is left"
    kept = read(world / "out" / "pairs_train.jsonl") + read(world / "out" / "pairs_valid.jsonl")
    differences = [len(pair["chosen"][0]["content"]) - len(pair["rejected"][0]["content"]) for pair in kept]
    longer = Counter(difference > 0 for difference in differences if difference)
    assert max(longer.values()) <= 0.6 * longer.total()
    assert balanced["length_bias"]["before"]["groups"][0]["pairs"] == 60


def test_what_stands_in_the_way_is_a_sentence(world: Path) -> None:
    write(world / "questions.jsonl", questions(), extra="{broken\n" * 10)
    with LanguageModelServer(rule=rule) as server:
        alone = {"subjective": None, "objective__draw": {"count": 5}}
        with pytest.raises(RunError, match=r"10 of 50 records are bad \(10 not-json\).*max_bad_fraction"):
            build_pairs(recipe(world, server, **alone))
        lenient = recipe(world, server, max_bad_fraction=0.3, **alone)
        assert build_pairs(lenient).funnel["split"]["pairs_train"]["pairs"] == 4
        with pytest.raises(RunError, match="no pair at all is left: 40 question-too-short"):
            build_pairs(recipe(world, server, max_bad_fraction=0.3, objective__shortest=99, **alone))
        with exclusive(world / "out" / "work", world / "out"), pytest.raises(BusyError, match="another run"):
            build_pairs(lenient)
        everything = recipe(world, server, max_bad_fraction=0.3, split={"valid_count": 5}, **alone)
        with pytest.raises(RunError, match="all 5 pairs are held out"):
            build_pairs(everything)
        nothing_held = build_pairs(recipe(world, server, max_bad_fraction=0.3, split={"valid_share": 0}, **alone))
    assert nothing_held.funnel["split"]["pairs_valid"]["pairs"] == 0
    assert not list((world / "out").glob("pairs_valid*")), "those of the former run are gone"


def test_equal_ids_are_told_apart(world: Path) -> None:
    twins = [{**one, "id": "same"} for one in questions()]
    write(world / "questions.jsonl", twins)
    with LanguageModelServer(rule=rule) as server:
        build_pairs(recipe(world, server, subjective=None))
    pairs = read(world / "out" / "pairs_train.jsonl") + read(world / "out" / "pairs_valid.jsonl")
    assert len({pair["id"] for pair in pairs}) == 15
    assert {pair["meta"]["of"] for pair in pairs} == {"same"}


def test_what_a_local_model_scored_is_kept(tmp_path: Path) -> None:
    place = small_causal_model(tmp_path / "model")
    config = ObjectiveConfig(questions=("unused",))
    members = []
    for row in questions(6):
        found = question_member(choice_of(row, "questions", source_file="f", offset=0), config, 0)
        assert isinstance(found, Member)
        members.append(found)
    first = LikelyWrong(CausalSettings(model=place, device="cpu"), tmp_path, "digest")(members)
    nowhere = CausalSettings(model=tmp_path / "nowhere", device="cpu")
    assert LikelyWrong(nowhere, tmp_path, "digest")(members) == first, "it is not scored, nor the model loaded, again"
    with pytest.raises(InputError, match="nowhere"):
        LikelyWrong(nowhere, tmp_path, "other digest")(members)


def test_a_run_that_leaves_nothing_tells_all_reasons(world: Path) -> None:
    exam = questions()
    for number, one in enumerate(exam):
        one["source"] = f"exam {number % 2}"
    write(world / "questions.jsonl", exam)
    with LanguageModelServer(rule=rule) as server:
        short = recipe(world, server, subjective=None, objective__shortest=99)
        with pytest.raises(RunError, match="no pair at all is left: 40 question-too-short"):
            build_pairs(short)


def test_a_run_that_fails_leaves_no_manifest_that_does_not_fit(world: Path) -> None:
    with LanguageModelServer(rule=rule) as server:
        build_pairs(recipe(world, server))
        assert (world / "out" / "manifest.json").exists()
        with pytest.raises(RunError, match="limits of"):
            build_pairs(recipe(world, server, seed=7, subjective__judge__limits={"calls": 3}))
        assert not (world / "out" / "manifest.json").exists(), "accounts and quarantine are no more as it says"
        build_pairs(recipe(world, server))
    manifest = json.loads((world / "out" / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == sha256_file(world / "out" / name), name


def test_without_an_index_none_of_a_former_run_stays(world: Path) -> None:
    with LanguageModelServer(rule=rule) as server:
        build_pairs(recipe(world, server, subjective=None))
        assert (world / "out" / "pairs_train.bin").exists()
        build_pairs(recipe(world, server, subjective=None, index=False))
    left = {path.name for path in (world / "out").iterdir()}
    assert left == {"pairs_train.jsonl", "pairs_valid.jsonl", "audit.jsonl.zst", "funnel.json", "funnel.html"} | {
        "manifest.json"
    }


def test_the_examples_turns_are_the_users_questions(world: Path) -> None:
    """A system message is no turn."""
    given = dialogues(30)
    for one in given:
        one["messages"].insert(0, {"role": "system", "content": "A telephone line for patients."})
    write(world / "dialogues.jsonl", given)
    with LanguageModelServer(rule=rule) as server:
        funnel = build_pairs(recipe(world, server, objective=None, subjective__candidates__draw={"count": 9})).funnel
    turns = {f"subjective-{one['id']}": sum(m["role"] == "user" for m in one["messages"]) for one in given}
    assert funnel["examples"]
    assert {one["id"]: one["turns"] for one in funnel["examples"]} == {
        one["id"]: turns[one["id"]] for one in funnel["examples"]
    }


def test_another_wording_of_a_prompt_is_another_run(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LanguageModelServer(rule=rule) as server:
        made = recipe(world, server, objective=None, subjective__candidates__draw={"count": 5})
    before = made.digest("tokenizer")
    names = {"compare.v1.en", "compare.v1.zh", "doctor.v1.en", "doctor.v1.zh"}
    assert made.prompts().keys() == names
    monkeypatch.setattr("data_tools.preferences.recipe.prompt_digests", lambda settings: dict.fromkeys(names, "other"))
    assert made.digest("tokenizer") != before


def test_a_dry_run_knows_answers_to_masked_questions(world: Path) -> None:
    """What is asked is the masked text, and so is what is looked up."""
    with LanguageModelServer(rule=rule) as server:
        made = recipe(world, server, objective=None, subjective__candidates__draw={"spare": 1})
        build_pairs(made)
        assert "[手机号]" in texts_sent(server.calls)
        plan = plan_pairs(made)
    assert plan.most is not None
    assert (plan.most.author.calls, plan.most.judge.calls) == (0, 0)
