"""Random blocks, attention variants and inputs of `attend` that the tests of this folder share.

Kernels are compiled anew for each kind of number, each number of heads and each size of rows, which takes a while. So
all tests, those of whole runs too, take their shapes from `PALETTE`; test_palette.py shows that it has every branch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from dist_gat.config.model_sections import AttentionConfig
from dist_gat.graph.schema import Relation, Schema
from dist_gat.kernels.weighting import Rule, Weighting
from dist_gat.nn.edge_terms import edge_kinds
from dist_gat.sampling.block import Block


class Shape(NamedTuple):
    """Rows of `size` numbers, and numbers of heads whose aggregates are projected to `head_size` numbers each, or not.

    Of several heads that are not projected, tests have the mean of the aggregates, too.
    """

    dtype: torch.dtype
    heads: tuple[int, ...]
    size: int
    head_size: int


PALETTE = {
    # of training runs, and the same lanes of 64 bytes for runs and gradients in float64
    "float32": Shape(torch.float32, (1, 2), 16, 8),
    "float64": Shape(torch.float64, (1, 2), 8, 4),
    # lanes as wide as there are, several to a row
    "wide": Shape(torch.float64, (5,), 96, 96),
    # number by number
    "odd": Shape(torch.float64, (1,), 37, 0),
}
SIZE_OF = {shape.dtype: shape.size for shape in (PALETTE["float32"], PALETTE["float64"])}

VARIANTS = [
    {"scoring": "dot"},
    {"scoring": "dot", "num_heads": 2},
    {"scoring": "dot", "normalization": "linear"},
    {"scoring": "dot", "num_heads": 2, "transform": "mlp"},
    {"scoring": "dot_exp", "num_heads": 2},
    {"scoring": "additive", "num_heads": 2},
    {"scoring": "additive_v2", "num_heads": 2},
    {"scoring": "uniform"},
    {"scoring": "degree"},
    {"scoring": "degree", "terms": ["rank", "degree"]},
    {"scoring": "degree_dot", "num_heads": 2},
    {"scoring": "dot", "num_heads": 2, "terms": ["relation", "age", "weight"]},
    {"scoring": "additive", "num_heads": 2, "terms": ["rank"]},
    {"scoring": "dot", "softmax": "relation", "projection": "relation"},
    {"scoring": "additive", "num_heads": 2, "keys": ["relation"], "projection": "relation"},
]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))


SCHEMA = Schema(
    ("user", "item", "tag"),
    (
        Relation("buy", "user", "item", columns=("weight", "time")),
        Relation("friends", "user", "user"),
        Relation("follows", "user", "user", directed=True),
        Relation("kg", "item", "tag", has_pairs=False, columns=("category",), categories=("a", "b", "c")),
    ),
)
KINDS = edge_kinds(SCHEMA, {"buy": {"mean": 3.0, "deviation": 0.5, "log_mean": 1.4, "log_deviation": 0.2}})


def attention(**settings: object) -> AttentionConfig:
    return AttentionConfig.model_validate(settings)


def random_block(seed: int, num_dst: int = 7, num_src: int = 12, fan_out: int = 4) -> Block:
    """Distinct neighbours; the first destinations have 0, 1, 2, ... neighbours."""
    generator = torch.Generator().manual_seed(seed)
    neighbors_DF = torch.zeros(num_dst, fan_out, dtype=torch.int64)
    count_D = torch.arange(num_dst) % (fan_out + 1)
    for u, count in enumerate(count_D.tolist()):
        neighbors_DF[u, :count] = torch.randperm(num_src, generator=generator)[:count]
    degree_SK = torch.randint(1, 9, (num_src, 1), generator=generator)
    return Block(neighbors_DF, count_D, num_src, degree_SK, edges=random_edges(num_dst, fan_out, generator))


def random_edges(num_dst: int, fan_out: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """What the edges of a block carry, in a graph of one edge type that leads to each node type."""
    shape = (num_dst, fan_out)
    return {
        "weight": torch.randn(shape, generator=generator),
        "age": 20 * torch.rand(shape, generator=generator),
        "rank": torch.randint(0, 90, shape, generator=generator),
    }


def ragged_block(seed: int, num_dst: int, num_src: int, fan_out: int) -> Block:
    """Neighbours may repeat, padding points anywhere, some destinations have no neighbours, some sources no edge."""
    generator = torch.Generator().manual_seed(seed)
    neighbors_DF = torch.randint(0, max(num_src, 1), (num_dst, fan_out), generator=generator)
    return Block(neighbors_DF, torch.randint(0, fan_out + 1, (num_dst,), generator=generator), num_src)


def block_of_kinds(seed: int = 0, num_dst: int = 6, num_src: int = 15, fan_out: int = 8) -> Block:
    """Edges of all types of `SCHEMA`, whatever they lead to, with what they carry."""
    generator = torch.Generator().manual_seed(seed)
    block = ragged_block(seed, num_dst, num_src, fan_out)
    shape = block.neighbors_DF.shape
    edges = {
        "kind": torch.randint(0, len(KINDS.slot), shape, generator=generator),
        "category": torch.randint(0, 3, shape, generator=generator),
        "weight": 3 + torch.randn(shape, generator=generator),
        "age": 40 * torch.rand(shape, generator=generator),
        "rank": torch.randint(0, 10**5, shape, generator=generator),
    }
    return replace(block, edges=edges, degree_SK=torch.randint(0, 9, (num_src, 3), generator=generator))


def case(seed, block, rule, num_heads, size, shared, mean, own, bias=False, dtype=torch.float64, head_size=0):  # type: ignore[no-untyped-def]
    """Leaves (rows, and what the weighting needs), and the function that makes the weighting of them.

    own, bias: whether scores, where there are any, have a part of the destination, and one of the edge.
    With a `head_size` the last leaf is a matrix that projects each head's aggregate; then there is no mean.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        # positive numbers keep the sums of linear weights away from their guard
        numbers = torch.rand(shape, generator=generator, dtype=dtype)
        return (numbers + 0.1 if rule == Rule.LINEAR else 2 * numbers - 1).requires_grad_()

    if head_size:
        value = draw(num_heads * head_size, size)
        leaves, weighting_of = case(seed, block, rule, num_heads, size, shared, False, own, bias, dtype)
        return [*leaves, value], lambda *x: replace(weighting_of(*x[:-1]), value_XI=x[-1])
    rows = draw(block.num_src, size)
    if rule == Rule.GIVEN:
        alpha = draw(block.num_dst, block.neighbors_DF.shape[1], num_heads)
        masked = lambda a: a * block.mask_DF().to(a.device)[:, :, None]  # noqa: E731
        return [rows, alpha], lambda _, a: Weighting(rule, masked(a), mean=mean)
    leaves = [rows, draw(1 if shared else block.num_dst, num_heads, size)] + [draw(num_heads, size)] * own
    leaves += [draw(*block.neighbors_DF.shape, num_heads)] * bias

    def weighting_of(_, query, *others):
        return Weighting(
            rule,
            query_QHI=query,
            own_HI=others[0] if own else None,
            bias_DFH=others[-1] if bias else None,
            slope=0.2,
            mean=mean,
        )

    return leaves, weighting_of


def run(function, leaves, weighting_of, block):
    """z, alpha, and the gradients of the leaves for a fixed upstream gradient."""
    z_DGI, alpha_DFH = function(leaves[0], block, weighting_of(*leaves))
    # exact in every type
    upstream_DGI = ((torch.arange(z_DGI.numel(), device=z_DGI.device) % 7 - 3) / 4).to(z_DGI.dtype).view_as(z_DGI)
    return [z_DGI, alpha_DFH, *torch.autograd.grad(z_DGI, leaves, upstream_DGI)]
