"""What a private step costs beside a plain one: `python -m benchmarks.privacy_step`.

40,000 items × 64, some 500 users of 8 pairs each in a step against as many pairs of a plain step with the same model;
processor time of one thread, noise and the update of all rows included. Then the same where items have columns: a
number, a category of 1,000, three tags of 50, and a vector of 128 numbers.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from dist_gat import api
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import lone_worker
from dist_gat.train.trainer import Trainer

USERS, ITEMS, EACH, DRAWN, PREDICTED = 20_000, 40_000, 20, 512, 8
STEPS, WARM_UP = 12, 3
BAR = 2.0
COLUMNS = {"year": "numeric", "maker": "category", "tags": "categories", "picture": "vector"}
Kind = tuple[bool, bool]  # whether it has columns, whether it is private


def recipe(folder: Path, has_columns: bool, is_private: bool) -> Config:
    batch_size = DRAWN if is_private else DRAWN * PREDICTED
    tree: dict[str, Any] = {
        "name": "step",
        "run": str(folder / f"run-{has_columns}-{is_private}"),
        "data": {
            "path": str(folder), "interactions": "pairs.csv", "prepared": str(folder / f"prepared-{has_columns}"),
            "split": {"method": "random", "valid_ratio": 0, "test_ratio": 0},
        },
        "parts": {"num_parts": 2, "method": "hash"},
        "sampling": {"fanouts": [16], "relations": {"interacts_reversed": {"fanouts": [0]}}},
        "negatives": {"num_shared": 1024},
        "model": {"embedding_size": 64, "scoring": "additive", "combination": "last", "inputs": {"ids": ["item"]}},
        "loss": {"log_q": False},
        "train": {"num_epochs": 20, "batch_size": batch_size, "patience": 0, "log_every": 1000},
        "launch": {"launcher": "local", "num_workers": 1},
    }  # fmt: skip
    if is_private:
        tree["privacy"] = {"epsilon": 8, "num_users": USERS, "max_interactions": PREDICTED, "public_items": True}
        tree["privacy"]["public_columns"] = has_columns
    if has_columns:
        tree["data"] |= {"nodes": {"item": {"table": "items.parquet", "columns": COLUMNS}}, "known_nodes": "all"}
    return parse_config(tree)


def seconds_of_steps(folder: Path) -> dict[Kind, float]:
    """The median of each kind, which take turns."""
    rng = np.random.default_rng(0)
    pairs = pl.DataFrame({
        "user_id": np.repeat(np.arange(USERS), EACH), "item_id": rng.integers(0, ITEMS, USERS * EACH),
    }).unique(maintain_order=True)  # fmt: skip
    pairs.write_csv(folder / "pairs.csv")
    pl.DataFrame({
        "item_id": np.arange(ITEMS), "year": rng.normal(size=ITEMS), "maker": rng.integers(0, 1000, ITEMS).astype(str),
        "tags": rng.integers(0, 50, (ITEMS, 3)).astype(str).tolist(), "picture": rng.normal(size=(ITEMS, 128)).tolist(),
    }).write_parquet(folder / "items.parquet")  # fmt: skip
    for has_columns in (False, True):
        api.prepare(recipe(folder, has_columns, False))
    trainers: dict[Kind, Trainer] = {
        (has_columns, is_private): Trainer(recipe(folder, has_columns, is_private), lone_worker())
        for has_columns in (False, True)
        for is_private in (False, True)
    }
    taken: dict[Kind, list[float]] = {kind: [] for kind in trainers}
    for step in range(STEPS):
        for kind, trainer in trainers.items():
            batch = trainer.samplers[0].sample(trainer.store, torch.tensor([0, step]))
            started = time.process_time()
            trainer.train_step(batch, at_end=False)
            taken[kind].append(time.process_time() - started)
    return {kind: statistics.median(seconds[WARM_UP:]) for kind, seconds in taken.items()}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        found = seconds_of_steps(folder)
    finally:
        shutil.rmtree(folder)
    ratios = []
    for has_columns, what in ((False, "ID rows"), (True, "columns")):
        plain, private = (1e3 * found[has_columns, is_private] for is_private in (False, True))
        ratios.append(private / plain)
        print(f"{what}: private {private:.0f} ms, plain {plain:.0f} ms: {ratios[-1]:.2f} ×, at most {BAR:g}")
    if max(ratios) > BAR:
        sys.exit("a private step costs too much")


if __name__ == "__main__":
    main()
