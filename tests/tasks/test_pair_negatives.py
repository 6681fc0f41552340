"""Clicks from interactions alone: random pairs are 0, and the prior that they bring is taken back."""

from __future__ import annotations

from pathlib import Path

import labels
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_gat import api
from dist_gat.config.sections import Config
from dist_gat.graph.part import open_prepared
from dist_gat.tasks.pair_negatives import PairNegatives, are_among

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)))
CLICK = {"kind": "click", "sampled_negatives": 3, "calibration": "none"}


def recipe(folder: Path, run: str, num_epochs: int, num_workers: int = 1, access: str = "auto") -> Config:
    return labels.recipe(
        folder, CLICK, run, train={"num_epochs": num_epochs}, launch={"num_workers": num_workers},
        sampling={"access": access},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interactions of whom is near: the rows of `labels.csv` with a rating of 4 and more."""
    folder = tmp_path_factory.mktemp("negatives")
    labels.write_labels(folder)
    table = pl.read_csv(folder / "labels.csv").filter(pl.col("rating") >= 4)
    table.write_csv(folder / "labels.csv")
    api.prepare(recipe(folder, "run", 1))
    return folder


def test_probabilities_of_all_pairs_sum_to_the_interactions(folder: Path) -> None:
    config = recipe(folder, "sums", 15)
    trained = api.train(config)
    assert trained["valid"]["auc"] > 0.75
    prepared = open_prepared(config.data.prepared)
    users, items = prepared.ids("user")["external_id"], prepared.ids("item")["external_id"]
    every = pl.DataFrame({"user_id": users}).join(pl.DataFrame({"item_id": items}), how="cross")
    expected = api.predict(config.run_folder, every)["prediction"].sum()
    num_train = prepared.num_pairs(prepared.schema.relations[0], "train")
    assert expected == pytest.approx(num_train, rel=0.2)


def test_the_prior_is_taken_back_exactly(folder: Path) -> None:
    """Of a model that knows no more than the share of 1 among the pairs of training."""
    prepared = open_prepared(folder / "prepared")
    relation = prepared.schema.relations[0]
    negatives = PairNegatives(prepared, relation, 50, seed=0)
    happened = prepared.num_pairs(relation, "train")
    parts = prepared.ranges.num_parts
    drawn = negatives.of_step(0, 0, happened)
    part_of = prepared.ranges.part_of(drawn[:, 0])
    kept = sum(len(negatives.without_hits(drawn[part_of == part], part, ["train"])) for part in range(parts))
    odds = happened / kept * np.exp(negatives.log_rate)
    all_pairs = prepared.ranges.count("user") * prepared.ranges.count("item")
    assert odds / (1 + odds) == pytest.approx(happened / all_pairs, rel=0.01)


def test_ranks_draw_and_measure_as_one_does(folder: Path) -> None:
    alone = api.train(recipe(folder, "one", 2))
    for workers, access in ((2, "auto"), (4, "exchange")):
        other = api.train(recipe(folder, f"w{workers}", 2, workers, access))
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-9)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-9)


def test_draws_are_uniform_and_no_interaction_is_among_them(folder: Path) -> None:
    prepared = open_prepared(folder / "prepared")
    relation = prepared.schema.relations[0]
    negatives = PairNegatives(prepared, relation, 3, seed=0)
    drawn = negatives.of_step(0, 0, 20_000)
    assert prepared.ranges.is_of_type(drawn[:, 0], "user").all()
    assert prepared.ranges.is_of_type(drawn[:, 1], "item").all()
    for column, kind in enumerate(("user", "item")):
        counts = np.unique(drawn[:, column], return_counts=True)[1]
        count = prepared.ranges.count(kind)
        assert len(counts) == count
        expected = len(drawn) / count
        assert ((counts - expected) ** 2 / expected).sum() < count + 5 * (2 * count) ** 0.5, "chi square"
    parts = prepared.ranges.part_of(drawn[:, 0])
    happened = {tuple(pair) for part in prepared.parts for pair in part.pairs(relation, "train").tolist()}
    for number in range(prepared.ranges.num_parts):
        mine = drawn[parts == number]
        kept = negatives.without_hits(mine, number, ["train"])
        assert [tuple(p) for p in kept.tolist()] == [tuple(p) for p in mine.tolist() if tuple(p) not in happened]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)))
)
def test_are_among_is_a_set_lookup(known: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    rows = np.array(sorted(set(known)), np.int64).reshape(-1, 2)
    found = are_among(np.array(asked, np.int64).reshape(-1, 2), rows)
    assert found.tolist() == [pair in set(known) for pair in asked]
