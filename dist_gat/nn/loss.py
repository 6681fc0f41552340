"""Losses of a positive score against sampled negatives, one value per seed.

Shape legend: B seeds, N negatives. `valid_BN` is False where a negative must not count, for instance because
the user has interacted with it. The trainer divides by the number of seeds of all workers, hence no mean here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bpr_loss(pos_B: Tensor, neg_BN: Tensor, valid_BN: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009): mean over valid negatives of -log sigmoid(pos - neg).

    0 for a seed without valid negatives. Shape [B].
    """
    loss_BN = functional.softplus(neg_BN - pos_B[:, None]).masked_fill(~valid_BN, 0.0)
    return loss_BN.sum(dim=1) / valid_BN.sum(dim=1).clamp(min=1)


def sampled_softmax_loss(
    pos_B: Tensor, neg_BN: Tensor, valid_BN: Tensor, log_expected_count_BN: Tensor | None = None
) -> Tensor:
    """-log(e^pos / (e^pos + sum_j e^(neg_j - log c_j))) over valid negatives j.

    c_j is how often item j is expected among the N draws; dividing by it makes the sum an unbiased estimate of
    the sum over all items (Bengio & Senecal 2008). Without it every negative counts once.

    Args:
        log_expected_count_BN: log c_j, of any shape that broadcasts to [B, N], or None for c = 1.

    Returns:
        The loss of each seed [B]; 0 for one without valid negatives.
    """
    if log_expected_count_BN is not None:
        neg_BN = neg_BN - log_expected_count_BN
    neg_BN = neg_BN.masked_fill(~valid_BN, -torch.inf)
    return torch.cat([pos_B[:, None], neg_BN], dim=1).logsumexp(dim=1) - pos_B
