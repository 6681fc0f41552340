"""Random blocks and the list of attention variants that the tests of this folder share."""

from __future__ import annotations

import pytest
import torch

from dist_gat.config import AttentionConfig
from dist_gat.sampling.block import Block

VARIANTS = [
    {"scoring": "dot"},
    {"scoring": "dot", "num_heads": 3},
    {"scoring": "dot", "normalization": "linear"},
    {"scoring": "dot", "num_heads": 2, "transform": "mlp"},
    {"scoring": "dot_exp", "num_heads": 2},
    {"scoring": "additive", "num_heads": 2},
    {"scoring": "additive_v2", "num_heads": 2},
    {"scoring": "uniform"},
    {"scoring": "degree"},
]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))


def attention(**settings: object) -> AttentionConfig:
    return AttentionConfig.model_validate(settings)


def random_block(seed: int, num_dst: int = 7, num_src: int = 12, fan_out: int = 4) -> Block:
    """Distinct neighbours; the first destinations have 0, 1, 2, ... neighbours."""
    generator = torch.Generator().manual_seed(seed)
    neighbors_DF = torch.zeros(num_dst, fan_out, dtype=torch.int64)
    count_D = torch.arange(num_dst) % (fan_out + 1)
    for u, count in enumerate(count_D.tolist()):
        neighbors_DF[u, :count] = torch.randperm(num_src, generator=generator)[:count]
    return Block(neighbors_DF, count_D, num_src, torch.randint(1, 9, (num_src,), generator=generator))
