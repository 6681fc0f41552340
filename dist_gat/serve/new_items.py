"""Items that training never saw, as candidates beside those of the graph: see `NewNodes`.

The filters of the blend count interactions, of which a new item has none in training: they give it 0.

Shape legend: m new items, R + k size of ranking rows with the filters' columns, p pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.evaluate.new_user_metrics import History
from dist_gat.serve.new_nodes import NewNodes


@dataclass(frozen=True)
class NewItem:
    """columns: float32, see `NewColumns.row`; None: nothing is known. neighbors: by edge type, the nodes that it knows.
    users: int64, nodes of those who have met it."""

    name: str
    columns: np.ndarray | None
    neighbors: Mapping[int, History]
    users: np.ndarray


@dataclass(frozen=True)
class NewItemRows:
    """names: external IDs. first: the number of the first; they count on from the nodes of the graph. rows_mR: as
    `Ranker.rows` are, side by side. degree_m: interactions. met_p2: int64, user node and number of an item that it has
    met."""

    names: Sequence[str]
    first: int
    rows_mR: Tensor
    degree_m: np.ndarray
    met_p2: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """int64 [m]"""
        return np.arange(self.first, self.first + len(self.rows_mR))


def rows_of_new_items(nodes: NewNodes, items: Sequence[NewItem]) -> NewItemRows:
    """Each is computed alone."""
    model = nodes.model
    first = model.ranges.num_nodes
    rows = []
    for item in items:
        representation_1R = nodes.representation(model.relation.target, item.columns, item.neighbors)
        rows.append(nodes.ranking_row(representation_1R, len(item.users)))
    rows_mR = torch.cat(rows)
    without_mk = torch.zeros(len(items), model.row_sizes["spectral"])
    degree_m = np.array([len(item.users) for item in items], np.int64)
    met = np.concatenate([item.users for item in items])
    return NewItemRows(
        [item.name for item in items], first, torch.cat([rows_mR, without_mk], dim=1), degree_m,
        np.stack([met, np.repeat(np.arange(first, first + len(items)), degree_m)], axis=1),
    )  # fmt: skip
