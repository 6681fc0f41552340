"""The same training run on 1, 2 and 4 workers, reading parts in place or asking their owners for everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import RAW
from recipes import recipe

from dist_gat.api import prepare, train
from dist_gat.data.synthetic import write_synthetic
from dist_gat.train.run_log import read_curves

STEPS = 54
KEPT = 4 * 350  # bytes


# every kind of negative and of column, log-Q correction, popularity, ID rows left out, dense weights under DDP,
# clipping, a schedule
BASE: dict[str, Any] = {
    "data": {
        "user_features": {"path": "users.csv", "id_column": "user_id", "columns": ["age"], **RAW},
        "nodes": {
            "user": {"table": "users.csv", "columns": {"town": "category"}},
            "item": {
                "table": "tags.csv",
                "columns": {
                    "tags": "categories",
                    "picture": {"kind": "vector", "table": "pictures.npy", "ids": "tags.csv"},
                },
            },
        },
    },
    "parts": {"num_parts": 4, "method": "metis"},
    "sampling": {"fanouts": [4, 3]},
    "negatives": {"num_shared": 30, "num_per_seed": 2, "in_batch": True, "distribution": "popularity"},
    "model": {
        "embedding_size": 8,
        "scoring": "dot",
        "num_heads": 2,
        "transform": "mlp",
        "decoder": {"popularity": True},
        "inputs": {"fusion": "attention", "id_dropout": 0.2},
    },
    "loss": {"kind": "softmax", "l2": 1e-4},
    "train": {
        "num_epochs": 4,
        "max_steps": STEPS,
        "batch_size": 200,
        "schedule": "cosine",
        "warmup_steps": 5,
        "clip_norm": 0.5,
        "precision": "float64",
        "log_every": 7,
        "patience": 0,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("equal")
    write_synthetic(folder / "raw", 240, 160, 4, 15, 0.1, seed=3)
    users = "".join(f"u{user},{user % 7 / 7},t{user % 5}\n" for user in range(240))
    (folder / "raw" / "users.csv").write_text("user_id,age,town\n" + users)
    tags = "".join(f"i{item},{' '.join(f'g{tag}' for tag in range(item % 4))}\n" for item in range(150))
    (folder / "raw" / "tags.csv").write_text("item_id,tags\n" + tags)
    np.save(folder / "raw" / "pictures.npy", np.random.default_rng(0).standard_normal((150, 4)))
    prepare(recipe(folder, base=BASE))
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    return run(folder, 1, "auto")


def run(folder: Path, num_workers: int, access: str) -> dict[str, Any]:
    changes = {"launch": {"num_workers": num_workers}, "sampling": {"access": access}}
    return train(recipe(folder, f"run-{num_workers}-{access}", BASE, **changes))


@pytest.mark.parametrize(("num_workers", "access"), [(1, "exchange"), (2, "auto"), (2, "exchange"), (4, "exchange")])
def test_the_loss_curve_and_the_metrics_do_not_depend_on_the_workers(
    folder: Path, alone: dict[str, Any], num_workers: int, access: str
) -> None:
    other = run(folder, num_workers, access)
    assert len(alone["losses"]) == len(other["losses"]) == STEPS
    # float64: far below the promised 1e-4, so that rounding hides no bug
    assert other["losses"] == pytest.approx(alone["losses"], rel=1e-9)
    assert alone["losses"][-1] < 0.95 * alone["losses"][0]
    assert len(alone["history"]) == len(other["history"]) > 0
    for mine, theirs in zip(alone["history"], other["history"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-9)


def test_neither_overlap_nor_cache_changes_a_bit(folder: Path) -> None:
    """On the same two workers: one batch at a time or several, parts read or asked for, features fetched or kept."""
    runs = {}
    for name, sampling in {
        "plain": {"access": "exchange", "prefetch": False, "cache_bytes": 0},
        "ahead": {"access": "exchange", "prefetch": True, "cache_bytes": 0},
        "kept": {"access": "exchange", "prefetch": True, "cache_bytes": KEPT},
        "kept in step": {"access": "exchange", "prefetch": False, "cache_bytes": KEPT},
        "two streams": {"access": "exchange", "num_streams": 2, "cache_bytes": 0},
        "three streams": {"access": "exchange", "num_streams": 3, "cache_bytes": KEPT},
        "read": {"access": "auto", "prefetch": True},
    }.items():
        changes = {"launch": {"num_workers": 2}, "sampling": sampling, "train": {"max_steps": 12}}
        runs[name] = train(recipe(folder, f"run-{name}", BASE, **changes))
    for name in runs.keys() - {"plain"}:
        assert runs[name]["losses"] == runs["plain"]["losses"], name
        assert runs[name]["history"] == runs["plain"]["history"], name
    curves = {name: read_curves(folder / f"run-{name}") for name in runs}
    last = {tag: curves["kept"][tag][-1][1] for tag in ("cache/hit_rate", "cache/best_hit_rate")}
    assert 0.2 < last["cache/hit_rate"] <= last["cache/best_hit_rate"] < 1.0
    assert not any("cache/hit_rate" in curves[name] for name in ("plain", "ahead", "read"))
    # of runs without prefetch: how far sampling is ahead at the end is a matter of timing
    sent = {name: total_bytes(curves[name]["speed/exchanged_bytes_per_step"]) for name in runs}
    assert sent["kept in step"] < sent["plain"]


def total_bytes(points: list[tuple[int, float]]) -> float:
    """From bytes a step, each point the mean of the steps since the point before."""
    steps = [0, *(step for step, _ in points)]
    return sum(value * (step - before) for (step, value), before in zip(points, steps, strict=False))
