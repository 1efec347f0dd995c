"""The Python face of csrc: log-probabilities of target tokens, and losses on pairs of answers.

- `token_logps`: from vocabulary-parallel logits;
- `linear`: from hidden states and the output weight, without the logits ever being whole;
- `preference`: DPO and its relatives on packed sequences;
- `ops`: the kernels as torch operators;
- `reference`: the same functions in plain torch, in any precision, to compare with.
"""

from typing import Literal, get_args

# Targets with this id carry no loss; torch's cross-entropy and the Hugging Face data collators use the same.
IGNORE_INDEX = -100

# Losses on pairs of answers, in the order of the kernel's numbers, and which of them know which constant.
Loss = Literal["sigmoid", "robust", "hinge", "ipo", "simpo", "orpo"]
PREFERENCE_LOSSES: tuple[Loss, ...] = get_args(Loss)
REFERENCE_FREE = ("simpo", "orpo")
BY_LENGTH = ("ipo", "simpo", "orpo")  # divide by length of their own accord
WITH_LABEL_SMOOTHING = ("sigmoid", "robust", "simpo")
WITH_MARGIN = ("simpo",)
