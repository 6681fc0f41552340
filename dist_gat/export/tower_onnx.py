"""The tower for new users as an ONNX graph: from what somebody has met to the vector that ranks for them.

Input: `items`, int64 [m], numbers of rows in items.parquet, m ≥ 1. Output: `user`, float32 [1, R]: of a user's vector
the model's numbers, which come first; the spectral filter's, which follow in users.parquet, it knows nothing of.

Shape legend: m interactions, M items, E embedding size, R numbers of the model, L layers, K edge types to one type.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dist_gat.base.errors import ConfigError, first_line
from dist_gat.base.extra import need
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.export.scoring_onnx import require_close, run
from dist_gat.nn.recommender import untimed_type
from dist_gat.sampling.block import Block
from dist_gat.serve.new_nodes import NewNodes, open_new_nodes, way_to_users
from dist_gat.serve.saved_model import DEPTH, SavedModel

NUM_CHECKED, MOST_MET = 20, 50


class UserTower(nn.Module):
    """`NewNodes` for users without columns, over tables of what each layer reads of items."""

    depths_LME: Tensor
    degrees_MK: Tensor
    own_1E: Tensor

    def __init__(self, new: NewNodes, edge_type: int, depths: list[Tensor], degrees_MK: Tensor, own_1E: Tensor) -> None:
        """edge_type: along which users attend to items."""
        super().__init__()
        self.new, self.edge_type, self.encoder = new, edge_type, new.encoder
        self.slot = new.schema.slot_of[edge_type]
        self.register_buffer("depths_LME", torch.stack(depths) if depths else torch.zeros(0, 1, own_1E.shape[1]))
        self.register_buffer("degrees_MK", degrees_MK)
        self.register_buffer("own_1E", own_1E)

    def forward(self, items_m: Tensor) -> Tensor:
        num = items_m.shape[0]
        count_1 = torch.ones_like(items_m).sum()[None]  # as a tensor, with which the graph may compute
        near_1F = torch.arange(1, num + 1)[None]
        degree_SK = None
        if self.encoder.needs_degree:
            is_slot_K = torch.arange(self.degrees_MK.shape[1]) == self.slot
            own_1K = torch.where(is_slot_K, count_1, 0)[None]
            degree_SK = torch.cat([own_1K, self.degrees_MK[items_m]])
        edges = {"kind": torch.full_like(near_1F, self.edge_type)} if "kind" in self.encoder.edge_columns else {}
        block = Block(near_1F, count_1, num + 1, degree_SK, edges=edges)
        own_1E, depths = self.own_1E, [self.own_1E]
        for number, layer in enumerate(self.encoder.layers):
            own_1E = layer(torch.cat([own_1E, self.depths_LME[number][items_m]]), block).rows_DO
            depths.append(own_1E)
        return self.new.ranking_row(self.encoder.combine(depths))


def write_tower(model: SavedModel, path: Path) -> float:
    """Write the graph, and run it by onnxruntime for histories of many lengths. Returns the largest difference to what
    `recommend --new-users` ranks by. Raises `ConfigError` for recipes whose layers read more than who was met.
    """
    need("onnxscript", "export of the tower for new users", "export")
    tower, items = _tower_of(model)
    met = torch.arange(min(3, len(items)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                tower, (met,), str(path), input_names=["items"], output_names=["user"], dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("m", min=1)},), external_data=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as err:
        raise ConfigError(
            f"the tower for new users can't be exported from this recipe: {first_line(err)}; leave `tower` out"
        ) from None
    return _check(tower, path, items)


def _tower_of(model: SavedModel) -> tuple[UserTower, np.ndarray]:
    """The tower, and the nodes of the items in the order of their rows, int64 [M]."""
    new, relation = open_new_nodes(model), model.relation
    edge_type = way_to_users(new)
    if unread := [name for name in new.encoder.edge_columns if name != "kind"]:
        raise ConfigError(
            f"the tower for new users can't be exported: the layers read {', '.join(unread)} of each interaction "
            "(model.terms); leave `tower` out, or train without these terms"
        )
    if untimed_type(new.config.sampling, relation) == relation.source:
        raise ConfigError("the tower for new users can't be exported with sampling.time=strict of users")
    ranges = model.ranges
    items = np.concatenate([np.array(ranges.nodes_of_type(part, relation.target)) for part in range(ranges.num_parts)])
    depths = [new.gather(f"{DEPTH}{number}", items) for number in range(len(new.encoder.layers))]
    own_1E = torch.zeros(1, new.config.model.embedding_size)
    if relation.source in new.inputs:
        nothing_known = torch.from_numpy(new.columns[relation.source].missing())[None]
        own_1E = new.inputs[relation.source](own_1E, None, nothing_known).detach()
    degrees_MK = torch.from_numpy(new.degrees_of(items))
    return UserTower(new, edge_type, depths, degrees_MK, own_1E), items


def _check(tower: UserTower, path: Path, items: np.ndarray) -> float:
    new, rng = tower.new, np.random.default_rng(0)
    users = new.model.relation.source
    difference, largest = 0.0, 0.0
    for length in np.unique(np.linspace(1, min(MOST_MET, len(items)), NUM_CHECKED).astype(np.int64)).tolist():
        met = np.sort(rng.choice(len(items), length, replace=False))
        history = History("checked", items[met], None, None, None)
        expected = new.ranking_row(new.representation(users, None, {tower.edge_type: history}))
        (found,) = run(path, {"items": met})
        difference = max(difference, float((torch.from_numpy(found) - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    require_close(path, difference, largest)
    return difference
