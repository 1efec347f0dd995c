"""The sample world: a small synthetic bilingual (zh/en) clinic, for the demo, tests and benchmarks.

Invented conditions with invented facts (`make_world`), told in many wordings as documents of two training stages
(`documents`), beside text that is not medical (`general_documents`), and cloze questions on both (`questions`,
`general_questions`, scored through `continuations`). An assistant learns from `dialogues` and `preference_pairs`, and
is tested with questions that they leave out (`exact_match_questions`, held-out pairs). `write_clinic` puts it all on
disk. Everything in it is synthetic; none of it is medicine.
"""

from data_tools.clinic.dialogues import dialogues, exact_match_questions
from data_tools.clinic.documents import documents
from data_tools.clinic.general import general_documents, general_questions
from data_tools.clinic.pairs import preference_pairs
from data_tools.clinic.questions import continuations, questions
from data_tools.clinic.world import Condition, World, make_world
from data_tools.clinic.write import write_clinic

__all__ = [
    "Condition",
    "World",
    "continuations",
    "dialogues",
    "documents",
    "exact_match_questions",
    "general_documents",
    "general_questions",
    "make_world",
    "preference_pairs",
    "questions",
    "write_clinic",
]
