"""Columns of three kinds, fetched and encoded, against one float matrix: `python -m benchmarks.columns`.

The items of the standard graph have 8 columns: 3 numbers, 3 categories of 1,000, and 2 lists of up to 5 categories of
10,000; beside `known` these are 16 float32 a node, which the peer has as one vector. A step fetches the columns of the
sources of a batch, and encodes them to rows of 64, forward.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from benchmarks import harness
from benchmarks.graph import power_law_pairs
from benchmarks.harness import OURS
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.sections import PartsConfig
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.launcher.host import keep_freed_memory
from dist_gat.nn.inputs.node_inputs import NodeInputs
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.sampler import gather_features

SIZE, NUM_FETCHED, LONGEST, BAR = 64, 60_000, 5, 0.67
MATRIX = "one float matrix"
KINDS: dict[str, object] = {
    **{f"number{n}": "numeric" for n in range(3)},
    **{f"category{n}": "category" for n in range(3)},
    **{f"list{n}": {"kind": "categories", "max_length": LONGEST} for n in range(2)},
}
WIDTH = 3 + 3 + 2 * LONGEST


def write_items(folder: Path, num_items: int) -> None:
    random = np.random.default_rng(0)
    frame: dict[str, object] = {"item_id": np.arange(num_items)}
    frame |= {f"number{n}": random.standard_normal(num_items, dtype=np.float32) for n in range(3)}
    frame |= {f"category{n}": random.integers(0, 1000, num_items) for n in range(3)}
    for n in range(2):
        codes = random.integers(0, 10_000, num_items * LONGEST)
        ends = random.integers(1, LONGEST + 1, num_items).cumsum()
        starts = np.append(0, ends).astype(np.int64)
        frame[f"list{n}"] = pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(starts, codes)))
    pl.DataFrame(frame).write_parquet(folder / "items.parquet")
    np.save(folder / "items.npy", random.standard_normal((num_items, WIDTH), dtype=np.float32))


def prepare(folder: Path, name: str, columns: dict[str, object]) -> PreparedGraph:
    data = {
        "path": str(folder), "interactions": "pairs.parquet", "split": {"valid_ratio": 0, "test_ratio": 0},
        "prepared": str(folder / name), "nodes": {"item": {"table": "items.parquet", "columns": columns}},
    }  # fmt: skip
    prepare_dataset(name, DataConfig.model_validate(data), PartsConfig(num_parts=4, method="hash"), seed=0)
    return open_prepared(folder / name)


def steps_of(prepared: PreparedGraph, num_fetched: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Fetching alone, and with encoding, of nodes that batches meet in proportion to their degree."""
    store = open_store(prepared, Channel("benchmark"), "auto")
    degree = np.concatenate([np.diff(part.node_starts) for part in prepared.parts]).astype(np.float64)
    random = np.random.default_rng(1)
    nodes = random.choice(len(degree), num_fetched, replace=False, p=degree / degree.sum())
    inputs, rows = NodeInputs(prepared.layouts, SIZE), torch.randn(num_fetched, SIZE)

    @torch.no_grad()
    def encode() -> object:
        return inputs(rows, gather_features(store, nodes))

    return lambda: store.features(nodes), encode


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=41)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    half = arguments.nodes // 2
    results = []
    with tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as work:
        folder = Path(work)
        power_law_pairs(half, half, arguments.interactions).write_parquet(folder / "pairs.parquet")
        write_items(folder, half)
        matrix = {"matrix": {"kind": "vector", "table": "items.npy", "scale": "none"}}
        sides = {OURS: prepare(folder, "columns", KINDS), MATRIX: prepare(folder, "matrix", matrix)}
        num_fetched = min(NUM_FETCHED, half)
        steps = {name: steps_of(prepared, num_fetched) for name, prepared in sides.items()}
        for number, what in enumerate(("feature fetch", "feature fetch and encoding")):
            seconds = harness.seconds_in_turn(
                {name: both[number] for name, both in steps.items()}, arguments.repeats, settle_s=harness.SETTLE_S
            )
            results += harness.compare(f"{what}, 8 columns of 3 kinds", seconds, BAR, None)
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
