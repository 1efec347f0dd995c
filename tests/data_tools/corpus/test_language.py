"""Languages of texts written by hand, of real text, and of hypothesis."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_tools.corpus.language import LanguageConfig, function_word_share, sampled
from tests.data_tools.corpus.text_batches import batch_of

SHARED = Path(__file__).parents[4] / "shared" / "data"

ZH = [
    "患者行CT检查, WBC 12×10^9/L",
    "患者男，65岁，因胸闷、气促3天入院。查体：BP 150/90mmHg，HR 98次/分，SpO2 92%。予aspirin 100mg qd口服。",
    "我哋今日去睇醫生，佢話冇乜大問題，食咗藥就會好返㗎喇。",
    "太陽之為病，脈浮，頭項強痛而惡寒。",
    "采用PCR-RFLP法检测EGFR T790M突变",
    "这个日本药叫のど飴，我不知道你们能不能吃",
    "头痛怎么办？",
    "發燒三天，沒有咳嗽",
]
EN = [
    "The patient was admitted with chest pain and shortness of breath for three days.",
    "What are the symptoms of diabetes?",
    "The herb huangqi (黄芪, Astragalus) is used for fatigue; β-blockers and α-agonists are not.",
    "CT scan: negative. WBC 12, Hb 110 g/L. Amoxicillin 500 mg tid.",
    "METFORMIN IS THE FIRST CHOICE FOR MOST OF THE PATIENTS WITH TYPE 2 DIABETES",
    "Sjögren’s syndrome and Ménière’s disease are seen in the clinic — naïve patients “improve”.",
]
OTHER = [
    "糖尿病患者における心血管疾患の発症率を検討した。対象は外来通院中の患者である。",
    "東京大学医学部附属病院臨床研究推進 薬剤経口投与後検査値異常 脳梗塞発症",
    "당뇨병 환자의 혈당 조절에 대한 연구",
    "Пациент поступил с болью в груди.",
    "مريض يعاني من ألم في الصدر",
    "Le patient a été admis à l'hôpital pour une douleur thoracique depuis trois jours et il est sous traitement.",
    "El paciente fue ingresado en el hospital por dolor torácico de tres días de evolución y recibió tratamiento.",
    "Der Patient wurde mit Brustschmerzen in das Krankenhaus aufgenommen und seit drei Tagen behandelt.",
    "Pasien dirawat di rumah sakit karena nyeri dada selama tiga hari dan sudah mendapat pengobatan.",
    "12.5 33.1 9,8 -- 77 %",
    "",
]


@pytest.mark.parametrize("texts, lang", [(ZH, "zh"), (EN, "en"), (OTHER, "other")])
def test_by_hand(texts: list[str], lang: str) -> None:
    outcome = LanguageConfig().build()(batch_of(texts))
    assert dict(zip(texts, outcome.langs)) == dict.fromkeys(texts, lang)
    assert [drop is not None for drop in outcome.drops] == [lang == "other"] * len(texts)


def test_keep_decides_what_is_dropped() -> None:
    outcome = LanguageConfig(keep=("en",)).build()(batch_of([ZH[1], EN[0], OTHER[2]]))
    assert [drop and (drop.reason, drop.detail) for drop in outcome.drops] == [
        ("language", {"value": "Chinese", "limit": ["en"]}),
        None,
        ("language", {"value": "Korean", "limit": ["en"]}),
    ]
    with pytest.raises(ValidationError):
        LanguageConfig(keep=())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample data is not on this machine")
def test_real_text() -> None:
    with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as file:
        chinese = [row["answer"] for row in csv.DictReader(file)][:2000]
    english = [record["output"] for record in json.loads((SHARED / "chatdoctor5k.json").read_bytes())][:2000]
    step = LanguageConfig().build()
    assert set(step(batch_of([text for text in chinese if text.strip()])).langs) == {"zh"}
    assert set(step(batch_of([text for text in english if text.strip()])).langs) == {"en"}


def test_function_words_are_counted_per_word() -> None:
    # Three of ten words (the, of, and) begin with a gram; the count ends with the text, not in the next one.
    share = function_word_share(["The cause of pain and numbness remains unclear today, sadly.", "the", "", "患者 ok"])
    assert share.tolist() == [3 / 10, 1.0, 0.0, 0.0]


def test_sample_of_a_long_text() -> None:
    assert sampled("abc", 3) == "abc"
    assert sampled("a" * 100 + "b" * 100 + "c" * 100, 30) == f"{'a' * 10}\n{'b' * 10}\n{'c' * 10}"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(ZH + EN + OTHER)), max_size=8))
def test_a_document_fares_the_same_in_any_batch(texts: list[str]) -> None:
    step = LanguageConfig().build()
    together = step(batch_of(texts))
    assert len(together.langs) == len(texts)
    for place, text in enumerate(texts):
        alone = step(batch_of([text]))
        assert alone.langs[0] == together.langs[place] and alone.drops[0] == together.drops[place]
        for name, values in alone.measures.items():
            assert values.tolist() == pytest.approx([together.measures[name][place]], nan_ok=True)
