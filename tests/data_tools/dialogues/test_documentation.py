"""docs/dialogues.md and the recipes name what there is, and nothing else."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from data_tools.cli import app
from data_tools.dialogues.importers import IMPORTERS
from data_tools.dialogues.recipe import DialogueRecipe, load_recipe
from data_tools.inputs import InputError
from data_tools.preferences.publication import WRITTEN

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "dialogues.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_each_piece_of_a_recipe_is_one(block: str) -> None:
    steps = yaml.safe_load(block)
    source = {"name": "x", "format": "messages", "files": ["x.jsonl"]}
    made = DialogueRecipe.model_validate({"output": "o", "tokenizer": "t", "sources": [source], "steps": steps})
    assert [step.step for step in made.steps] == [step["step"] for step in steps]


def test_the_table_of_formats_has_them_all() -> None:
    table = PAGE[PAGE.index("| format |") : PAGE.index("Every record becomes")]
    rows = [line.split("|") for line in table.splitlines()[2:] if line.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row[1])}
    assert named == set(IMPORTERS)


def test_commands_and_their_options_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = PAGE + (REPOSITORY / "README.md").read_text() + (REPOSITORY / "docs" / "corpus.md").read_text()
    found = re.findall(r"^aquila data ([\w-]+)((?: [^\n#`|]*)?)", text, re.MULTILINE)
    found += re.findall(r"`aquila data ([\w-]+)((?: [^`\n]*)?)`", text)
    assert len(found) > 10
    for name, rest in found:
        assert name in commands, name
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[\w-]+", rest)) <= known, (name, rest)


def test_the_files_that_are_named_are_written() -> None:
    pairs = PAGE[PAGE.index("## Pairs") :]
    for name in re.findall(r"`(\w+\.(?:html|json|jsonl\.zst))`", pairs):
        assert name in WRITTEN


@pytest.mark.parametrize("recipe", ["aquila_med", "tiny"])
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("steps.9.diversty=null", "steps.9.diversty is unknown; did you mean steps.9.diversity?"),
        ("steps.2.lengths.least_qestion=1", "did you mean steps.2.lengths.least_question?"),
        ("steps.7.complexity.traned=x", "did you mean steps.7.complexity.trained?"),
        ("sources.0.fromat=x", "did you mean sources.0.format?"),
    ],
)
def test_a_typing_error_in_a_recipe_is_told_with_the_nearest_key(recipe: str, override: str, sentence: str) -> None:
    path = REPOSITORY / "recipes" / recipe / "data_sft.yaml"
    with pytest.raises(InputError) as caught:
        load_recipe(path, [override])
    assert sentence in str(caught.value)
