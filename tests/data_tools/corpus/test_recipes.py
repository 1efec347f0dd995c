"""Every shipped corpus recipe is read, its mixtures are the published shares, and it fits the training recipes."""

from pathlib import Path

import pytest
import yaml

from data_tools.corpus.recipe import STEPS, Recipe, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


def test_the_papers_stages() -> None:
    recipe = load_recipe(RECIPES / "aquila_med" / "corpus.yaml")
    assert [stage.tokens for stage in recipe.stages] == [60_000_000_000, 20_000_000_000]
    assert [step.step for step in recipe.steps] == list(STEPS)
    for stage, medical, chinese in zip(recipe.stages, (0.95, 0.5), (0.1, 0.4)):  # CareBot: 19:1 and 1:9, 1:1 and 4:6
        weights = {part.name: part.weight or 0 for part in stage.parts}
        total = sum(weights.values())
        assert sum(weight for name, weight in weights.items() if "medical" in name) / total == pytest.approx(medical)
        assert sum(weight for name, weight in weights.items() if "zh" in name) / total == pytest.approx(chinese)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_training_reads_what_the_corpus_writes(stage: str) -> None:
    recipe = load_recipe(RECIPES / "aquila_med" / "corpus.yaml")
    training = yaml.safe_load((RECIPES / "aquila_med" / f"cpt_{stage}.yaml").read_text())
    assert [entry["path"] for entry in training["data"]["train"]] == [str(recipe.output / stage)]
    assert training["data"]["tokenizer"] == str(recipe.tokenizer)


def test_the_recipe_of_the_docs_is_read(tmp_path: Path) -> None:
    text = (RECIPES.parent / "docs" / "corpus.md").read_text(encoding="utf-8")
    block = next(part for part in text.split("```") if part.startswith("yaml\noutput: data/mine"))
    (tmp_path / "recipe.yaml").write_text(block.removeprefix("yaml\n"), encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml", ["steps.2.fineweb=false"])
    assert [source.name for source in recipe.sources] == ["web", "forum"]


def test_every_key_is_in_the_schema() -> None:
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert {"RulesConfig", "PrivacyConfig", "Stage", "Part"} <= set(schema["$defs"])
