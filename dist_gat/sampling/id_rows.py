"""`ids_present`: which nodes have an ID row in a training step, and otherwise."""

from __future__ import annotations

import numpy as np

from dist_gat.base.random import uniform
from dist_gat.config.model_sections import InputsConfig
from dist_gat.graph.ranges import NodeRanges


def ids_present(
    ranges: NodeRanges, nodes: np.ndarray, config: InputsConfig, step_key: np.uint64 | None = None
) -> np.ndarray | None:
    """bool [n]: whether each of int64 [n] nodes has an ID row, as far as its type and the step decide; None: all do.

    step_key: of a training step, of `Purpose.ID_DROPOUT`, epoch and step. Nodes that training never met have none
    either: that is a column of theirs.
    """
    present = None
    if config.ids is not None:
        of_type = np.array([kind in config.ids for kind in ranges.node_types])
        present = of_type[ranges.type_of(nodes)]
    if step_key is not None and config.id_dropout:
        kept = uniform(step_key, nodes) >= config.id_dropout
        present = kept if present is None else present & kept
    return present
