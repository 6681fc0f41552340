"""From two representations to a score.

Shape legend: B pairs or users, K items of a user, N rows of any kind, R representation size, one more with popularity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.config import DecoderConfig

# Below this norm a row is scaled by 1/MIN_NORM instead, which bounds its gradient.
MIN_NORM = 1e-6


class Decoder(nn.Module):
    """score(u, i) = u^T i (dot), or cos(u, i) / temperature (cosine); with `popularity` + b_i. No parameters.

    The three score methods take representations as the dense model gives them. With `popularity` their last column is
    b; that of users counts for nothing, as it is the same for all items.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.cosine = config.kind == "cosine"
        self.temperature = config.temperature if self.cosine else 1.0
        self.popularity = config.popularity

    def prepare(self, rows_NR: Tensor) -> Tensor:
        """The rows whose inner product is the score, without popularity, times the temperature."""
        rows_NR = rows_NR[..., :-1] if self.popularity else rows_NR
        return functional.normalize(rows_NR, dim=-1, eps=MIN_NORM) if self.cosine else rows_NR

    def ranking_rows(self, rows_NR: Tensor, is_item_N: Tensor | None = None) -> Tensor:
        """Rows whose plain inner product orders the items of a user as the score does.

        is_item_N: bool, which of the rows are of items; asked for where there is popularity.
        """
        if not self.popularity:
            return self.prepare(rows_NR)
        assert is_item_N is not None, "the popularity of items counts, that of users doesn't"
        last_N = torch.where(is_item_N, rows_NR[:, -1] * self.temperature, 1.0)
        return torch.cat([self.prepare(rows_NR), last_N[:, None]], dim=1)

    def pair_scores(self, user_BR: Tensor, item_BR: Tensor) -> Tensor:
        """Each user with the item of the same position. Shape [B]."""
        scores_B = (self.prepare(user_BR) * self.prepare(item_BR)).sum(dim=-1) / self.temperature
        return scores_B + item_BR[:, -1] if self.popularity else scores_B

    def cross_scores(self, user_BR: Tensor, item_NR: Tensor) -> Tensor:
        """Each user with every item. Shape [B, N]."""
        user_BR, prepared_RN = self.prepare(user_BR) / self.temperature, self.prepare(item_NR).T
        return torch.addmm(item_NR[:, -1], user_BR, prepared_RN) if self.popularity else user_BR @ prepared_RN

    def per_user_scores(self, user_BR: Tensor, item_BKR: Tensor) -> Tensor:
        """Each user with K items of its own. Shape [B, K]."""
        scores_BK = torch.einsum("br,bkr->bk", self.prepare(user_BR), self.prepare(item_BKR)) / self.temperature
        return scores_BK + item_BKR[..., -1] if self.popularity else scores_BK
