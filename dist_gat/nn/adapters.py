"""Adapters: a few trained parameters on top of a model that stays as it is.

low_rank: W + (alpha / r) B A in place of a matrix W of the attention (LoRA, Hu et al., ICLR 2022), and
e + (alpha / r) B A e in place of an embedding row e, so that a few parameters move whole tables. B starts at 0.
bias: what the model adds is trained, and e + b in place of e (BitFit, Ben Zaken et al., ACL 2022).

A matrix is adapted where it is read, through torch's parametrizations, so that no layer knows of adapters.

Shape legend: S rows, E embedding size, I and O sizes of a matrix, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dist_gat.base.errors import ConfigError
from dist_gat.base.random import Purpose, make_key
from dist_gat.config.model_sections import AdapterConfig
from dist_gat.nn.recommender import DenseModel, Recommender

# parameters of layers that are matrices, beside the weights of `nn.Linear`
MATRICES = ("key_HII", "weight_TOO")
ADAPTER_STREAM = 1
ROWS_AT_ONCE = 1 << 14


class LowRank(nn.Module):
    """W + scale B A. down: A [..., r, I]. up: B [..., O, r], which starts at 0."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        *several, num_out, num_in = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(*several, rank, num_in).normal_(0, 1 / math.sqrt(num_in)))
        self.up = nn.Parameter(weight.new_zeros(*several, num_out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


class LowRankRows(nn.Module):
    """e + scale B A e: a projection of rows that starts as the identity. down: A [r, E]. up: B [E, r]."""

    def __init__(self, like: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        size = like.shape[1]
        self.scale = alpha / rank
        self.down = nn.Parameter(like.new_empty(rank, size).normal_(0, 1 / math.sqrt(size)))
        self.up = nn.Parameter(like.new_zeros(size, rank))

    def forward(self, rows_SE: Tensor) -> Tensor:
        return rows_SE + self.scale * (rows_SE @ self.down.T) @ self.up.T


class RowBias(nn.Module):
    """e + b. bias: b [E], which starts at 0."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(like.new_zeros(like.shape[1]))

    def forward(self, rows_SE: Tensor) -> Tensor:
        return rows_SE + self.bias


def add_adapter(model: Recommender, config: AdapterConfig, seed: int) -> None:
    """Freeze encoder, inputs and, unless they train too, ID rows, and add what is trained instead; its initial values
    depend on the seed alone.

    Nodes' own scores and the head of a task stay trained: they belong to the task. Raises `ConfigError` where the
    layers have nothing to adapt.
    """
    dense = model.dense
    if config.rows == "frozen":
        model.table.weight.requires_grad_(False)
    for part in (dense.encoder, dense.inputs):
        part.requires_grad_(False)
    if config.kind == "bias":
        for name, parameter in dense.encoder.named_parameters():
            parameter.requires_grad_(is_added(name))
        dense.row_adapter = RowBias(model.table.weight)
        return
    places = list(matrices(dense)) if "attention" in config.of else []
    if config.of == ["attention"] and not places:
        raise ConfigError(
            "model.adapter.of=[attention]: the layers of this model.scoring have no matrices; add embeddings"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(make_key(seed, Purpose.WEIGHTS, ADAPTER_STREAM) >> np.uint64(1)))
        for module, name in places:
            parametrize.register_parametrization(
                module, name, LowRank(getattr(module, name), config.rank, config.alpha)
            )
        if "embeddings" in config.of:
            dense.row_adapter = LowRankRows(model.table.weight, config.rank, config.alpha)


def matrices(dense: DenseModel) -> Iterator[tuple[nn.Module, str]]:
    """The matrices of the attention layers: the module and the name of each."""
    for module in list(dense.encoder.layers.modules()):
        for name, _ in list(module.named_parameters(recurse=False)):
            if name in MATRICES or (isinstance(module, nn.Linear) and name == "weight"):
                yield module, name


def is_added(name: str) -> bool:
    """Whether a parameter of the encoder is added to something: a bias, a term of a logit, the number of a gate."""
    return ".terms." in name or name.endswith(("bias", "gate.number_T"))


@torch.no_grad()
def merge_adapter(model: Recommender) -> None:
    """Turn the adapted model into a plain one with the same rows, in place."""
    for module in list(model.dense.encoder.modules()):
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    if model.dense.row_adapter is not None:
        for rows in model.table.weight.split(ROWS_AT_ONCE):
            rows.copy_(model.dense.row_adapter(rows))
        model.dense.row_adapter = None
