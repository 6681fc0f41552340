"""All users to a parquet file against the ranking alone: `python -m benchmarks.all_users`.

`recommend --all-users` opens a saved model, ranks its top 20 for everybody and writes IDs, scores and ranks. The other
side is the exact top 20 of `evaluate`, as `benchmarks.ranking` times it, of the same vectors and without what the same
users have met, which writes nothing. Lists are compared first. `--save` writes the row to
benchmarks/results/quality.json. The model is that of `benchmarks.serving`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.harness import OURS, compare, new_parser, report, seconds_in_turn
from benchmarks.quality import Row, save_rows
from benchmarks.serving import K, add_size, make_run
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.full_ranking import rank_representations
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import lone_worker
from dist_gat.graph.part import open_prepared
from dist_gat.launcher.host import keep_freed_memory
from dist_gat.sampling.graph_store import open_store
from dist_gat.serve.ranker import Ranker, open_ranker
from dist_gat.serve.recommend_file import recommend_file
from dist_gat.serve.saved_model import open_model

RANKING, MOST = "exact top-20 of evaluate", 1.1


def rank_alone(ranker: Ranker) -> np.ndarray:
    """int64 [U, K]: the best items of all users, in the order of parts."""
    model, prepared = ranker.model, open_prepared(ranker.model.config.data.prepared)
    parts = range(model.ranges.num_parts)
    rows_OR = torch.from_numpy(np.concatenate([np.concatenate(ranker.rows(part), axis=1) for part in parts]))
    users = {part: np.array(model.ranges.nodes_of_type(part, model.relation.source)) for part in parts}
    store, relation = open_store(prepared, Channel("sampling"), "auto"), prepared.schema.relations[0]
    found = rank_representations(rows_OR, store, lone_worker(), relation, "test", EvaluateConfig(ks=[K]), users)
    return np.concatenate([ranking.items for ranking in found])


def share_of_same(ranker: Ranker, written: Path) -> float:
    """Of the items in the file, how many the ranking has too."""
    users, best = np.sort(ranker.users.nodes), rank_alone(ranker)
    table = pl.read_parquet(written)
    user = np.searchsorted(users, ranker.users.find(table["user_id"], "the file"))
    item = ranker.items.find(table["item_id"], "the file")
    return float((best[user] == item[:, None]).any(axis=1).mean())


def main() -> None:
    parser = new_parser(__doc__, 5, on_graph=False)
    add_size(parser)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--save", action="store_true")
    arguments: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as work:
        run = arguments.run or make_run(Path(work), arguments)
        output, ranker = Path(work) / "all.parquet", open_ranker(open_model(run / "model"))
        written = recommend_file(open_model(run / "model"), None, output, K)
        print(f"{written['users']:,} users, {written['rows']:,} rows; {share_of_same(ranker, output):.4%} are the same")
        seconds = seconds_in_turn(
            {
                OURS: lambda: recommend_file(open_model(run / "model"), None, output, K),
                RANKING: lambda: rank_alone(ranker),
            },
            arguments.repeats,
            warmup=1,
        )
    for name, taken in seconds.items():
        print(f"{name}: {statistics.median(taken):.2f} s")
    lines = compare("all users to parquet", seconds, 1 / MOST, None)
    report(lines, arguments.json)
    if arguments.save:
        ours, theirs = (statistics.median(seconds[name]) for name in (OURS, RANKING))
        spread = statistics.stdev(seconds[OURS]) if len(seconds[OURS]) > 1 else 0.0
        data = f"{written['users']:,} users, {len(ranker.items.nodes):,} items, random weights"
        command = "python -m benchmarks.all_users"
        save_rows([Row("all users", data, "seconds to parquet", ours, spread, RANKING, theirs, MOST * theirs, command)])


if __name__ == "__main__":
    main()
