"""``python -m megatron_aquila`` is the command ``aquila``; torchrun and Slurm start it this way."""

from megatron_aquila.cli import main

# dist_checkpointing spawns processes that import this module again
if __name__ == "__main__":
    main()
