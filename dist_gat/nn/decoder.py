"""From two representations to a score.

Shape legend: B pairs or users, K items of a user, N rows of any kind, R representation size; rows that have own scores
are a column wider.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.config.model_sections import DecoderConfig
from dist_gat.nn.own_scores import has_own_scores

# Below this norm a row is scaled by 1/MIN_NORM instead, which bounds its gradient.
MIN_NORM = 1e-6


class Decoder(nn.Module):
    """score(u, i) = u^T i (dot), or cos(u, i) / temperature (cosine); with own scores + b_i. No parameters.

    The three score methods take rows as the dense model gives them. With own scores, their last column is b; the users'
    b is not added, because it is the same for all items.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.cosine = config.kind == "cosine"
        self.temperature = config.temperature if self.cosine else 1.0
        self.has_own_scores = has_own_scores(config)

    def ranking_rows(self, representation_NR: Tensor) -> Tensor:
        """Rows whose plain inner product is the score times the temperature, without own scores."""
        return functional.normalize(representation_NR, dim=-1, eps=MIN_NORM) if self.cosine else representation_NR

    def prepare(self, rows_NR: Tensor) -> Tensor:
        """`ranking_rows` of rows of the dense model, without their own scores."""
        return self.ranking_rows(rows_NR[..., :-1] if self.has_own_scores else rows_NR)

    def pair_scores(self, user_BR: Tensor, item_BR: Tensor) -> Tensor:
        """Each user with the item of the same position. Shape [B]."""
        scores_B = (self.prepare(user_BR) * self.prepare(item_BR)).sum(dim=-1) / self.temperature
        return scores_B + item_BR[:, -1] if self.has_own_scores else scores_B

    def cross_scores(self, user_BR: Tensor, item_NR: Tensor) -> Tensor:
        """Each user with every item. Shape [B, N]."""
        user_BR, prepared_RN = self.prepare(user_BR) / self.temperature, self.prepare(item_NR).T
        return torch.addmm(item_NR[:, -1], user_BR, prepared_RN) if self.has_own_scores else user_BR @ prepared_RN

    def per_user_scores(self, user_BR: Tensor, item_BKR: Tensor) -> Tensor:
        """Each user with K items of its own. Shape [B, K]."""
        scores_BK = torch.einsum("br,bkr->bk", self.prepare(user_BR), self.prepare(item_BKR)) / self.temperature
        return scores_BK + item_BKR[..., -1] if self.has_own_scores else scores_BK
