"""A small graph with columns of users and items, and saved models of random weights where some nodes have no ID row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from helpers import ITEM, USER
from small_world import RELATIONS, world_recipe, write_world
from world_columns import COLUMNS, write_columns

from dist_gat.config.sections import Config
from dist_gat.evaluate.inference import infer_representations
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.exchange.worker import join_workers
from dist_gat.filters.blend import build_blend
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.nn.edge_terms import prepared_kinds
from dist_gat.nn.recommender import build_recommender, untimed_type
from dist_gat.sampling.graph_store import open_store
from dist_gat.serve.saved_model import SavedModel, open_model, save_model
from dist_gat.tasks.build_task import build_task

ABSENT = 4  # nodes of a type


def recipe_of(folder: Path, run: str, relations: tuple[str, ...] = ("tags", "kg"), **sections: Any) -> Config:
    config = world_recipe(folder, run, **sections)
    kept = {name: RELATIONS[name] for name in relations}
    data = config.data.model_copy(update={"relations": {k: v for k, v in config.data.relations.items() if k in kept}})
    return config.model_copy(update={"data": data})


class Saved(NamedTuple):
    """representation_NR, rows_NR: of all nodes. absent: the nodes without ID rows, by type."""

    model: SavedModel
    prepared: PreparedGraph
    representation_NR: torch.Tensor
    rows_NR: torch.Tensor
    absent: Mapping[str, list[int]]


def save_without_id_rows(config: Config, kinds: tuple[str, ...] = (USER,)) -> Saved:
    """Save a model of random weights where some nodes of these types have no ID row."""
    worker, prepared = join_workers(torch.device("cpu"), 1, 30), open_prepared(config.data.prepared)
    store, task = open_store(prepared, worker.sampling, "auto"), build_task(config, prepared)
    model = build_recommender(
        config.model, len(config.sampling.fanouts), prepared.layouts, store.ownership, worker.rows, 0,
        build_head=task.build_head, kinds=prepared_kinds(prepared, config.sampling),
        untimed=untimed_type(config.sampling, task.relation),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.dense.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model.table.weight.detach().copy_(torch.randn(model.table.weight.shape, generator=generator))
    absent: dict[str, list[int]] = {}
    for kind in kinds:
        for part in prepared.parts[:ABSENT]:
            node = prepared.ranges.nodes_of_type(part.number, kind)[1]
            absent.setdefault(kind, []).append(node)
            if kind in part.features:
                # the row of the table stays: it is not read
                features = np.array(part.features[kind])
                features[1, 0] = 0
                part.features[kind] = features
            else:
                model.table.weight.detach()[node] = 0
    depths: list[torch.Tensor] = []
    # one destination a chunk: a product of other shapes rounds differently
    representation_NR = infer_representations(model, store, 1, depths=depths)
    rows_NR = task.rows(model, representation_NR, store.ownership.own_nodes, store)
    blend = build_blend(rows_NR, store, worker, task.relation, config.blend, config.evaluate, "ndcg@20", 0)
    pairs = {}
    if config.task.kind == "rating":
        found, _ = task.values(model, representation_NR, store, worker, "valid")
        pairs = {task.name: {"rows": "representation", **task.saved(model, found)}}
    save_model(config, model, rows_NR, blend, store, task.relation, worker, pairs, depths=depths)
    return Saved(open_model(config.run_folder / "model"), prepared, representation_NR, rows_NR, absent)


def met_in_training(prepared: PreparedGraph, node: int, columns: np.ndarray | None = None) -> History:
    """What a user has met, or who has met an item, in any order."""
    relation, ends, weights, times = prepared.schema.relations[0], [], [], []
    for part in prepared.parts:
        ends.append(part.pairs(relation, "train"))
        weights.append(part.labels(relation, "train", "weight"))
        times.append(part.times(relation, "train"))
    pairs = np.concatenate(ends)
    is_item = int(prepared.ranges.is_of_type(np.array([node]), ITEM)[0])
    own = np.random.default_rng(0).permutation(np.flatnonzero(pairs[:, is_item] == node))
    weight, time = np.concatenate(weights)[own], np.concatenate(times)[own]
    return History(f"new {node}", pairs[own, 1 - is_item], weight, time, columns)


__all__ = [
    "COLUMNS", "Saved", "met_in_training", "recipe_of", "save_without_id_rows", "write_columns", "write_world",
]  # fmt: skip
