"""A small trained run for the tests that look into one: `recipe`, and the fixture `small_run` in conftest.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dist_gat.api import prepare, train
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config


def recipe(folder: Path, **model: Any) -> Config:
    tree: dict[str, Any] = {
        "name": "small",
        "run": str(folder / "run"),
        "data": {
            "path": str(folder / "raw"),
            "interactions": "interactions.csv",
            "prepared": str(folder / "prepared"),
            "item_titles": {"path": "items.csv", "id_column": "item_id", "columns": ["title"]},
        },
        "parts": {"num_parts": 3, "method": "hash"},
        "sampling": {"fanouts": [5, 5]},
        "negatives": {"num_shared": 64},
        "model": {"embedding_size": 16, "num_heads": 2, "decoder": {"kind": "cosine", "temperature": 0.2}, **model},
        "train": {"num_epochs": 2, "batch_size": 256, "learning_rate": 0.02},
        "launch": {"launcher": "local", "num_workers": 1, "threads_per_worker": 1},
    }
    return parse_config(tree)


def prepare_and_train(config: Config) -> None:
    prepare(config)
    train(config)
