"""`aquila data pairs`, the shipped recipe, and the report's page."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from data_tools.cli_preferences import pairs
from data_tools.config_files import dump_config
from data_tools.preferences.page import pairs_page
from data_tools.preferences.recipe import load_pairs_recipe
from data_tools.preferences.run import build_pairs
from tests.data_tools.chat_samples import chat_tokenizer
from tests.data_tools.llm_server import LanguageModelServer
from tests.data_tools.preferences.pairs_world import dialogues, questions, recipe, rule, write

RECIPES = Path(__file__).parents[3] / "recipes"
HOSTILE = '</blockquote></main><script>alert(1)</script> \u202e \x00 & "q"'

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(pairs)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write(tmp_path / "dialogues.jsonl", dialogues(40))
    write(tmp_path / "questions.jsonl", questions(20))
    chat_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def test_a_dry_run_and_a_run(world: Path) -> None:
    with LanguageModelServer(rule=rule) as server:
        made = recipe(world, server, subjective__candidates__draw={"count": 8}, objective__draw={"count": 4})
        (world / "recipe.yaml").write_text(dump_config(made))
        dry = run(world / "recipe.yaml", "--dry-run")
        assert dry.exit_code == 0, dry.output
        assert "author: 8 calls (0 more are recorded)" in dry.output
        assert "judge: 16 calls" in dry.output
        assert "author: 16 calls" in dry.output, "with all spare ones"
        assert not server.calls
        assert not (world / "out").exists()
        real = run(world / "recipe.yaml", "split.valid_count=3", "split.valid_share=null", "--workers=1")
        assert real.exit_code == 0, real.output
        assert "pairs: pairs_train 9, pairs_valid 3" in real.output
        assert f"author: {sum(body['model'] == 'author' for body in server.calls)} calls" in real.output
        again = run(world / "recipe.yaml", "split.valid_count=3", "split.valid_share=null", "--workers=1")
        assert "nothing to do" in again.output
        dry = run(world / "recipe.yaml", "--dry-run")
        assert "author: 0 calls (8 more are recorded)" in dry.output


def test_names_of_sources_are_no_markup(world: Path) -> None:
    named = questions(20)
    for one in named:
        one["source"] = "exam [/red] [bold]"
    write(world / "questions.jsonl", named)
    with LanguageModelServer(rule=rule) as server:
        parts = [{"name": "[/] zh", "share": 1, "langs": ["zh"]}, {"name": "[b] en", "share": 1, "langs": ["en"]}]
        made = recipe(world, server, subjective=None, index=False, objective__draw={"count": 40, "parts": parts})
        (world / "recipe.yaml").write_text(dump_config(made))
        result = run(world / "recipe.yaml")
    assert result.exit_code == 0, result.output
    assert "objective pairs are missing: [b] en 20 of 20" in result.output


def test_mistakes_are_told_with_their_place(world: Path) -> None:
    (world / "recipe.yaml").write_text(
        "output: out\ntokenizer: tokenizer\nobjective:\n  questions: [q.jsonl]\n  wrong: likely\n  explaind: 0.5\n"
    )
    found = run(world / "recipe.yaml")
    assert found.exit_code == 2
    assert "recipe.yaml:6: objective.explaind is unknown; did you mean objective.explained?" in found.output
    found = run(world / "recipe.yaml", "objective.explaind=null")
    assert found.exit_code == 2
    (world / "recipe.yaml").write_text("output: out\ntokenizer: tokenizer\ntemplate: chatmll\nobjective: null\n")
    found = run(world / "recipe.yaml")
    assert "there is nothing to make pairs of" in found.output
    found = run(world / "recipe.yaml", "objective.questions=[q.jsonl]")
    assert "template" in found.output
    assert "chatmll" in found.output
    found = run(
        world / "recipe.yaml",
        f"objective.questions=[{world}/none.jsonl]",
        "template=chatml",
        f"tokenizer={world}/tokenizer",
    )
    assert found.exit_code == 2
    assert "there is no input" in found.output
    assert run().exit_code == 2


def test_the_schema_names_every_key() -> None:
    schema = json.loads(run("--schema").output)
    assert {"subjective", "objective", "decontaminate", "split", "length_bias", "seed"} <= set(schema["properties"])


def test_the_papers_counts() -> None:
    made = load_pairs_recipe(RECIPES / "aquila_med" / "data_dpo.yaml")
    assert made.subjective is not None
    assert made.objective is not None
    assert (made.subjective.candidates.draw.count, made.objective.draw.count) == (9019, 3708)
    assert made.objective.wrong == "random"
    assert made.decontaminate is not None
    training = yaml.safe_load((RECIPES / "aquila_med" / "dpo.yaml").read_text())
    assert training["data"]["tokenizer"] == str(made.tokenizer)
    assert training["data"]["sequence_length"] == 2 * made.max_length
    read = [entry["path"] for side in ("train", "valid") for entry in training["data"][side]]
    assert read == [str(made.output / "pairs_train"), str(made.output / "pairs_valid")]
    fine_tuning = yaml.safe_load((RECIPES / "aquila_med" / "data_sft.yaml").read_text())
    assert made.subjective.candidates.dialogues == (f"{fine_tuning['output']}/dialogues",)


def test_an_override_of_the_author_is_none_of_the_judge() -> None:
    """In the small recipe they are one entry, by a YAML alias."""
    made = load_pairs_recipe(RECIPES / "tiny" / "data_dpo.yaml", ["subjective.author.temperature=0.5"])
    assert made.subjective is not None
    assert (made.subjective.author.temperature, made.subjective.judge.temperature) == (0.5, None)
    assert made.subjective.author.model == made.subjective.judge.model


class _Page(HTMLParser):
    """Tags that are open, and the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_number_and_nothing_acts_on_it(world: Path) -> None:
    hostile = dialogues(40)
    for one in hostile:
        one["source"] = HOSTILE
        one["messages"][-1]["content"] += HOSTILE
    write(world / "dialogues.jsonl", hostile)
    with LanguageModelServer(rule=rule) as server:
        made = recipe(world, server, index=False, objective=None, subjective__candidates__draw={"count": 9})
        funnel = build_pairs(made).funnel
    page = _Page()
    text = (world / "out" / "funnel.html").read_text()
    page.feed(text)
    assert not page.open
    assert "script" not in page.seen
    assert "\u202e" not in text
    assert "alert(1)" in page.text, "it is shown"
    for step in funnel["kinds"][0]["steps"]:
        for row in step["dropped"]:
            assert row["reason"] in page.text
    for number in (funnel["accounts"]["judge"]["prompt_tokens"], funnel["accounts"]["author"]["calls"]):
        assert f"{number:,}" in page.text
    assert "http" not in text.replace(server.url, "").replace("http-", ""), "nothing is fetched"
    with pytest.raises(ValueError, match="shows preferences-funnel"):
        pairs_page({"format": "corpus-funnel", "version": 1})
