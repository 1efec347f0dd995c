"""lm-eval's own command, with our models known to it: `python -m megatron_aquila.evaluation run --model aquila …`.

lm-eval 0.4.13 finds no models of other packages by itself.
"""

from lm_eval.__main__ import cli_evaluate

from megatron_aquila.evaluation import lm as lm  # registers the model

if __name__ == "__main__":
    cli_evaluate()
