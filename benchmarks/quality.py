"""How good predictions of ratings, clicks and counts are: `python -m benchmarks.quality LINE --data FOLDER`.

LINE is ml-100k, kuairec, news, lastfm or tmall; FOLDER holds the public files (ml-100k/, kuairec/, news-bing/,
lastfm-hin/, tmall-behaviours/).
Writes the tables, fits the recipe of configs/quality with each seed (`fit`: validation chooses the epochs, the last
training has train and validation pairs), looks at the test pairs, runs the peers on the same training pairs, and
prints a table. With `--save` its rows go to benchmarks/results/quality.json too. `--validation` stops before the test:
it prints what validation says, for choosing settings: further arguments KEY=VALUE change the recipes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from benchmarks import quality_peers, quality_tables
from dist_gat import api
from dist_gat.baselines import pair_baselines
from dist_gat.baselines.histories import shifts
from dist_gat.baselines.pair_baselines import LabelledPairs, labelled_pairs
from dist_gat.config.sections import Config
from dist_gat.evaluate.graded_ndcg import graded_ndcg
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.tasks.build_task import build_task
from dist_gat.tasks.pair_task import PairTask
from dist_gat.workflows.compared_models import ONLY, model_recipe

RECIPES = Path(__file__).parent.parent / "configs" / "quality"
RESULTS = Path(__file__).parent / "results" / "quality.json"
K = 20
SINGLE = "single task"
Metrics = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One number and what it should reach. spread: the standard deviation over seeds. bar: in the metric's unit."""

    line: str
    data: str
    metric: str
    value: float
    spread: float
    peer: str
    peer_value: float | None
    bar: float
    command: str


@dataclass(frozen=True)
class Bar:
    """A peer ("" for none) and the value to reach, from the peer's."""

    metric: str
    peer: str
    reach: Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """data: in words. recipe: in configs/quality. folds: tables that the mean is over. ranking: a recipe that ranks
    beside it. alone: of several tasks, the one that is trained alone as the peer."""

    data: str
    recipe: str
    write: Callable[[Path, Path, int], None]
    bars: tuple[Bar, ...]
    folds: int = 1
    ranking: str = ""
    alone: str = ""


LINES = {
    "ml-100k": Line(
        "MovieLens-100K, random 80/20, mean of 5 folds", "ml-100k-rating", quality_tables.write_movielens,
        (
            Bar("rmse", "LensKit biased MF", lambda peer: min(0.9, peer - 0.01)),
            Bar("rmse", "biases", lambda peer: 0.9),
        ),
        folds=quality_tables.NUM_FOLDS,
    ),
    "kuairec": Line(
        "KuaiRec, given split", "kuairec-click", quality_tables.write_kuairec,
        (
            Bar("auc", "biases", lambda peer: 0.967),
            Bar("auc", "logistic MF", lambda peer: 0.967),
            Bar("log_loss", "logistic MF", lambda peer: peer),
            Bar("log_loss", "boosting", lambda peer: peer),
            Bar("calibration_error", "", lambda peer: 0.02),
        ),
    ),
    "news": Line(
        "news-bing, given split, new items", "news-click", quality_tables.write_news,
        (
            Bar("auc_by_user", "popularity", lambda peer: peer),
            Bar("auc_by_user", "logistic", lambda peer: peer),
            Bar("auc_by_user", "logistic, words", lambda peer: peer),
        ),
    ),
    "lastfm": Line(
        "Last.fm plays, random 80/10/10", "lastfm-count", quality_tables.write_lastfm,
        (
            Bar("deviance", "rates", lambda peer: 0.95 * peer),
            Bar(f"ndcg@{K} of counts", "ALS with counts", lambda peer: 1.05 * peer),
        ),
        ranking="lastfm-ranking",
    ),
    "tmall": Line(
        "Tmall purchases, given split", "tmall-together", quality_tables.write_tmall,
        (
            Bar(f"buy/ndcg@{K}", SINGLE, lambda peer: peer),
            Bar(f"buy/recall@{K}", SINGLE, lambda peer: peer),
        ),
        alone="buy",
    ),
}  # fmt: skip


def recipe(name: str, tables: Path, run: Path, overrides: Sequence[str]) -> Config:
    """A recipe on the tables of a folder, with all columns of the side tables that it names."""
    config = api.load_config(RECIPES / f"{name}.yaml", overrides)
    changes = [f"data.path={tables}", f"data.prepared={tables / 'prepared' / name}", f"run={run}"]
    for kind in ("user", "item"):
        if feature := getattr(config.data, f"{kind}_features"):
            columns = pl.read_csv(tables / feature.path, n_rows=1).columns[1:]
            changes.append(f"data.{kind}_features.columns={json.dumps(columns)}")
    return api.load_config(RECIPES / f"{name}.yaml", [*overrides, *changes])


