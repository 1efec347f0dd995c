"""Planted questions are found whatever their punctuation, width, case and white space."""

from pathlib import Path

import orjson
import pytest

from data_tools.clinic import make_world, questions
from data_tools.corpus.batch import Batch
from data_tools.corpus.decontaminate import DecontaminateConfig
from data_tools.corpus.step_config import Resources

_WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(33, 127)})


@pytest.mark.parametrize(
    "change",
    [str, str.upper, lambda text: text.translate(_WIDE), lambda text: text.replace(" ", " \n\t"), lambda t: t + "！？"],
)
def test_every_planted_question_is_found_with_its_item(tmp_path: Path, change) -> None:
    items = list(questions(make_world()))
    path = tmp_path / "questions.jsonl"
    path.write_bytes(b"".join(orjson.dumps(item) + b"\n" for item in items))
    step = DecontaminateConfig(questions=(str(path),)).build(Resources(None, 0))  # type: ignore[arg-type]
    texts = [f"Some words before.\n{change(item['question'])}\n之后还有一些别的内容。" for item in items]
    outcome = step(Batch([""] * len(texts), texts, [""] * len(texts), [], []))
    assert [drop and drop.detail["item"] for drop in outcome.drops] == [item["id"] for item in items]
