"""A table with labels of all kinds, whose users and items lie on a line, and recipes for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import recipes

from dist_gat.config.sections import Config

NUM_USERS, NUM_ITEMS = 60, 40
LABELS = ("click", "count", "view", "buy", "days", "plays")


def write_labels(folder: Path) -> None:
    """`labels.csv`: who is near likes it; a view can become a purchase; counts are of so many days."""
    rng = np.random.default_rng(1)
    user, item = rng.uniform(-1, 1, NUM_USERS), rng.uniform(-1, 1, NUM_ITEMS)
    pairs = np.argwhere(rng.random((NUM_USERS, NUM_ITEMS)) < 0.5)
    like = 2 * user[pairs[:, 0]] * item[pairs[:, 1]] + 0.5 * item[pairs[:, 1]]
    chance = 1 / (1 + np.exp(-3 * like))
    columns = {
        "user_id": pairs[:, 0],
        "item_id": pairs[:, 1],
        "rating": np.clip(np.round(3 + like), 1, 5),
        "click": (rng.random(len(pairs)) < chance).astype(int),
        "count": rng.poisson(np.exp(like)),
        "view": (rng.random(len(pairs)) < chance).astype(int),
        "days": rng.integers(1, 30, len(pairs)),
    }
    columns["buy"] = columns["view"] * (rng.random(len(pairs)) < chance)
    columns["plays"] = rng.poisson(np.exp(like) * columns["days"] / 10)
    pl.DataFrame(columns).write_csv(folder / "labels.csv")


def recipe(folder: Path, task: dict[str, Any], run: str = "run", **sections: dict[str, Any]) -> Config:
    """The labels of `labels.csv` by name; the weight is the rating, where no other is told."""
    base: recipes.Sections = {
        "data": {
            "path": str(folder), "interactions": "labels.csv", "prepared": str(folder / "prepared"),
            "columns": {"labels": {name: name for name in LABELS}},
            "split": {"valid_ratio": 0.1, "test_ratio": 0.2},
        },
        "parts": {"num_parts": 4, "method": "hash"},
        "sampling": {"fanouts": [5]},
        "task": task,
        "model": {"embedding_size": 8, "scoring": "degree", "residual": False},
        "train": {"num_epochs": 12, "batch_size": 100, "learning_rate": 0.03, "precision": "float64", "patience": 0},
    }  # fmt: skip
    return recipes.recipe(folder, run, base, **sections)