def measure_model(
    name: str, line: Line, work: Path, seed: int, overrides: Sequence[str], on_test: bool, alone: str = ""
) -> Metrics:
    """The mean over the folds; on validation without `on_test`. alone: of several tasks, the one that is trained."""
    found = []
    for fold in range(line.folds):
        tables, run = work / f"fold-{fold}", work / f"fold-{fold}" / "runs" / f"{line.recipe}-{seed}"
        config = recipe(line.recipe, tables, run, [*overrides, f"seed={seed}"])
        if not Path(config.data.prepared).exists():
            api.prepare(config)
        if alone:
            config = model_recipe(f"{ONLY}{alone}", config)
        done = api.fit(config) if on_test else api.train(config)
        if done["stopped"]:
            sys.exit(f"{name}, seed {seed}: stopped; nothing was written, and the same command begins anew")
        metrics = done["metrics" if on_test else "valid"]
        print(f"{name}, fold {fold}, seed {seed}: " + shown(metrics), flush=True)
        if line.ranking and on_test:
            metrics |= measure_ranking(line.ranking, tables, seed)
        found.append(metrics)
    return {name: statistics.mean(metrics[name] for metrics in found) for name in found[0]}


def measure_ranking(name: str, tables: Path, seed: int) -> Metrics:
    """NDCG of test with the counts as gains, of the recipe that ranks; saved models leave validation pairs out."""
    config = recipe(name, tables, tables / "runs" / f"{name}-{seed}", [f"seed={seed}"])
    if not Path(config.data.prepared).exists():
        api.prepare(config)
    run = api.fit(config)["run"]
    _, held_out, users, items = counts_of(tables, on_test=True)
    best = api.recommend(run, users["user_id"].to_list(), K)
    place = best.join(users.with_row_index("row"), on="user_id").join(items.with_row_index("column"), on="item_id")
    ranked = np.full((len(users), K), -1, dtype=np.int64)
    ranked[place["row"].to_numpy(), place["rank"].to_numpy() - 1] = place["column"].to_numpy()
    return {f"ndcg@{K} of counts": float(graded_ndcg(ranked, held_out).mean())}


def counts_of(tables: Path, on_test: bool) -> tuple[csr_array, csr_array, pl.DataFrame, pl.DataFrame]:
    """Training and held-out counts as matrices of the users that have some held out and all items, and their IDs."""
    train, valid, test = (pl.read_csv(tables / f"{split}.csv") for split in ("train", "valid", "test"))
    items = pl.concat([train, valid, test]).select("item_id").unique().sort("item_id")
    train, held_out = (pl.concat([train, valid]), test) if on_test else (train, valid)
    users = held_out.select("user_id").unique().sort("user_id")
    rest = train.select("user_id").unique().join(users, on="user_id", how="anti").sort("user_id")
    order = pl.concat([users, rest]).with_row_index("row")

    def matrix(table: pl.DataFrame, num_users: int) -> csr_array:
        found = table.join(order, on="user_id").join(items.with_row_index("column"), on="item_id")
        at = (found["row"].to_numpy(), found["column"].to_numpy())
        return csr_array((found["weight"].to_numpy().astype(np.float64), at), shape=(num_users, len(items)))

    return matrix(train, len(order)), matrix(held_out, len(users)), users, items


def measure_peers(line: Line, work: Path, data: Path, on_test: bool) -> dict[str, Metrics]:
    """By peer, the mean over the folds; each is fitted on what our last training had."""
    found: dict[str, list[Metrics]] = {}
    for fold in range(line.folds):
        tables = work / f"fold-{fold}"
        config = recipe(line.recipe, tables, tables / "runs" / "peers", [f"data.split.merge_valid={on_test}".lower()])
        folder = tables / "prepared" / f"peers-{on_test}"
        config = config.model_copy(update={"data": config.data.model_copy(update={"prepared": str(folder)})})
        if not folder.exists():
            api.prepare(config)
        prepared = open_prepared(str(folder))
        task = build_task(config, prepared)
        assert isinstance(task, PairTask), "lines are of predicted pairs"
        train, held_out = (
            labelled_pairs(task, task.labelled.of_parts(range(prepared.ranges.num_parts), split))
            for split in ("train", "test" if on_test else "valid")
        )
        for name in dict.fromkeys(bar.peer for bar in line.bars):
            if name == "ALS with counts":
                known, gains, users, _ = counts_of(tables, on_test)
                ranked = quality_peers.rank_with_als(known, K)[: len(users)]
                metrics = {f"ndcg@{K} of counts": float(graded_ndcg(ranked, gains).mean())}
            elif name:
                predict = fit_peer(name, train, prepared, data)
                predictions = predict(held_out.users, held_out.items)
                metrics = task.likelihood.metrics(held_out.labels, predictions, held_out.users)
            else:
                continue
            print(f"{name}, fold {fold}: {shown(metrics)}", flush=True)
            found.setdefault(name, []).append(metrics)
    return {
        peer: {name: statistics.mean(metrics[name] for metrics in folds) for name in folds[0]}
        for peer, folds in found.items()
    }


