"""Lists without an interaction, against a ranking by hand after the edge was deleted from the sub-graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import COSINE
from recipes import small_recipe as recipe

from dist_gat.api import explain, recommend, train
from dist_gat.explain.counterfactual import LENGTH, Lists
from dist_gat.explain.explanation import USER_AT
from dist_gat.explain.trained_run import TrainedRun, open_trained_run


def ranking_by_hand(run: TrainedRun, user: int, without: int, met: set[int]) -> list[int]:
    """Item nodes that the user has not met, the best first, after one edge of the user was deleted."""
    near = run.neighborhood(np.array([user]))
    near = near.without(USER_AT, np.flatnonzero(near.nodes == without))
    rows = run.encode(near, run.input_rows(near.nodes)).rows_NR
    own = run.task.rows(run.model, rows, near.nodes[:1], run.store)[0]
    items = np.sort(run.saved.ids("item")["node_id"].to_numpy())
    scores = (run.representations(items) @ own).numpy()
    return [int(items[at]) for at in np.argsort(-scores, kind="stable") if int(items[at]) not in met]


def test_lists_are_rankings_after_deletion(small_run: Path, tmp_path: Path) -> None:
    config = recipe(small_run, scoring="additive", decoder={**COSINE, "popularity": True}, terms=["rank", "age"])
    sampling = config.sampling.model_copy(update={"fanouts": [5]})
    train(config.model_copy(update={"run": str(tmp_path), "sampling": sampling}))
    run = open_trained_run(tmp_path)
    node_of = {kind: dict(run.saved.ids(kind).select("external_id", "node_id").rows()) for kind in ("user", "item")}
    item, changed = "i7", 0
    for name in ("u3", "u5", "u11", "u20", "u33", "u40"):
        user = node_of["user"][name]
        found = explain(tmp_path, name, item)["counterfactual"]
        part = int(run.store.ranges.part_of(np.array([user]))[0])
        first = run.store.ranges.nodes_of_type(part, "user").start
        met = set(run.saved.known(part).of(np.array([user - first])).items.tolist())
        own = [node_of["item"][entry["item_id"]] for entry in found["list"]]
        assert len(found["without"]) == 5
        assert found["keeps_filters"] is False
        explained = node_of["item"][item]
        for entry in found["without"]:
            node = node_of["item"][entry["item_id"]]
            ranking = ranking_by_hand(run, user, node, met - {explained})
            assert entry["place"] == ranking.index(explained) + 1
            after = ranking_by_hand(run, user, node, met)[:LENGTH]
            enter, leave = ([node_of["item"][one["item_id"]] for one in entry[key]] for key in ("enter", "leave"))
            assert enter == [one for one in after if one not in own]
            assert leave == [one for one in own if one not in after]
            assert entry["own_place"] == ranking_by_hand(run, user, node, met - {node}).index(node) + 1
            changed += len(enter)
    assert changed, "the edges matter"


@pytest.mark.parametrize("blend", [{}, {"spectral_rank": 4, "linear": True, "linear_weight": 2, "spectral_weight": 1}])
def test_the_list_is_what_recommend_gives(small_run: Path, tmp_path: Path, blend: dict[str, Any]) -> None:
    config = recipe(small_run)
    blended = config.blend.model_copy(update=blend)
    run = tmp_path if blend else small_run / "run"
    if blend:
        train(config.model_copy(update={"run": str(run), "blend": blended}))
    found = explain(run, "u5")["counterfactual"]
    assert [one["item_id"] for one in found["list"]] == recommend(run, ["u5"], k=LENGTH)["item_id"].to_list()
    assert found["place"] == 1
    assert found["keeps_filters"] is bool(blend)
    assert all(entry["place"] >= 1 for entry in found["without"])


def test_places_count_unmet_items_alone_and_equal_scores_by_node() -> None:
    lists = Lists(np.array([4, 5, 8, 9]), np.array([[1.0, 3.0, 1.0, 2.0]], np.float32), np.array([5]))
    assert lists.first(0).tolist() == [9, 4, 8]
    assert [lists.place_of(0, item) for item in (4, 5, 8, 9)] == [2, 1, 3, 1]
