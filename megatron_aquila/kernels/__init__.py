"""The Python face of csrc: log-probabilities of target tokens, and losses on pairs of answers.

- `token_logps`: from vocabulary-parallel logits;
- `linear`: from hidden states and the output weight, without the logits ever being whole;
- `preference`: DPO and its relatives on packed sequences;
- `ops`: the kernels as torch operators;
- `reference`: the same functions in plain torch, in any precision, to compare with.
"""

# Targets with this id carry no loss; torch's cross-entropy and the Hugging Face data collators use the same.
IGNORE_INDEX = -100
