"""`l2_term`: the penalty on the ID embeddings that a step is about.

Shape legend: S outermost sources, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def l2_term(weight: float, embedding_SE: Tensor, at: Sequence[Tensor], num_global_seeds: int) -> dict[str, Tensor]:
    """The loss term `l2`, this rank's share of a mean over all seeds; none with a weight of 0.

    at: positions among S of the seeds' nodes, each as often as it is met.
    """
    if not weight:
        return {}
    met = embedding_SE[torch.cat([positions.flatten() for positions in at])]
    return {"l2": weight * met.square().sum() / (2 * num_global_seeds)}
