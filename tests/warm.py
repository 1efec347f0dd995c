"""What a rank needs before it can do anything, and what takes seconds: imported once, and forked from there."""

import gc

import torch

import megatron_aquila.trainer  # noqa: F401

torch.set_num_threads(1)
gc.freeze()  # nothing of this is ever garbage
