"""A node without an ID row is what its columns and neighbours say, bit for bit, in inference and in explanations."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ITEM, ranking_sampler, split_pairs
from torch import Tensor

from dist_gat.base.storage import MANIFEST, save_array, write_manifest
from dist_gat.config.model_sections import InputsConfig, ModelConfig
from dist_gat.config.sections import NegativesConfig, SamplingConfig
from dist_gat.evaluate.inference import infer_representations, input_rows
from dist_gat.exchange.channel import Channel
from dist_gat.explain.neighborhood import encode_targets, find_neighborhood
from dist_gat.graph.part import FORMAT, VERSION, PreparedGraph, open_prepared, part_folder
from dist_gat.nn.recommender import Recommender, build_recommender
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.id_rows import ids_present
from dist_gat.sampling.ownership import share_nodes
from dist_gat.sampling.sampler import gather_features

LAYERS, CHUNK = 2, 200


def model_of(prepared: PreparedGraph, **inputs: object) -> Recommender:
    config = ModelConfig.model_validate({"embedding_size": 16, "init_std": 1.0, "num_heads": 2, "inputs": inputs})
    owned = share_nodes(prepared.ranges, 1, 0)
    return build_recommender(config, LAYERS, prepared.layouts, owned, Channel("rows"), 0)


def inferred(prepared: PreparedGraph, model: Recommender, node: int | None = None, row: float = 0.0) -> Tensor:
    """All representations, with `row` in place of the ID row of `node`."""
    with torch.no_grad():
        if node is not None:
            model.table.weight[node] = row
        return infer_representations(model, open_store(prepared, Channel("sampling"), "auto"), CHUNK)


def trained_item(prepared: PreparedGraph) -> int:
    """The item of most training pairs."""
    items, counts = np.unique(split_pairs(prepared, "train")[:, 1], return_counts=True)
    return int(items[counts.argmax()])


def forget(prepared: PreparedGraph, node: int, folder: Path) -> PreparedGraph:
    """A copy in which training does not know a node, whose columns and edges stay."""
    shutil.copytree(prepared.folder, folder)
    (part,) = prepared.ranges.part_of(np.array([node]))
    columns = np.array(prepared.parts[part].features[ITEM])
    columns[node - prepared.ranges.nodes_of_type(int(part), ITEM).start, 0] = 0
    save_array(part_folder(folder, int(part)) / "features" / "item.npy", columns)
    manifest = json.loads((folder / MANIFEST).read_text())
    kept = {key: value for key, value in manifest.items() if key not in ("format", "version", "files")}
    write_manifest(folder, FORMAT, VERSION, kept)
    return open_prepared(folder)


@pytest.mark.parametrize("fusion", ["sum", "gate", "attention"])
def test_an_item_whose_id_row_is_deleted(synthetic: PreparedGraph, tmp_path: Path, fusion: str) -> None:
    node = trained_item(synthetic)
    forgotten = forget(synthetic, node, tmp_path / "forgotten")
    model = model_of(forgotten, fusion=fusion)
    whole = inferred(synthetic, model)
    without = inferred(forgotten, model)
    assert not torch.equal(without[node], whole[node])
    assert without.isfinite().all()
    for row in (1e6, math.nan):
        assert torch.equal(inferred(forgotten, model, node, row), without), "the deleted row still counts"
    if fusion != "attention":  # in which an absent row takes no part, and a row of zeros does
        assert torch.equal(inferred(synthetic, model, node, 0.0), without)
    store = open_store(forgotten, Channel("sampling"), "auto")
    near = find_neighborhood(store, np.array([node]), LAYERS)
    with torch.no_grad():
        rows_SE = input_rows(
            model, store.ranges, near.nodes, model.table.weight[torch.from_numpy(near.nodes)],
            gather_features(store, near.nodes),
        )  # fmt: skip
    explained = encode_targets(model.encoder, near, rows_SE, CHUNK).rows_NR
    torch.testing.assert_close(explained[0], without[node], rtol=1e-4, atol=1e-4)


def test_types_without_ids(synthetic: PreparedGraph) -> None:
    model = model_of(synthetic, ids=["user"])
    before = inferred(synthetic, model)
    is_item = synthetic.ranges.is_of_type(np.arange(synthetic.ranges.num_nodes), ITEM)
    with torch.no_grad():
        model.table.weight[torch.from_numpy(is_item)] = math.nan
    assert torch.equal(inferred(synthetic, model), before)


def test_ids_that_a_step_leaves_out_are_a_function_of_the_node(synthetic: PreparedGraph) -> None:
    inputs, every = InputsConfig(id_dropout=0.3), np.arange(synthetic.ranges.num_nodes)
    store = open_store(synthetic, Channel("sampling"), "auto")
    sampler = ranking_sampler(store, SamplingConfig(fanouts=[4]), NegativesConfig(), 64)
    assert sampler.sample(store, torch.tensor([0, 0])).has_id_U is None
    sampler.inputs = inputs
    seen = []
    for epoch, step in ((0, 0), (0, 1), (1, 0)):
        batch = sampler.sample(store, torch.tensor([epoch, step]))
        again = sampler.sample(store, torch.tensor([epoch, step]))
        assert batch.has_id_U is not None
        assert torch.equal(batch.has_id_U, again.has_id_U)
        seen.append({int(node): bool(has) for node, has in zip(batch.nodes_U, batch.has_id_U, strict=True)})
    assert any(seen[0][node] != seen[1][node] for node in seen[0].keys() & seen[1].keys())
    kept = [ids_present(synthetic.ranges, every, inputs, np.uint64(key)) for key in range(50)]
    assert np.mean(np.concatenate(kept)) == pytest.approx(0.7, abs=0.02)
    assert ids_present(synthetic.ranges, every, inputs) is None, "inference leaves out nothing"
