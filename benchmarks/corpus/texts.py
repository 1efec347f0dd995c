"""The real text that the corpus benchmarks share: documents of one language, and questions to look for in them."""

import csv
import gzip
import random
from itertools import islice
from pathlib import Path

import orjson

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
DATATROVE_LANGUAGES = {"zh": "zho_Hani", "en": "eng"}  # `zho` and `zh` would not segment Chinese at all


def sample_texts(lang: str, limit: int, data: Path = SHARED) -> list[str]:
    """Dialogues (zh) or NIH pages (en), their question in the first line, of the sample data in random order; without
    it, documents of the synthetic clinic.
    """
    if not data.is_dir():
        from data_tools.clinic import documents, make_world

        # The clinic tells its facts without end.
        texts = [
            record["text"] for record in islice(documents(make_world(), stage=1), 20_000) if record["lang"] == lang
        ]
    elif lang == "zh":
        with (data / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as rows:
            texts = [f"{row['ask']}\n{row['answer']}" for row in csv.DictReader(rows)]
    else:
        with gzip.open(data / "medquad_sample.jsonl.gz") as lines:
            texts = [f"{record['question']}\n{record['answer']}" for record in map(orjson.loads, lines)]
    random.Random(0).shuffle(texts)
    return texts[:limit]
