"""Ordinal ratings: a probability for each level of a scale.

Shape legend: B pairs, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from dist_gat.tasks.rating import RatingLikelihood

# between two thresholds: levels that hardly occur would have none
LEAST_GAP = 1e-3


class OrdinalLikelihood(RatingLikelihood):
    """P(label > level l) = sigmoid(value - threshold_l), the proportional odds of McCullagh (JRSS B 1980).

    Thresholds ascend and are learned; they start where a value of 0 gives the shares of the training labels. The
    prediction is the mean of the distribution, which has the least squared error.
    """

    loss_name = "ordinal"
    level_L: Tensor

    def __init__(self, levels: Sequence[float], counts: Sequence[int]) -> None:
        # the mean of levels needs no clipping
        super().__init__(clip=False, mean=0.0, smallest=levels[0], largest=levels[-1])
        self.register_buffer("level_L", torch.tensor(levels, dtype=torch.float64), persistent=False)
        shares = (np.array(counts, np.float64) + 1) / (sum(counts) + len(counts))
        above = 1 - np.cumsum(shares)[:-1]
        thresholds = -np.log(above / (1 - above))
        gaps = np.maximum(np.diff(thresholds), LEAST_GAP)
        self.first = nn.Parameter(torch.tensor(thresholds[0], dtype=torch.float32))
        # softplus of these are the gaps
        self.gap_L = nn.Parameter(torch.tensor(np.log(np.expm1(gaps)), dtype=torch.float32))

    def thresholds(self) -> Tensor:
        """[L - 1], ascending."""
        return torch.cat([self.first[None], self.first + softplus(self.gap_L).cumsum(0)])

    def loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        """-log P(label), with P(level l) = sigmoid(value - threshold_(l-1)) - sigmoid(value - threshold_l)."""
        number_B = torch.searchsorted(self.level_L.to(label_B.dtype), label_B.contiguous())
        infinity = self.first.new_full((1,), torch.inf)
        ends = torch.cat([-infinity, self.thresholds(), infinity])
        below_B, above_B = value_B - ends[number_B], value_B - ends[number_B + 1]
        # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a))
        gap_B = (below_B - above_B).clamp(min=1e-6)
        return -(logsigmoid(below_B) + logsigmoid(-above_B) + torch.log(-torch.expm1(-gap_B)))

    def predict(self, values: np.ndarray) -> np.ndarray:
        levels, thresholds = self.level_L.double().cpu().numpy(), self.thresholds().detach().double().cpu().numpy()
        above = expit(np.asarray(values)[..., None] - thresholds)
        return levels[0] + above @ np.diff(levels)
