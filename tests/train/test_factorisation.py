"""`sampling.fanouts: []`, matrix factorisation: no hops to sample, no layers, the same on any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recipes
import torch
from helpers import ITEM

from dist_gat import api
from dist_gat.checkpoints.weight_files import load_tensors, part_file
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.graph.part import open_prepared
from dist_gat.serve.saved_model import open_model
from dist_gat.train.run_log import read_curves

BASE: dict[str, Any] = {
    "sampling": {"fanouts": []},
    "negatives": {"num_shared": 32},
    "model": {"embedding_size": 8},
    "loss": {"kind": "bpr"},
    "train": {"num_epochs": 3, "batch_size": 200, "learning_rate": 0.05, "precision": "float64"},
}


def recipe(folder: Path, run: str, num_workers: int = 1, **model: Any) -> Config:
    return recipes.recipe(folder, run, BASE, model=model, launch={"num_workers": num_workers})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("factors")
    write_synthetic(folder / "raw", 90, 60, 3, 10, 0.1, seed=2)
    api.prepare(recipe(folder, "none"))
    return folder


@pytest.mark.parametrize("combination", ["last", "mean", "concat"])
def test_a_representation_is_the_embedding(folder: Path, combination: str) -> None:
    """With `last` the representation would be the table's own memory, which can't be saved twice."""
    config = recipe(folder, combination, combination=combination)
    result = api.train(config)
    assert result["losses"][-1] < 0.9 * result["losses"][0]
    model = open_model(config.run_folder / "model")
    for part in range(2):
        rows = load_tensors(part_file(model.folder, part))
        assert torch.equal(rows["embedding"], rows["representation"])
    assert api.evaluate(config)["valid"] == pytest.approx(result["valid"])


def test_popularity_stands_beside_it(folder: Path) -> None:
    config = recipe(folder, "popular", decoder={"popularity": True})
    result = api.train(config)
    model = open_model(config.run_folder / "model")
    slope = load_tensors(model.folder / "dense.safetensors")["own_scores.popularity.slope"]
    assert slope > 0
    assert read_curves(config.run_folder)["model/popularity_slope"][-1][1] > 0
    for part, graph in enumerate(open_prepared(config.data.prepared).parts):
        rows, items = load_tensors(part_file(model.folder, part)), model.ranges.nodes_of_type(part, ITEM)
        assert torch.equal(rows["embedding"], rows["representation"][:, :-1])
        is_item = np.isin(np.arange(len(rows["embedding"])) + graph.first_node, items)
        expected = np.where(is_item, float(slope) * np.log1p(np.diff(graph.indptr)), 1.0)
        np.testing.assert_allclose(rows["representation"][:, -1].numpy(), expected)
    assert api.evaluate(config)["valid"] == pytest.approx(result["valid"])


@pytest.mark.parametrize("popularity", [False, True])
def test_the_losses_do_not_depend_on_the_workers(folder: Path, popularity: bool) -> None:
    """Without dense weights, and with the slope of popularity as the only one."""
    decoder = {"popularity": popularity}
    alone, parted = (api.train(recipe(folder, f"workers-{n}-{popularity}", n, decoder=decoder)) for n in (1, 2))
    assert parted["losses"] == pytest.approx(alone["losses"], rel=1e-9)
    assert parted["valid"] == pytest.approx(alone["valid"], rel=1e-9)
