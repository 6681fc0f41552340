"""`SimilarNodes`: items that are like an item, and users like a user, by the cosine of their representations.

Own scores and biases, which are columns beside a representation, and the filters of the blend have no part in it.

Shape legend: n nodes asked about, m nodes of a block, R size of ranking rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from dist_gat.evaluate.topk import RunningTopK, known_items
from dist_gat.kernels.products import add_products
from dist_gat.kernels.threads import cut
from dist_gat.nn.own_scores import has_own_scores
from dist_gat.serve.ranker import ITEM_BLOCK, Ranker, positive
from dist_gat.serve.saved_model import RANKING_ROWS

BIASES = 2  # columns of a pair's head, see `PairDecoder.rows`


@dataclass(frozen=True)
class SimilarNodes:
    """size: columns of the ranking rows that are the representation. scales: by part, float32, 1 over the norms of its
    nodes, each computed once."""

    ranker: Ranker
    size: int
    scales: Callable[[int], np.ndarray]

    def best(self, kind: str, nodes: np.ndarray, k: int) -> RunningTopK:
        """The K nodes of a type that are most like each of some, int64 [n], without itself; scores are cosines."""
        rows_nR = self.ranker.rows_of_users(nodes)[:, : self.ranker.rows(0)[0].shape[1]]
        rows_nR[:, self.size :] = 0
        unit_nR = rows_nR * inverse(np.linalg.norm(rows_nR, axis=1))[:, None]
        itself = known_items(np.arange(len(nodes)), [np.stack([np.arange(len(nodes)), nodes], axis=1)])
        best, ranges = RunningTopK(len(nodes), positive(k)), self.ranker.model.ranges
        for part in range(ranges.num_parts):
            own, first_node = ranges.nodes_of_type(part, kind), int(ranges.starts[part])
            scale, rows = self.scales(part), self.ranker.rows(part)[0]
            for first in range(own.start, own.stop, ITEM_BLOCK):
                block = slice(first - first_node, min(first + ITEM_BLOCK, own.stop) - first_node)
                cosines_nm = np.zeros((len(nodes), block.stop - block.start), np.float32)
                add_products([unit_nR], [rows[block]], cosines_nm)
                best.merge(0, cosines_nm * scale[block], first, itself)
        return best


def open_similar(ranker: Ranker) -> SimilarNodes:
    model = ranker.model
    has_biases = any(saved["rows"] == RANKING_ROWS for saved in model.manifest["pairs"].values())
    more = BIASES if has_biases else int(has_own_scores(model.config.model.decoder))
    size = model.row_sizes[RANKING_ROWS] - more

    def scales(part: int) -> np.ndarray:
        rows = ranker.rows(part)[0]
        blocks = [rows[block, :size] for block in cut(len(rows), ITEM_BLOCK)]
        return inverse(np.concatenate([np.zeros(0), *(np.linalg.norm(block, axis=1) for block in blocks)]))

    return SimilarNodes(ranker, size, cache(scales))


def inverse(norms: np.ndarray) -> np.ndarray:
    """float32, 0 for 0."""
    return np.divide(1, norms, out=np.zeros(len(norms), np.float32), where=norms > 0, dtype=np.float32)
