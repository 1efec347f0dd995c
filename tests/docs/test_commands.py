"""Every command that a page shows works as it stands, or its block says what it needs that is not here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.commands import Refused, check, commands, parse
from tests.docs.pages import ROOT, Block, blocks, pages

SHELL = ("sh", "bash", "console", "shell")

# The test that runs a verb; here it is parsed, and its recipe loaded, in every form that a page shows.
_FOLLOWED = "tests/docs/test_guide.py::test_a_reader_reaches_a_dpo_run_and_a_model"
_ROAD = "tests/end_to_end/test_road.py::test_from_text_to_a_model_in_transformers"
_CLI = "tests/megatron_aquila/test_cli.py"
_EVALUATION = "tests/megatron_aquila/evaluation"
RUN_BY = {
    "chat": "tests/megatron_aquila/test_chat_command.py::test_questions_from_a_pipe_are_answered_as_transformers_does",
    "config reference": "tests/docs/test_pages.py::test_the_reference_is_that_of_the_code",
    "config schema": f"{_CLI}::test_config_schema_is_json_schema",
    "config show": f"{_CLI}::test_config_show_prints_a_recipe_that_reads_back",
    "data corpus": _FOLLOWED,
    "data dialogues": "tests/data_tools/dialogues/test_run.py::test_on_the_command_line",
    "data import": "tests/data_tools/dialogues/test_run.py::test_on_the_command_line",
    "data index": _FOLLOWED,
    "data label": "tests/data_tools/test_labelling_dialogues.py::"
    "test_labels_train_a_scorer_that_tells_hard_questions_from_easy_ones",
    "data pairs": "tests/data_tools/preferences/test_pairs_cli.py::test_a_dry_run_and_a_run",
    "data preview": _FOLLOWED,
    "data train-scorer": "tests/data_tools/test_labelling_dialogues.py::"
    "test_on_the_command_line_the_scale_is_that_of_the_labels_or_the_one_asked_for",
    "data train-tokenizer": _ROAD,
    "data verify": _FOLLOWED,
    "data why": "tests/data_tools/corpus/test_run.py::test_why_on_the_command_line",
    "demo": f"{_CLI}::test_a_demo_never_removes_what_no_demo_made",
    "doctor": f"{_CLI}::test_doctor_finds_this_machine_fit",
    "eval compare": f"{_EVALUATION}/test_comparison.py::test_the_command",
    "eval contamination": f"{_EVALUATION}/test_contamination.py::test_the_command",
    "eval fetch": f"{_EVALUATION}/tasks/test_catalog.py::test_command_line",
    "eval run": f"{_EVALUATION}/test_cli.py::test_ranks_start_once_everything_is_found",
    "eval tasks": f"{_EVALUATION}/tasks/test_catalog.py::test_command_line",
    "eval verify": f"{_EVALUATION}/tasks/test_catalog.py::test_command_line",
    "export": _FOLLOWED,
    "judge pair": f"{_EVALUATION}/judge/test_judge_command.py::test_the_demos_stand_in_judges_by_the_clinics_facts",
    "judge rubric": f"{_EVALUATION}/judge/test_judge_command.py::test_the_demos_stand_in_judges_by_the_clinics_facts",
    "plan": "tests/megatron_aquila/plan/test_plan_command.py::test_the_page_shows_what_is_printed",
    "reference": _ROAD,
    "report": _FOLLOWED,
    "train": _FOLLOWED,
}
SHOWN = [block for page in pages() for block in blocks(page) if block.language in SHELL]
ALL = [command for block in SHOWN for command in commands(block)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes: those of the repository, and those that pages show."""
    directory = tmp_path_factory.mktemp("desk")
    (directory / "recipes").symlink_to(ROOT / "recipes")
    shown: dict[str, Block] = {}
    for block in (block for page in pages() for block in blocks(page) if block.language == "yaml"):
        if name := block.file_name:
            assert shown.setdefault(name, block).text == block.text, f"{block} and {shown[name]} differ: {name}"
            (directory / name).write_text(block.text, encoding="utf-8")
    return directory


def test_every_command_works_as_it_stands(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    refused = []
    for command in ALL:
        try:
            check(command)
        except Refused as reason:
            refused.append(str(reason))
    assert not refused, "\n".join(refused)
    assert len(ALL) > 80


def test_every_verb_on_a_page_is_run_by_a_test() -> None:
    verbs = {parse(command.words[1:])[0] for command in ALL if Path(command.words[0]).name == "aquila"} - {""}
    assert verbs <= RUN_BY.keys()
    for verb, test in RUN_BY.items():
        path, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{verb}: {test} is not there"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("aquila trian recipes/tiny/sft.yaml", "there is no verb 'trian'"),
        ("aquila train recipes/tiny/sft.yaml optimiser.lr=1", "optimiser"),
        ("aquila train recipes/tiny/stf.yaml", "no recipe of ours"),
        ("aquila train recipes/tiny/sft.yaml parallel.tensor_parallel=3", "not a multiple"),
        ("aquila data index a.jsonl --tokeniser T --output o", "--tokeniser"),
        ("aquila data index a.jsonl --output o", "--tokenizer"),
        ("aquila data corpus recipes/tiny/corpus.yaml steps.0.step=normalize", "needs a 'step'"),
        ("aquila eval fetch pubmed --from x", "the sets are"),
        ("aquila eval run RUN aqm_pubmed", "there is no task"),
        ("aquila eval run RUN aqm_mmlu shot=3", "shot"),
        ("make tests", "the Makefile has"),
        ("python -m benchmarks.trainings", "there is no module"),
        ("python -m benchmarks.kernels --gpu", "has no option"),
        ("torchrun --nproc-per-node 8 -m megatron_aquila train recipes/tiny/stf.yaml", "no recipe of ours"),
        ("recipes/launch/missing.sh recipes/tiny/sft.yaml", "there is no recipes/launch/missing.sh"),
        ("sbatch job.sh", "there is no job.sh"),
        ("vllm serve aquila", "mark the block"),
        ("frobnicate", "no test knows"),
    ],
)
def test_what_does_not_work_is_refused(desk: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str) -> None:
    """Each kind of mistake that this file is here for."""
    monkeypatch.chdir(desk)
    block = Block(ROOT / "README.md", 1, "sh", line + "\n", None)
    with pytest.raises(Refused, match=re.escape(said)):
        for command in commands(block):
            check(command)


def test_a_line_of_shell_is_split_as_the_shell_does() -> None:
    text = "NAME=1 aquila doctor  # what\naquila train a.yaml \\\n  'x=[1, 2]' > log && make test | head -3\n"
    found = commands(Block(ROOT / "README.md", 10, "sh", text, None))
    assert [(command.line, command.words) for command in found] == [
        (10, ("aquila", "doctor")),
        (11, ("aquila", "train", "a.yaml", "x=[1, 2]")),
        (11, ("make", "test")),
        (11, ("head", "-3")),
    ]


def test_a_marker_holds_for_the_block_after_it_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- needs a GPU -->\n\n```sh\na\n```\n\n```sh\nb\n```\n<!-- needs a cluster -->\ntext\n```sh\nc\n```\n",
        encoding="utf-8",
    )
    assert [(block.text, block.needs) for block in blocks(page)] == [("a\n", "a GPU"), ("b\n", None), ("c\n", None)]
