"""What privacy costs in quality and time: `python -m benchmarks.privacy LINE --data FOLDER [--seeds 0 1 2]`.

LINE is ml-100k or lastfm; FOLDER holds the public files (ml-100k/, lastfm-hin/). A fifth of each user's pairs, by a
hash of the pair, is test; nothing else is held out. For each ε the recipe configs/quality/LINE-private.yaml is trained
and ranked; beside it the same run without noise, popularity by counts with the same promise, by exact counts, and
ItemKNN. δ is 1 / num_users^1.1. Every run draws a new secret, so seeds are repetitions. With `--save` the rows go to
benchmarks/results/quality.json. Further arguments KEY=VALUE change the recipe. `--validation` leaves the test pairs out
and measures a tenth of the others, which it holds out: for choosing settings.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl

from benchmarks.quality import RECIPES, Row, print_rows, quality_parser, save_rows, spread_of
from dist_gat import api
from dist_gat.base.random import hash_ids
from dist_gat.baselines.baseline import PLAIN, rank_baseline
from dist_gat.baselines.histories import training_histories
from dist_gat.baselines.scorer import Scorer
from dist_gat.config.sections import Config
from dist_gat.evaluate.full_ranking import ranking_metrics
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.worker import lone_worker
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.schema import INTERACTIONS
from dist_gat.privacy.accountant import plan_privacy
from dist_gat.train import private_start
from dist_gat.train.private_run import PrivateRun

EPSILONS = (1.0, 4.0, 8.0)
METRIC = "ndcg@20"
AHEAD = 1.25
LINES = {"ml-100k": "MovieLens-100K", "lastfm": "Last.fm"}
(INTERACTS,) = INTERACTIONS.relations
PRIVATE_POPULARITY = "popularity, private counts"


def read_pairs(line: str, data: Path) -> pl.DataFrame:
    if line == "ml-100k":
        frame = pl.read_csv(data / "ml-100k" / "ml-100k.inter", separator="\t", has_header=True)
    else:
        frame = pl.read_csv(data / "lastfm-hin" / "user_artist.dat", separator="\t", has_header=False)
    first, second = frame.columns[:2]
    return frame.select(user_id=pl.col(first), item_id=pl.col(second)).unique(maintain_order=True)


def write_tables(line: str, data: Path, folder: Path, on_test: bool = True) -> None:
    """The split of a pair is a function of the pair alone, so that no user moves another's. on_test: what is measured,
    test pairs, or a tenth of the others in their place."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pairs = read_pairs(line, data)
    numbers = pairs["user_id"].to_numpy().astype(np.int64) * (1 << 32) + pairs["item_id"].to_numpy()
    is_test = hash_ids(np.uint64(0), numbers) % np.uint64(5) == 0
    is_valid = ~is_test & (hash_ids(np.uint64(1), numbers) % np.uint64(10) == 0)
    held_out, left_out = (is_test, is_valid & False) if on_test else (is_valid, is_test)
    pairs.filter(pl.Series(~held_out & ~left_out)).write_csv(folder / "train.csv")
    pairs.filter(pl.Series(held_out)).write_csv(folder / "test.csv")


@contextmanager
def without_noise() -> Iterator[None]:
    """Runs in this process add none: they keep no promise."""
    noise = PrivateRun.noise
    silent = lambda self, store, batch_size: replace(noise(self, store, batch_size), std=0.0)  # noqa: E731
    nothing = lambda key, step, first_row, num_rows, size: np.zeros((num_rows, size))  # noqa: E731
    with patch.object(PrivateRun, "noise", silent), patch.object(private_start, "normal_noise", nothing):
        yield


def recipe(line: str, work: Path, overrides: Sequence[str]) -> Config:
    places = [f"data.path={work}", f"data.prepared={work / 'prepared'}", f"run={work / 'run'}"]
    return api.load_config(RECIPES / f"{line}-private.yaml", [*overrides, *places])


def measure(config: Config) -> float:
    """On the test pairs, of a run that begins anew."""
    shutil.rmtree(config.run_folder, ignore_errors=True)
    api.train(config)
    return float(api.evaluate(config)["test"][METRIC])


def rank(score: Scorer, prepared: PreparedGraph, config: Config) -> float:
    worker, parts = lone_worker(), range(prepared.ranges.num_parts)
    users = sample_users(prepared, INTERACTS, "test", parts, None, 0, worker.control).users
    rankings = rank_baseline(score, prepared, INTERACTS, "test", config.evaluate, users, worker)
    return ranking_metrics(rankings, prepared, worker.control, INTERACTS, "test", config.evaluate.ks)[METRIC]


def private_popularity(prepared: PreparedGraph, config: Config, seed: int) -> Scorer:
    """Each user has one unit, in L2, to share among the user's items; one Gaussian mechanism hides the sum."""
    assert config.privacy is not None, "a private recipe"
    matrix_UI = training_histories(prepared, INTERACTS).matrix()
    degree_U = np.asarray(matrix_UI.sum(axis=1)).ravel()
    count_I = matrix_UI.T @ (1 / np.sqrt(np.maximum(degree_U, 1)))
    alone = config.privacy.model_copy(update={"start": None})
    std = plan_privacy(alone, config.privacy.num_users, 1).noise_multiplier
    noisy_I = count_I + std * np.random.default_rng(seed).normal(size=len(count_I))
    return Scorer((np.ones((matrix_UI.shape[0], 1), np.float32), noisy_I[None].astype(np.float32)))


def rows_of(line: str, epsilon: float, values: Sequence[float], peers: Mapping[str, float]) -> list[Row]:
    data, command = f"{LINES[line]}, ε = {epsilon:g}", f"python -m benchmarks.privacy {line} --data FOLDER"
    ahead = {PRIVATE_POPULARITY: AHEAD} if epsilon == max(EPSILONS) else {}
    name, mean, spread = f"privacy-{line}-{epsilon:g}", statistics.mean(values), spread_of(values)
    return [
        Row(name, data, METRIC, mean, spread, peer, found, ahead.get(peer, 1.0) * found, command)
        for peer, found in peers.items()
    ]


def main() -> None:
    arguments = quality_parser(__doc__, "privacy", LINES).parse_args()
    line, seeds = arguments.line, arguments.seeds
    work, on_test = arguments.work / line, not arguments.validation
    write_tables(line, arguments.data, work, on_test)
    plain = recipe(line, work, arguments.overrides)
    api.prepare(plain)
    prepared = open_prepared(plain.data.prepared)
    matrix = training_histories(prepared, INTERACTS).matrix()
    fits = {name: PLAIN[name](matrix, plain.evaluate.baseline) for name in ("popularity", "itemknn")}
    peers = {name: rank(score, prepared, plain) for name, score in fits.items()}
    with without_noise():
        peers["without noise"] = statistics.mean(measure(plain) for _ in seeds)
    rows = []
    for epsilon in EPSILONS:
        config = recipe(line, work, [*arguments.overrides, f"privacy.epsilon={epsilon}"])
        values = [measure(config) for _ in seeds]
        by_counts = [rank(private_popularity(prepared, config, seed), prepared, config) for seed in seeds]
        rows += rows_of(line, epsilon, values, {PRIVATE_POPULARITY: statistics.mean(by_counts), **peers})
        print_rows(rows[-len(peers) - 1 :])
    if arguments.save and on_test:
        save_rows(rows)


if __name__ == "__main__":
    main()
