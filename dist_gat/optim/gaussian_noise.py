"""`GaussianNoise`: the `GradientRule` that hides a user in the sum of cut gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.nn.recommender import Recommender
from dist_gat.privacy.noise import derived_key, normal_noise


@dataclass(frozen=True)
class GaussianNoise:
    """Adds N(0, std²) to the gradient of every weight and of every row of `rows`, of which all then have one.

    std: noise multiplier times clip, over the expected users of a step. first_node: of this rank. rows: int64 numbers
    among this rank's rows, in order: of the items; other rows lose their gradient. secret: of the run.

    Noise is a function of (secret, step, node or weight): each row gets it once, from its owner, and dense weights get
    the same on every rank, after their gradients were summed.
    """

    std: float
    first_node: int
    rows: np.ndarray
    secret: bytes

    @torch.no_grad()
    def apply(self, model: Recommender, norm: float, step: int) -> None:
        table = model.table.weight
        if table.requires_grad:
            table.grad = self.with_noise_on_rows(table, step)
        key, first = derived_key(self.secret, "noise of dense weights"), 0
        for parameter in model.dense.parameters():
            if parameter.requires_grad:
                noise = torch.from_numpy(normal_noise(key, step, first, parameter.numel(), 1))
                own = (self.std * noise).to(parameter).view_as(parameter)
                parameter.grad = own if parameter.grad is None else parameter.grad + own
            first += parameter.numel()

    def with_noise_on_rows(self, table: Tensor, step: int) -> Tensor:
        """The sparse gradient of all `rows`, with noise."""
        key, size = derived_key(self.secret, "noise of rows"), table.shape[1]
        values = np.concatenate(
            [normal_noise(key, step, self.first_node + first, count, size) for first, count in runs_of(self.rows)]
            or [np.zeros((0, size))]
        )
        values_NE, rows = (
            torch.from_numpy(values).mul_(self.std).to(table),
            torch.from_numpy(self.rows).to(table.device),
        )
        if table.grad is not None:
            gradient = table.grad.coalesce()
            place_O = rows.new_full((len(table),), -1).index_copy_(0, rows, torch.arange(len(rows), device=rows.device))
            place = place_O[gradient.indices()[0]]
            values_NE.index_add_(0, place[place >= 0], gradient.values()[place >= 0])
        return torch.sparse_coo_tensor(rows[None], values_NE, table.shape, check_invariants=False, is_coalesced=True)


def runs_of(rows: np.ndarray) -> list[tuple[int, int]]:
    """The first and the length of each run of consecutive numbers."""
    begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    return [(int(rows[at]), int(count)) for at, count in zip(begins, np.diff(begins, append=len(rows)), strict=True)]
