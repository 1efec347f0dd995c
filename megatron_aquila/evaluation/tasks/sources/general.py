"""What MMLU and CMMLU ask beside medicine: whether a model keeps its general knowledge (`evaluation.questions`).

Left out are the subjects of `subjects.py`, and those that medical text teaches too: biology, nutrition, ageing,
sexuality, virology, food, sports and medical statistics.
"""

from __future__ import annotations

from megatron_aquila.evaluation.tasks.sources.base import Folder, Options, Read, Source
from megatron_aquila.evaluation.tasks.sources.subjects import CMMLU, MMLU, mirror_of, read_subjects, rows_of_subjects

MMLU_GENERAL_TEST = {
    "abstract_algebra": 100,
    "astronomy": 152,
    "business_ethics": 100,
    "college_chemistry": 100,
    "college_computer_science": 100,
    "college_mathematics": 100,
    "college_physics": 102,
    "computer_security": 100,
    "conceptual_physics": 235,
    "econometrics": 114,
    "electrical_engineering": 145,
    "elementary_mathematics": 378,
    "formal_logic": 126,
    "global_facts": 100,
    "high_school_chemistry": 203,
    "high_school_computer_science": 100,
    "high_school_european_history": 165,
    "high_school_geography": 198,
    "high_school_government_and_politics": 193,
    "high_school_macroeconomics": 390,
    "high_school_mathematics": 270,
    "high_school_microeconomics": 238,
    "high_school_physics": 151,
    "high_school_psychology": 545,
    "high_school_statistics": 216,
    "high_school_us_history": 204,
    "high_school_world_history": 237,
    "international_law": 121,
    "jurisprudence": 108,
    "logical_fallacies": 163,
    "machine_learning": 112,
    "management": 103,
    "marketing": 234,
    "miscellaneous": 783,
    "moral_disputes": 346,
    "moral_scenarios": 895,
    "philosophy": 311,
    "prehistory": 324,
    "professional_accounting": 282,
    "professional_law": 1534,
    "professional_psychology": 612,
    "public_relations": 110,
    "security_studies": 245,
    "sociology": 201,
    "us_foreign_policy": 100,
    "world_religions": 171,
}
CMMLU_GENERAL_TEST = {
    "agronomy": 169,
    "ancient_chinese": 164,
    "arts": 160,
    "astronomy": 165,
    "business_ethics": 209,
    "chinese_civil_service_exam": 160,
    "chinese_driving_rule": 131,
    "chinese_food_culture": 136,
    "chinese_foreign_policy": 107,
    "chinese_history": 323,
    "chinese_literature": 204,
    "chinese_teacher_qualification": 179,
    "college_actuarial_science": 106,
    "college_education": 107,
    "college_engineering_hydrology": 106,
    "college_law": 108,
    "college_mathematics": 105,
    "computer_science": 204,
    "computer_security": 171,
    "conceptual_physics": 147,
    "construction_project_management": 139,
    "economics": 159,
    "education": 163,
    "electrical_engineering": 172,
    "elementary_chinese": 252,
    "elementary_commonsense": 198,
    "elementary_information_and_technology": 238,
    "elementary_mathematics": 230,
    "ethnology": 135,
    "global_facts": 149,
    "high_school_chemistry": 132,
    "high_school_geography": 118,
    "high_school_mathematics": 164,
    "high_school_physics": 110,
    "high_school_politics": 143,
    "international_law": 185,
    "journalism": 172,
    "jurisprudence": 411,
    "legal_and_moral_basis": 214,
    "logical": 123,
    "machine_learning": 122,
    "management": 210,
    "marketing": 180,
    "marxist_theory": 189,
    "modern_chinese": 116,
    "philosophy": 105,
    "professional_accounting": 175,
    "professional_law": 211,
    "professional_psychology": 232,
    "public_relations": 174,
    "security_study": 135,
    "sociology": 226,
    "world_history": 161,
    "world_religions": 160,
}


def read_mmlu_general(folder: Folder, options: Options) -> Read:
    """The files of `subjects.read_mmlu`, of these subjects."""
    patterns = ("{split}/{subject}_{split}.csv", "{subject}_{split}.csv")
    return read_subjects(folder, "mmlu", ("dev", "test"), MMLU_GENERAL_TEST, *patterns)


def read_cmmlu_general(folder: Folder, options: Options) -> Read:
    """The files of `subjects.read_cmmlu`, of these subjects."""
    return read_subjects(folder, "cmmlu", ("dev", "test"), CMMLU_GENERAL_TEST, "{split}/{subject}.csv")


MMLU_GENERAL = Source(
    "mmlu_general",
    "MMLU, subjects other than medicine",
    MMLU.licence,
    MMLU.origin,
    rows_of_subjects("test", MMLU_GENERAL_TEST),
    read_mmlu_general,
    mirror_of(
        ("dev", "test"),
        MMLU_GENERAL_TEST,
        "{subject}/{split}-00000-of-00001.parquet",
        "data/{split}/{subject}_{split}.csv",
        "{split}/{subject}_{split}.csv",
    ),
)
CMMLU_GENERAL = Source(
    "cmmlu_general",
    "CMMLU, subjects other than medicine",
    CMMLU.licence,
    CMMLU.origin,
    rows_of_subjects("test", CMMLU_GENERAL_TEST),
    read_cmmlu_general,
    mirror_of(("dev", "test"), CMMLU_GENERAL_TEST, "data/{split}/{subject}.csv", "{split}/{subject}.csv"),
)
