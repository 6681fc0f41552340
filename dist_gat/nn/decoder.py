"""From two representations to a score.

Shape legend: B pairs or users, K items of a user, N rows of any kind, R representation size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.config import DecoderConfig

# Below this norm a row is scaled by 1/MIN_NORM instead, which bounds its gradient.
MIN_NORM = 1e-6


class Decoder(nn.Module):
    """score(u, i) = u^T i (dot), or cos(u, i) / temperature (cosine). No parameters.

    The three score methods take representations as the encoder gives them.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.cosine = config.kind == "cosine"
        self.temperature = config.temperature if self.cosine else 1.0

    def prepare(self, rows_NR: Tensor) -> Tensor:
        """The rows whose inner product is the score times the temperature."""
        return functional.normalize(rows_NR, dim=-1, eps=MIN_NORM) if self.cosine else rows_NR

    def ranking_rows(self, rows_NR: Tensor) -> Tensor:
        """Rows of users and of items whose plain inner product orders the items of a user as the score does."""
        return self.prepare(rows_NR)

    def pair_scores(self, user_BR: Tensor, item_BR: Tensor) -> Tensor:
        """Each user with the item of the same position. Shape [B]."""
        return (self.prepare(user_BR) * self.prepare(item_BR)).sum(dim=-1) / self.temperature

    def cross_scores(self, user_BR: Tensor, item_NR: Tensor) -> Tensor:
        """Each user with every item. Shape [B, N]."""
        return (self.prepare(user_BR) / self.temperature) @ self.prepare(item_NR).T

    def per_user_scores(self, user_BR: Tensor, item_BKR: Tensor) -> Tensor:
        """Each user with K items of its own. Shape [B, K]."""
        return torch.einsum("br,bkr->bk", self.prepare(user_BR), self.prepare(item_BKR)) / self.temperature
