"""Filling a model's parameters from global tensors, whatever holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from megatron_aquila.engine.model import residual_std
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.placement import place_parameters
from megatron_aquila.global_tensors import TensorReader, global_shapes
from megatron_aquila.shapes import ModelShape


class RandomWeights:
    """Normal(0, σ) weights that do not depend on the layout: each global tensor has a generator of its own.

    Projections into the residual stream have σ / sqrt(2 L); norms are 1 and biases 0.
    """

    def __init__(self, shape: ModelShape, seed: int, init_std: float) -> None:
        self._shapes = global_shapes(shape)
        self._seed = seed
        self._std = init_std
        self._residual_std = residual_std(init_std, shape.num_layers)
        self._last: tuple[str, torch.Tensor] | None = None

    def read(self, key: str, offset: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
        if self._last is None or self._last[0] != key:
            self._last = (key, self._draw(key))
        tensor = self._last[1]
        for dim, (start, length) in enumerate(zip(offset, shape)):
            tensor = tensor.narrow(dim, start, length)
        return tensor

    def _draw(self, key: str) -> torch.Tensor:
        if key.endswith("layernorm.weight"):
            return torch.ones(self._shapes[key])
        if key.endswith(".bias"):
            return torch.zeros(self._shapes[key])
        digest = hashlib.sha256(f"{self._seed}/{key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        residual = key.endswith(("linear_proj.weight", "linear_fc2.weight"))
        std = self._residual_std if residual else self._std
        return torch.empty(self._shapes[key]).normal_(0.0, std, generator=generator)


@torch.no_grad()
def load_weights(
    chunks: Sequence[torch.nn.Module],
    shape: ModelShape,
    layout: Layout,
    reader: TensorReader,
    prefix: str = "",
) -> None:
    """Fill every parameter of this rank; vocabulary padding becomes 0, and stays 0 under training.

    Each rank reads only the slices it holds. Values are cast to the parameter's dtype.
    """
    for parameter, placement in place_parameters(chunks, shape, layout):
        if sum(torch.Size(block.extent).numel() for block in placement.blocks) != parameter.numel():
            parameter.zero_()
        for view, offset in placement.views(parameter.view(-1)):
            view.copy_(reader.read(prefix + placement.name, offset, tuple(view.shape)))
