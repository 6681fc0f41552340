"""The recipes of the tests' runs: one small one, which each changes where it has to.

Sizes of rows and numbers of heads are those of the palette in nn/nn_cases.py, for which kernels are compiled anyway.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from helpers import parse_sections

from dist_gat.api import prepare, train
from dist_gat.config.sections import Config

Sections = dict[str, dict[str, Any]]
TITLES = {"item_titles": {"path": "items.csv", "id_column": "item_id", "columns": ["title"]}}
COSINE = {"kind": "cosine", "temperature": 0.2}


def recipe(folder: Path, run: str = "run", base: Sections | None = None, **sections: dict[str, Any]) -> Config:
    """Data in `folder/raw` and `folder/prepared`, one worker here, two epochs; `sections` change it, and `base` first.

    Some settings of a section change, and the others stay.
    """
    tree: dict[str, Any] = {
        "name": "small",
        "run": str(folder / run),
        "data": {
            "path": str(folder / "raw"),
            "interactions": "interactions.csv",
            "prepared": str(folder / "prepared"),
        },
        "parts": {"num_parts": 2, "method": "hash"},
        "sampling": {"fanouts": [5, 5]},
        "negatives": {"num_shared": 64},
        "model": {"embedding_size": 16},
        "train": {"num_epochs": 2, "batch_size": 256, "learning_rate": 0.02},
        "launch": {"launcher": "local", "num_workers": 1, "threads_per_worker": 1, "timeout_s": 60},
    }
    for name, changes in (base or {}).items():
        tree[name] = tree.get(name, {}) | changes
    return parse_sections(tree, sections)


def small_recipe(folder: Path, **model: Any) -> Config:
    """Of the fixture `small_run` in conftest.py: two layers of two heads."""
    return recipe(folder, data=TITLES, parts={"num_parts": 3}, model={"num_heads": 2, "decoder": COSINE, **model})


def prepare_and_train(config: Config) -> None:
    prepare(config)
    train(config)


# of a private run: a user is attention over own items, and items are their rows
PRIVATE: Sections = {
    "data": {"split": {"method": "leave_last_out"}},
    "sampling": {"fanouts": [6], "relations": {"interacts_reversed": {"fanouts": [0]}}},
    "negatives": {"num_shared": 20},
    "model": {
        "embedding_size": 8, "num_heads": 2, "scoring": "additive", "combination": "last", "inputs": {"ids": ["item"]},
    },
    "loss": {"log_q": False},
    "train": {"num_epochs": 2, "batch_size": 40, "patience": 0, "learning_rate": 0.02},
    "privacy": {"epsilon": 8.0, "num_users": 100, "max_interactions": 4, "public_items": True},
}  # fmt: skip


def private_columns(folder: Path, num_items: int, seed: int = 0) -> Sections:
    """Sections of a private run that reads columns of all kinds, whose table it writes into `folder/raw`."""
    random = np.random.default_rng(seed)

    def some(values: list[Any]) -> list[Any]:
        return [None if random.random() < 0.2 else value for value in values]

    tags = [[f"t{tag}" for tag in random.permutation(6)[: random.integers(1, 4)]] for _ in range(num_items)]
    table = pl.DataFrame({
        "item_id": [f"i{item}" for item in range(num_items)],
        "year": some((1900 + 100 * random.random(num_items)).tolist()),
        "price": some(random.lognormal(0, 2, num_items).tolist()),
        "maker": some([f"m{maker}" for maker in random.integers(0, 5, num_items)]),
        "tags": some(tags), "genres": some([one[:2] for one in tags]),
        "picture": some(random.normal(2, 3, (num_items, 4)).tolist()),
    })  # fmt: skip
    table.write_parquet(folder / "raw" / "items.parquet")
    kinds: dict[str, Any] = {
        "year": "numeric", "price": "numeric", "maker": "category", "genres": "categories", "picture": "vector",
        "tags": {"kind": "categories", "weights": "tf_idf"},
    }  # fmt: skip
    nodes = {"item": {"table": "items.parquet", "columns": kinds}}
    return {
        "data": PRIVATE["data"] | {"nodes": nodes, "known_nodes": "all"},
        "privacy": PRIVATE["privacy"] | {"public_columns": True},
    }


def private_recipe(folder: Path, run: str = "run", **sections: dict[str, Any]) -> Config:
    """As `recipe`, with `PRIVATE` below the changes."""
    merged = {name: PRIVATE.get(name, {}) | sections.get(name, {}) for name in PRIVATE.keys() | sections.keys()}
    return recipe(folder, run, merged)
