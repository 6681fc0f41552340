"""`NearestKnown`: the nodes of the graph that are most like a new item, of a relation that is made from columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dist_gat.base.errors import ConfigError
from dist_gat.data.column_layout import KNOWN, Layout
from dist_gat.data.nearest import Rows, UnitRows, fit_unit_rows, nearest_pairs
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.serve.saved_model import SavedModel
from dist_gat.serve.trained_encoder import trained_column


@dataclass(frozen=True)
class NearestKnown:
    """nodes: int64, the items of the graph, by their external IDs, and rows: of each. unit: makes such rows."""

    k: int
    nodes: np.ndarray
    rows: Rows
    unit: UnitRows

    def of(self, name: str, columns_W: np.ndarray) -> History:
        """The neighbours of a new item with these columns, exact, with their similarities: those that `prepare` would
        find for it, to the bit. The item has no other new ones among them."""
        own = self.unit.of(columns_W[None])
        ((_, found),) = nearest_pairs(self.rows, self.k, of=own)
        return History(name, self.nodes[found.neighbour], found.similarity)


def open_nearest(model: SavedModel, columns: Sequence[str], k: int) -> NearestKnown:
    """Takes the memory of the columns. Raises `ConfigError` for a model that has not kept them, or whose vectors are no
    longer those that the neighbours go by; `StorageError` for a damaged one."""
    kind = model.relation.target
    if not model.manifest.get("kept_columns"):
        raise ConfigError(
            f"{model.folder}: saved before new items had nearest neighbours; run `dist-gat train` with the recipe to "
            "write the model anew"
        )
    if (trained := trained_column(model, kind)) in columns:
        raise ConfigError(
            f"{model.folder}: its neighbours go by {trained} as the encoder was before training, which a new item's "
            "text can't be sent through; leave the column out of `nearest`, or train without model.text"
        )
    layout: Layout = model.layouts[kind]
    values = np.concatenate([model.item_columns(part) for part in range(model.ranges.num_parts)])
    every = np.concatenate([
        np.arange(owned.start, owned.stop)
        for owned in (model.ranges.nodes_of_type(part, kind) for part in range(model.ranges.num_parts))
    ])  # fmt: skip
    # by external ID, as `prepare` has them: so equal similarities are decided alike
    nodes = model.ids(kind)["node_id"].to_numpy()
    values = values[np.searchsorted(every, nodes)]
    assert layout[0].name == KNOWN, "whom the frequencies of categories are of"
    unit = fit_unit_rows(layout, values, columns)
    return NearestKnown(k, nodes, unit.of(values), unit)
