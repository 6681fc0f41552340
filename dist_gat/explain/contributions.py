"""`contributions`: by how much a score falls without each of a user's edges, one at a time.

The user is computed once more for each edge, without it, in all layers; its neighbours keep what they heard of the
user. With one layer that is what deletion from the message graph gives. With more it leaves out that a neighbour would
no longer hear of the user, which the deletions of `fidelity`, both ways, do not.

Shape legend: S nodes of the sub-graph, d edges of the user, n of them that are left out in turn, L layers, K edge types
that lead to one type, E embedding size, R representation size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dist_gat.explain.neighborhood import Neighborhood
from dist_gat.explain.trained_run import TrainedRun
from dist_gat.sampling.block import Block

# so many edges are left out in turn, those with most attention, of a user who has more
MOST_EDGES = 500


def contributions(
    run: TrainedRun, near: Neighborhood, depths: Sequence[Tensor], place: int, edges: np.ndarray, item_row_R: Tensor,
    score: float,
) -> tuple[np.ndarray, Tensor]:  # fmt: skip
    """float64 [n], the drop of the score without each of some edges of a node, by their numbers among its edges; and
    [n, R], the ranking rows that the node would have.

    depths: [S, E] and fewer rows above, as `encode_depths` gives them. item_row_R: the item's ranking row.
    """
    rows_nR = without_each(run, near, depths, place, edges)
    nodes = np.full(len(edges), near.nodes[place])
    ranking_nR = run.task.rows(run.model, rows_nR, nodes, run.store)
    return score - (ranking_nR @ item_row_R).double().numpy(), ranking_nR


@torch.no_grad()
def without_each(
    run: TrainedRun, near: Neighborhood, depths: Sequence[Tensor], place: int, edges: np.ndarray
) -> Tensor:  # fmt: skip
    """[n, R]: what one node would be without each of some of its edges."""
    encoder, chunk = run.model.encoder, run.config.evaluate.edge_chunk
    own = near.edges_of(place)
    num_edges = own.stop - own.start
    found = []
    per_chunk = max(chunk // max(num_edges, 1), 1)
    for first in range(0, len(edges), per_chunk):
        some = edges[first : first + per_chunk]
        count = len(some)
        # all edges but one, a row for each that is left out
        at = np.arange(own.start, own.stop) + np.zeros((count, 1), np.int64)
        at = at[np.arange(num_edges) != some[:, None]].reshape(count, num_edges - 1)
        start = np.arange(count) * (num_edges - 1)
        kept = near.taken(at.ravel())
        columns = kept.columns(start, np.full(count, num_edges - 1), encoder.edge_columns)
        copies = [depths[0][place].expand(count, -1)]
        for layer, below in zip(encoder.layers, depths[:-1], strict=True):
            size = len(below)
            degree_SK = None
            if encoder.needs_degree:
                degrees = np.repeat(near.degrees[place][None], count, axis=0)
                np.subtract.at(degrees, (np.arange(count), near.slots_of(own.start + some)), 1)
                degree_SK = torch.from_numpy(np.concatenate([near.degrees[:size], degrees]))
            block = Block(
                torch.from_numpy(near.indices[at]), torch.full((count,), num_edges - 1), size + count, degree_SK,
                torch.arange(size, size + count), columns,
            )  # fmt: skip
            copies.append(layer(torch.cat([below, copies[-1]]), block).rows_DO.to(below.dtype))
        found.append(encoder.combine(copies))
    return torch.cat(found)
