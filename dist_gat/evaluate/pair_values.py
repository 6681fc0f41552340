"""Values of given pairs, over sharded representations: exact, in bounded memory, the same on any number of ranks.

Shape legend: O own nodes, R representation size, m pairs, n pairs of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.evaluate.inference import fetch_rows
from dist_gat.evaluate.user_sample import UserSample
from dist_gat.exchange.long_work import padded
from dist_gat.exchange.route import share_rows
from dist_gat.exchange.worker import Worker
from dist_gat.nn.pair_head import PairDecoder
from dist_gat.sampling.ownership import Ownership

PAIRS_PER_CHUNK = 1 << 16
NOTHING = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class PartPairs:
    """int64 [m, 2] pairs whose sources are of one part. labels: float32 [m]. offsets: [m], added to values, or None."""

    pairs: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray | None = None

    def of(self, sample: UserSample) -> PartPairs:
        """Those of the users of a sample."""
        mine = sample.has(np.asarray(self.pairs[:, 0]))
        return PartPairs(self.pairs[mine], self.labels[mine], None if self.offsets is None else self.offsets[mine])


@dataclass(frozen=True)
class PairValues:
    """Of all pairs of a split, in the order of the parts: pairs int64 [m, 2], labels and values float64 [m]."""

    pairs: np.ndarray
    labels: np.ndarray
    values: np.ndarray


@torch.no_grad()
def infer_pair_values(
    decoder: PairDecoder, rows_OR: Tensor, of_parts: Sequence[PartPairs], ownership: Ownership, worker: Worker
) -> PairValues:
    """What a task says of pairs, from the representations of each rank's nodes. Collective; the same on every rank.

    of_parts: of each part of this rank.
    """
    # chunks are cut inside parts, so that a pair is computed by the same operations on any number of ranks
    own_chunks = [
        part.pairs[start : start + PAIRS_PER_CHUNK]
        for part in of_parts
        for start in range(0, len(part.pairs), PAIRS_PER_CHUNK)
    ]
    chunks = padded(own_chunks, NOTHING, worker.rows)
    values = [
        chunk_values(decoder, rows_OR, chunk, ownership, worker)
        for chunk in worker.steps("values of pairs", chunks, len(chunks))
    ]
    offsets = [np.zeros(len(part.pairs)) if part.offsets is None else part.offsets for part in of_parts]
    own = (
        np.concatenate([part.pairs for part in of_parts]),
        np.concatenate([part.labels for part in of_parts]).astype(np.float64),
        torch.cat([rows_OR.new_zeros(0), *values]).double().cpu().numpy() + np.concatenate(offsets),
    )
    return PairValues(*(share_rows(torch.from_numpy(each), worker.control).numpy() for each in own))


def chunk_values(
    decoder: PairDecoder, rows_OR: Tensor, pairs: np.ndarray, ownership: Ownership, worker: Worker
) -> Tensor:
    """[n]: of int64 [n, 2] pairs whose sources this rank owns. Collective."""
    targets, place = np.unique(pairs[:, 1], return_inverse=True)
    target_rows = fetch_rows(rows_OR, torch.from_numpy(targets), ownership, worker.rows)
    at = torch.from_numpy(pairs[:, 0] - ownership.first_node).to(rows_OR.device)
    target_at = torch.from_numpy(place).to(rows_OR.device)
    return decoder.values(rows_OR.index_select(0, at), target_rows.index_select(0, target_at))
