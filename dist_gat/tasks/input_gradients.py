"""Norms of gradients by the weights of column encoders, one for each user of a private step.

The encoders are linear in their weights W: the input row of item i is e_i + Σ φ_i W, see `Factors`. With the gradient
G_u of a user's loss by all input rows, that by an encoder's weights is Φᵀ G_u, and it is formed for a few users at a
time. Rows of G_u are those of own and predicted items, and s_u z_uᵀ, of rank one, for negatives:

    Φᵀ G_u = Σ_r φ_r g_urᵀ + (Σ_n s_un φ_n) z_uᵀ

The sum over users of cut gradients needs none of this: it is Φᵀ times the sum of the cut G_u, which a backward pass
through the encoders makes.

Shape legend: B users, b of them at a time, R own and predicted items of a user, N negatives, S nodes of the batch, L
factors of a node, D rows of weights, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dist_gat.nn.inputs.input_encoder import Factors

CHUNK = 1 << 22  # numbers of the gradients that are formed at a time


class RowGradients(NamedTuple):
    """The gradients by rows of some users. rows_BRE: of the nodes at_BR among S, int64. score_BN, user_BE: s and z, of
    the nodes at_N."""

    at_BR: Tensor
    rows_BRE: Tensor
    at_N: Tensor
    score_BN: Tensor
    user_BE: Tensor

    def of(self, users: slice) -> RowGradients:
        return RowGradients(
            self.at_BR[users], self.rows_BRE[users], self.at_N, self.score_BN[users], self.user_BE[users]
        )


def input_squares(factors: Sequence[Factors], by_rows: RowGradients) -> Tensor:
    """[B]: the squared norm of each user's gradient by the weights of all these encoders. factors: of S nodes."""
    squares_B = by_rows.user_BE.new_zeros(len(by_rows.user_BE))
    for own in factors:
        most = max(1, CHUNK // (own.size * by_rows.user_BE.shape[1]))
        for start in range(0, len(squares_B), most):
            users = slice(start, start + most)
            squares_B[users] += by_weights(own, by_rows.of(users)).square().sum(dim=(1, 2))
    return squares_B


def by_weights(own: Factors, by_rows: RowGradients) -> Tensor:
    """[b, D, E]: the gradient of each user by the weights of an encoder."""
    at_bR, rows_bRE, at_N, score_bN, user_bE = by_rows
    value_bRL, value_NL = own.value_nL[at_bR], own.value_nL[at_N]
    if own.code_nL is None:
        found_bDE, negative_bD = value_bRL.mT @ rows_bRE, score_bN @ value_NL
    else:
        code_bRL, code_NL = own.code_nL[at_bR], own.code_nL[at_N]
        found_bDE = rows_bRE.new_zeros(len(at_bR), own.size, rows_bRE.shape[2])
        negative_bD = rows_bRE.new_zeros(len(at_bR), own.size)
        first_b1 = torch.arange(len(at_bR), device=at_bR.device)[:, None] * own.size
        for place in range(code_NL.shape[1]):
            weighted_bRE = value_bRL[:, :, place, None] * rows_bRE
            at = (first_b1 + code_bRL[:, :, place]).flatten()
            found_bDE.view(-1, rows_bRE.shape[2]).index_add_(0, at, weighted_bRE.flatten(0, 1))
            negative_bD.index_add_(1, code_NL[:, place], score_bN * value_NL[:, place])
    return found_bDE.addcmul_(negative_bD[:, :, None], user_bE[:, None, :])
