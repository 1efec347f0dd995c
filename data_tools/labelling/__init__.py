"""Labelled seeds for the scorers of documents and dialogues: a sample, each asked about twice.

After the paper (arXiv 2406.12182, 2.1.1): 20,000 documents, Chinese and English 1:1, labelled twice by a language
model, those whose two labels differ dropped (17,000 stayed); the same with scores from 0 to 6, those dropped that
differ by about 2 (15,000 stayed). Of dialogues, complexity and quality are labelled the same way, from 1 to 6,
and whether they are unsafe.
"""

from data_tools.labelling.config import DOMAIN_LABELS, SAFETY_LABELS, LabelConfig, LabellingError
from data_tools.labelling.run import label, plan
from data_tools.labelling.subjects import guess_language

__all__ = ["DOMAIN_LABELS", "SAFETY_LABELS", "LabelConfig", "LabellingError", "guess_language", "label", "plan"]
