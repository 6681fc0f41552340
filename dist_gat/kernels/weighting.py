"""`Weighting`: how a layer weighs the neighbours of its destinations, as data for whichever code computes it.

Shape legend: D destinations, F fan-out, H heads, I row size, Q queries (D, or 1 that all destinations share),
X output size of all heads together.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from torch import Tensor

# Two distinct float64 scores above 40 differ in s exp(s) by more than 1e3: their softmax is 0 or 1 already.
MAX_EXPONENT = 40.0
# A smaller sum of scores is too small to divide by.
MIN_SCORE_SUM = 1e-6


class Rule(enum.IntEnum):
    """How scores s become weights over the neighbours of a destination, for each head.

    GIVEN: there are no scores, the weights stand in `alpha_DFH`.
    SOFTMAX: softmax of LeakyReLU(s), with the negative slope `slope`; 1 leaves s as it is.
    EXP: softmax of s exp(s). LINEAR: s / sum s. `dist_gat.nn.scoring` defines EXP and LINEAR exactly.
    """

    GIVEN = 0
    SOFTMAX = 1
    EXP = 2
    LINEAR = 3


@dataclass(frozen=True)
class Weighting:
    """Given weights alpha_DFH, or the scores s_ui = query_u^T l_i + own^T h_u + bias_ui and the rule that turns them
    into weights.

    mean: the aggregate takes the mean of the heads' weights, instead of one aggregate for each head.
    value_XI: each head's aggregate is projected by its X / H rows of this matrix, side by side; not with `mean`.
    """

    rule: Rule
    alpha_DFH: Tensor | None = None
    query_QHI: Tensor | None = None
    own_HI: Tensor | None = None
    bias_DFH: Tensor | None = None
    slope: float = 1.0
    mean: bool = False
    value_XI: Tensor | None = None
