"""Scorers: what says of a text which domain it is of, or how good it is; trained from labelled seeds, kept as a
directory, and the same trainer for corpora and dialogues.
"""

from data_tools.scorers.directory import load_scorer
from data_tools.scorers.protocol import KINDS, Scorer, Task

__all__ = ["KINDS", "Scorer", "Task", "load_scorer"]
