"""Exact top-20 for all users against a dense score matrix: `python -m benchmarks.ranking --data FOLDER`.

FOLDER holds the LightGCN split of Gowalla (29,858 users, 40,981 items). Both sides rank all items by the inner
product of the same random 64-dimensional representations, leaving out each user's training and validation items.
The peer is one matrix product, -inf at the known items, and `torch.topk`. Their results are compared first.

The ceiling is the time of the matrix product alone: its operations over the rate of a large product.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.harness import OURS, Step
from dist_gat.config.files import load_config
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.full_ranking import rank_representations
from dist_gat.evaluate.topk import known_items
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import lone_worker
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.launcher.host import keep_freed_memory
from dist_gat.sampling.graph_store import open_store

SIZE, K = 64, 20
DENSE = "dense + torch.topk"
SPEED_BAR, MEMORY_BAR = 2.0, 10.0


def representations(prepared: PreparedGraph) -> Tensor:
    return torch.randn(prepared.ranges.num_nodes, SIZE, generator=torch.Generator().manual_seed(0))


def our_ranking(prepared: PreparedGraph) -> Step:
    rows_OR, store = representations(prepared), open_store(prepared, Channel("sampling"), "auto")
    config, relation, worker = EvaluateConfig(ks=[K]), prepared.schema.relations[0], lone_worker()
    sample = sample_users(prepared, relation, "test", store.own_parts, None, 0, worker.control)

    def step() -> np.ndarray:
        rankings = rank_representations(rows_OR, store, worker, relation, "test", config, sample.users)
        return np.concatenate([ranking.items for ranking in rankings])

    return step


def dense_ranking(prepared: PreparedGraph) -> Step:
    rows_OR, ranges = representations(prepared), prepared.ranges
    relation = prepared.schema.relations[0]
    users, items = (
        np.concatenate([np.array(ranges.nodes_of_type(p, kind)) for p in range(ranges.num_parts)])
        for kind in (relation.source, relation.target)
    )
    users_UR, items_IR = rows_OR[torch.from_numpy(users)], rows_OR[torch.from_numpy(items)]
    column_of = np.zeros(ranges.num_nodes, dtype=np.int64)
    column_of[items] = np.arange(len(items))
    edges = np.concatenate([part.pairs(relation, split) for part in prepared.parts for split in ("train", "valid")])
    known = known_items(np.arange(ranges.num_nodes), [edges])
    counts = np.diff(known.indptr)[users]
    rows = torch.from_numpy(np.repeat(np.arange(len(users)), counts))
    met = np.concatenate([known.items[known.indptr[u] : known.indptr[u + 1]] for u in users])
    columns = torch.from_numpy(column_of[met])

    def step() -> np.ndarray:
        scores = users_UR @ items_IR.T
        scores[rows, columns] = -torch.inf
        return items[scores.topk(K, dim=1).indices.numpy()]

    return step


SIDES = {OURS: our_ranking, DENSE: dense_ranking}


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=5, on_graph=False)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-of", nargs=2, metavar=("SIDE", "PREPARED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        side, folder = arguments.peak_of
        print(harness.peak_extra_bytes(SIDES[side](open_prepared(folder)), warmup=1))
        return
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as folder:
        config = load_config("configs/gowalla.yaml", [f"data.path={arguments.data}", f"data.prepared={folder}/parts"])
        prepare_dataset(config.name, config.data, config.parts, config.seed)
        prepared = open_prepared(config.data.prepared)
        steps = {name: side(prepared) for name, side in SIDES.items()}
        same = (steps[OURS]() == steps[DENSE]()).mean()  # type: ignore[attr-defined]
        print(f"{same:.4%} of the places have the same item (others: equal to rounding)")
        seconds = harness.seconds_in_turn(steps, arguments.repeats, warmup=1)
        for name, values in seconds.items():
            print(f"{name}: {np.median(values):.2f} s")
        relation = prepared.schema.relations[0]
        num_items = prepared.ranges.count(relation.target)
        operations = 2 * SIZE * num_items * (prepared.ranges.num_nodes - num_items)
        results = harness.compare("exact top-20, Gowalla", seconds, SPEED_BAR, operations / harness.product_rate())
        alone = ("benchmarks.ranking", "--threads", arguments.threads, "--peak-of")
        peaks = {name: int(harness.run_alone(*alone, name, config.data.prepared)[-1]) for name in SIDES}
    results.append(harness.compare_peaks("exact top-20, peak memory", peaks, MEMORY_BAR))
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
