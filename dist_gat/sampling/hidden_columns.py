"""`hide_columns`: nodes whose columns a training step hides, so that a task can reconstruct them.

Shape legend: U distinct nodes of a batch, n nodes of a type, h hidden ones, f width of a type's columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.random import uniform
from dist_gat.data.column_layout import Layout
from dist_gat.data.column_values import missing_row

# node type → (positions, int64 [n], and columns, float32 [n, f])
Features = dict[str, tuple[Tensor, Tensor]]


def hide_columns(
    features: Features, nodes: np.ndarray, is_seed: np.ndarray, layouts: Mapping[str, Layout], share: float,
    step_key: np.uint64,
) -> Features:  # fmt: skip
    """Give a share of nodes, int64 [U], missing values in place of their columns, wherever the batch reads them.

    is_seed: bool [U]. share: of nodes; each is drawn by itself, as a function of the key and the node. step_key: of
    `Purpose.HIDDEN_COLUMNS`, epoch and step. Returns what was hidden of seeds: by type, positions among U, int64 [h],
    and columns, float32 [h, f].
    """
    hides_U = uniform(step_key, nodes) < share
    hidden: Features = {}
    for kind, (at, columns) in features.items():
        hides_n = hides_U[at.numpy()]
        of_seeds = torch.from_numpy(hides_n & is_seed[at.numpy()])
        hidden[kind] = at[of_seeds], columns[of_seeds]
        start = layouts[kind][0].slice.stop  # what comes first says whether training meets the node
        columns[torch.from_numpy(hides_n), start:] = torch.from_numpy(missing_row(layouts[kind])[start:])
    return hidden
