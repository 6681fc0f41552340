"""A forgotten user is in no file of the run any more, and the others are as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from helpers import INTERACTS
from recipes import recipe
from safetensors.torch import load_file

from dist_gat.api import evaluate, forget, prepare, recommend, train
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.checkpoints.checkpoint_store import open_checkpoints
from dist_gat.data.synthetic import write_synthetic
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.workflows import forget as forgetting

FORGOTTEN = "u7"


@pytest.fixture(params=["plain", "pseudonyms"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    write_synthetic(tmp_path / "raw", 60, 40, 4, 9, 0.2, seed=1)
    split = {"split": {"method": "random", "valid_ratio": 0.1, "test_ratio": 0.1}}
    config = recipe(tmp_path, data=split, train={"num_epochs": 1}, sampling={"fanouts": [5]}, blend={"linear": True})
    prepare(config, pseudonymize=tmp_path / "key" if request.param == "pseudonyms" else None)
    train(config)
    return config


def key_of(config: Any) -> Path | None:
    key = config.run_folder.parent / "key"
    return key if key.exists() else None


def edges_of(prepared: PreparedGraph) -> set[tuple[int, ...]]:
    """Messages and pairs, with node IDs."""
    found: set[tuple[int, ...]] = set()
    for part in prepared.parts:
        starts = part.node_starts
        for node in range(part.num_nodes):
            own = slice(int(starts[node]), int(starts[node + 1]))
            found |= {(0, int(source), part.first_node + node) for source in part.indices[own]}
        for number, split in enumerate(("train", "valid", "test"), start=1):
            found |= {(number, *pair) for pair in part.pairs(INTERACTS, split).tolist()}
    return found


def test_the_user_is_gone_and_nobody_else(config: Any) -> None:
    key, run = key_of(config), config.run_folder
    before = open_prepared(config.data.prepared)
    ids, edges = before.ids("user"), edges_of(before)
    rows_before = [load_file(path) for path in sorted((run / "model" / "parts").glob("*.safetensors"))]
    done = forget(run, FORGOTTEN, key=key)
    after = open_prepared(config.data.prepared, verify=True)
    lost = {*ids["node_id"].to_list()} - {*after.ids("user")["node_id"].to_list()}
    (node,) = lost
    assert edges_of(after) == {edge for edge in edges if node not in edge[1:]}
    assert done["pairs"] == sum(edge[0] > 0 and node == edge[1] for edge in edges) > 0
    for part in after.parts:
        items = part.ranges.nodes_of_type(part.number, "item")
        degree = np.diff(part.node_starts)[items.start - part.first_node : items.stop - part.first_node]
        assert part.popularity(INTERACTS) == pytest.approx(np.cumsum(degree**0.75))
    saved = [load_file(path) for path in sorted((run / "model" / "parts").glob("*.safetensors"))]
    number = int(after.ranges.part_of(np.array([node]))[0])
    place = node - int(after.ranges.starts[number])
    assert all(not rows[place].any() for rows in saved[number].values())
    for rows in rows_before[number].values():
        rows[place] = 0
    for now, then in zip(saved, rows_before, strict=True):
        assert all(torch.equal(now[name], rows) for name, rows in then.items())
    known = [np.load(path) for path in sorted((run / "model").glob(f"*/{number:04d}.indptr.npy"))]
    user = node - after.ranges.nodes_of_type(number, "user").start
    assert len(known) == 2
    assert all(indptr[user] == indptr[user + 1] for indptr in known)
    assert FORGOTTEN not in pl.read_parquet(run / "model" / "ids" / "user.parquet")["external_id"].to_list()
    assert not list((run / "checkpoints").rglob("*.safetensors"))
    with pytest.raises(DataError, match="unknown user"):
        recommend(run, users=[FORGOTTEN], key=key)
    with pytest.raises(DataError, match="unknown user"):
        forget(run, FORGOTTEN, key=key)
    # the linear filter reads the history of all users, so lists may change
    assert recommend(run, users=["u3", "u9"], k=5, key=key).height == 10
    assert evaluate(config)["test"]["ndcg@20"] > 0
    assert "train anew" in done["remains"][0].lower()
    # begins from the data without the user
    assert train(config)["resumed_from"] is None


def test_a_forget_that_was_stopped_can_be_given_again(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise RuntimeError("planted")

    key, run = key_of(config), config.run_folder
    store = open_checkpoints(run, config.checkpoint.url)
    # a damaged checkpoint has the user's row too
    store.set_aside(store.steps()[0])
    monkeypatch.setattr(forgetting, "forget_in_prepared", stopped)
    with pytest.raises(RuntimeError, match="planted"):
        forget(run, FORGOTTEN, key=key)
    monkeypatch.undo()
    assert not list((run / "checkpoints").rglob("*.safetensors"))
    assert forget(run, FORGOTTEN, key=key)["pairs"] > 0
    with pytest.raises(DataError, match="unknown user"):
        recommend(run, users=[FORGOTTEN], key=key)


def test_other_data_is_refused(config: Any, tmp_path: Path) -> None:
    other = config.model_copy(
        update={"seed": 5, "data": config.data.model_copy(update={"prepared": str(tmp_path / "o")})}
    )
    prepare(other, pseudonymize=key_of(config))
    with pytest.raises(ConfigError, match="is not the data that"):
        forget(config.run_folder, FORGOTTEN, [f"data.prepared={tmp_path / 'o'}"])