def fit_peer(name: str, train: LabelledPairs, prepared: PreparedGraph, data: Path) -> pair_baselines.Predict:
    if name == "logistic, words":
        items = quality_tables.read_news_items(data)
        texts = dict(zip(items["item_id"], items["text"], strict=True))
        return quality_peers.fit_logistic_words(train, [texts[item] for item in item_ids(prepared)])
    is_rating = train.labels.max() > 1
    peers = {
        "LensKit biased MF": quality_peers.fit_lenskit,
        "logistic MF": quality_peers.fit_logistic_factors,
        "biases": pair_baselines.fit_biases if is_rating else pair_baselines.fit_click_biases,
        "boosting": pair_baselines.fit_boosting,
        "popularity": pair_baselines.fit_item_mean,
        "logistic": pair_baselines.fit_logistic,
        "rates": pair_baselines.fit_rates,
    }
    return peers[name](train)


def item_ids(prepared: PreparedGraph) -> list[Any]:
    """External IDs by item number, as in `LabelledPairs`."""
    relation = prepared.schema.relations[0]
    ids = pl.read_parquet(Path(prepared.folder) / "ids" / f"{relation.target}.parquet")
    nodes = ids["node_id"].to_numpy()
    number = nodes - shifts(prepared.ranges, relation.target)[prepared.ranges.part_of(nodes)]
    return ids["external_id"].gather(np.argsort(number)).to_list()


def rows_of(name: str, line: Line, models: list[Metrics], peers: dict[str, Metrics], command: str) -> list[Row]:
    rows = []
    for bar in line.bars:
        if bar.metric not in models[0]:
            continue
        values = [metrics[bar.metric] for metrics in models]
        peer = peers[bar.peer][bar.metric] if bar.peer else None
        spread = spread_of(values)
        reach = bar.reach(0.0 if peer is None else peer)
        rows.append(Row(name, line.data, bar.metric, statistics.mean(values), spread, bar.peer, peer, reach, command))
    return rows


def shown(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name != "num_pairs")


def print_rows(rows: Sequence[Row]) -> None:
    print(f"{'line':10} {'metric':18} {'value':>9} {'spread':>8} {'bar':>9}  {'peer':20} {'its value':>9}")
    for x in rows:
        peer = "" if x.peer_value is None else f"{x.peer_value:9.4f}"
        print(f"{x.line:10} {x.metric:18} {x.value:9.4f} {x.spread:8.4f} {x.bar:9.4f}  {x.peer:20} {peer:>9}")


def save_rows(rows: Sequence[Row]) -> None:
    """All others stay."""
    new = {(x.line, x.metric, x.peer) for x in rows}
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [entry for entry in earlier if (entry["line"], entry["metric"], entry["peer"]) not in new]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*kept, *map(asdict, rows)], indent=1) + "\n")


def quality_parser(doc: str | None, work: str, lines: Collection[str] = ()) -> argparse.ArgumentParser:
    """Of a module that measures recipes on public data. work: its folder below runs/. lines: to choose from."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if lines:
        parser.add_argument("line", choices=lines)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the recipe")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the public files")
    parser.add_argument("--work", type=Path, default=Path("runs") / work, help="for tables, prepared folders and runs")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--validation", action="store_true", help="look at validation alone")
    parser.add_argument("--save", action="store_true")
    return parser


def spread_of(values: Sequence[float]) -> float:
    """The deviation over the seeds, 0 of one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    arguments = quality_parser(__doc__, "quality", LINES).parse_args()
    name, line, on_test = arguments.line, LINES[arguments.line], not arguments.validation
    work = arguments.work / name
    for fold in range(line.folds):
        # another recipe makes other runs
        shutil.rmtree(work / f"fold-{fold}", ignore_errors=True)
        (work / f"fold-{fold}").mkdir(parents=True)
        line.write(arguments.data, work / f"fold-{fold}", fold)
    models = [measure_model(name, line, work, seed, arguments.overrides, on_test) for seed in arguments.seeds]
    if line.alone:
        measure = partial(measure_model, SINGLE, line, work, overrides=arguments.overrides, on_test=on_test)
        single = [measure(seed=seed, alone=line.alone) for seed in arguments.seeds]
        peers = {SINGLE: {metric: statistics.mean(found[metric] for found in single) for metric in single[0]}}
    else:
        peers = measure_peers(line, work, arguments.data, on_test)
    rows = rows_of(name, line, models, peers, f"python -m benchmarks.quality {name} --data FOLDER")
    print_rows(rows)
    if arguments.save and on_test:
        save_rows(rows)


if __name__ == "__main__":
    main()
