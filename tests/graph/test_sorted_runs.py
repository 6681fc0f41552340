"""Edges sorted in runs against one sort of all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dist_gat.graph.sorted_runs import run_starts, sorted_edges

NUM_EDGES, NUM_NODES = 500, 60


@pytest.mark.parametrize("columns", [["dst", "src"], ["dst", "src", "time"]])
def test_edges_may_all_be_left_out(tmp_path: Path, columns: list[str]) -> None:
    """As by a `data.min_message_weight` that no interaction has."""
    none = {name: np.zeros(0, np.int64) for name in columns}
    (found,) = sorted_edges(iter([none, none]), np.array([0, 5]), tmp_path / "runs")
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(columns, 0)
    assert not list(sorted_edges(iter([none]), np.array([0, 2, 5]), tmp_path / "runs"))


@pytest.mark.parametrize("ascending", [True, False], ids=["by source", "in any order"])
@pytest.mark.parametrize("has_time", [True, False], ids=["with times", "ends alone"])
@pytest.mark.parametrize("rows", [1, 70, 10**6])
@pytest.mark.parametrize("chunk", [1, 33, 10**6])
def test_the_order_is_that_of_one_sort(tmp_path: Path, ascending: bool, has_time: bool, rows: int, chunk: int) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.choice(NUM_NODES**2, NUM_EDGES, replace=False)
    src, dst = np.divmod(np.sort(pairs) if ascending else pairs, NUM_NODES)
    edges = {"dst": dst + 1000, "src": src} | ({"time": rng.permutation(NUM_EDGES)} if has_time else {})
    starts = run_starts(np.bincount(edges["dst"], minlength=1000 + NUM_NODES), rows)
    chunks = ({k: v[at : at + chunk] for k, v in edges.items()} for at in range(0, NUM_EDGES, chunk))
    runs = list(sorted_edges(chunks, starts, tmp_path / "runs"))
    order = np.lexsort([edges["src"], edges["dst"]])
    for name, values in edges.items():
        np.testing.assert_array_equal(np.concatenate([run[name] for run in runs]), values[order])
    assert not list(tmp_path.glob("runs/*"))
