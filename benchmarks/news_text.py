"""Clicks on news by titles, beside a regression on the same vectors: `python -m benchmarks.news_text --data FOLDER`.

FOLDER holds the public files (news-bing/). The encoder is that of the recipe configs/quality/news-text.yaml, frozen.
The baseline is a logistic regression on [u, v, u · v]: v the vector of a title, u the mean of the vectors of what a
user clicked, without the title in question. Validation chooses its strength of regularisation and, in `fit`, the
recipe's epochs; then both have validation pairs too, and see the test pairs once. There are no IDs of impressions, so
the AUC by impression is by user. With `--save` the rows go to benchmarks/results/quality.json. `--validation` stops
before the test: for choosing settings; further arguments KEY=VALUE change the recipe.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.quality import RECIPES, Metrics, Row, print_rows, quality_parser, save_rows, shown, spread_of
from benchmarks.quality_tables import write_news_pairs
from dist_gat import api
from dist_gat.config.sections import Config
from dist_gat.tasks.clicks import auc_by_source
from dist_gat.text.encode import encode_texts

RECIPE, DATA, PEER = "news-text", "news-bing, given split, new items, titles", "logistic on vectors"
MEASURED = ("auc", "auc_by_user")
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
AHEAD = 0.02


def recipe(work: Path, seed: int, overrides: Sequence[str]) -> Config:
    places = [f"data.path={work}", f"data.prepared={work / 'prepared'}", f"run={work / 'runs' / str(seed)}"]
    return api.load_config(RECIPES / f"{RECIPE}.yaml", [*overrides, *places, f"seed={seed}"])


def measure_recipe(work: Path, seed: int, overrides: Sequence[str], on_test: bool) -> Metrics:
    config = recipe(work, seed, overrides)
    if on_test:
        done = api.fit(config)
    else:
        api.prepare(config)
        done = api.train(config)
    if done["stopped"]:
        sys.exit(f"seed {seed}: stopped; the same command begins anew")
    metrics: Metrics = done["metrics" if on_test else "valid"]
    print(f"recipe, seed {seed}: {shown(metrics)}", flush=True)
    return metrics


def measure_baseline(work: Path, on_test: bool) -> Metrics:
    """Of the strength that validation chooses."""
    column = recipe(work, 0, []).data.nodes["item"].columns["title"]
    items = pl.read_csv(work / "items.csv")
    vectors_ID = encode_texts(items["title"], column.text_encoder, Path("data/vectors"), print)
    vector_of = dict(zip(items["item_id"].to_list(), np.nan_to_num(vectors_ID), strict=True))
    train, valid, test = (pl.read_csv(work / f"{split}.csv") for split in ("train", "valid", "test"))
    found = {strength: fitted(train, valid, vector_of, strength) for strength in STRENGTHS}
    for strength, metrics in found.items():
        print(f"{PEER}, C={strength:g}, valid: {shown(metrics)}", flush=True)
    best = max(STRENGTHS, key=lambda strength: found[strength]["auc"])
    metrics = fitted(pl.concat([train, valid]), test, vector_of, best) if on_test else found[best]
    print(f"{PEER}, C={best:g}: {shown(metrics)}", flush=True)
    return metrics


def fitted(train: pl.DataFrame, held_out: pl.DataFrame, vector_of: dict[int, np.ndarray], strength: float) -> Metrics:
    """strength: C of the regression."""
    clicks = train.filter(pl.col("weight") > 0)
    sums: dict[int, np.ndarray] = {}
    for user, item in clicks.select("user_id", "item_id").iter_rows():
        sums[user] = sums.get(user, 0) + vector_of[item]
    counts = dict(clicks.group_by("user_id").len().iter_rows())

    def columns(table: pl.DataFrame, is_train: bool) -> np.ndarray:
        rows = []
        for user, item, label in table.select("user_id", "item_id", "weight").iter_rows():
            vector = vector_of[item]
            own = is_train and label > 0
            total = sums.get(user, np.zeros_like(vector)) - (vector if own else 0)
            mean = total / max(counts.get(user, 0) - own, 1)
            rows.append(np.concatenate([mean, vector, mean * vector]))
        return np.array(rows)

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    model.fit(columns(train, is_train=True), train["weight"].to_numpy() > 0)
    scores = model.predict_proba(columns(held_out, is_train=False))[:, 1]
    labels, users = held_out["weight"].to_numpy().astype(np.float64), held_out["user_id"].to_numpy()
    return {"auc": roc_auc_score(labels, scores), "auc_by_user": auc_by_source(labels, scores, users)}


def rows_of(found: Sequence[Metrics], peer: Metrics, command: str) -> list[Row]:
    rows = []
    for name in MEASURED:
        own = [metrics[name] for metrics in found]
        row = Row(
            "news-text",
            DATA,
            name,
            statistics.fmean(own),
            spread_of(own),
            PEER,
            peer[name],
            peer[name] + AHEAD,
            command,
        )
        rows.append(row)
    return rows


def main() -> None:
    arguments = quality_parser(__doc__, "news-text").parse_args()
    # another recipe makes other runs
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    write_news_pairs(arguments.data, arguments.work)
    shutil.copyfile(arguments.data / "news-bing" / "items.csv", arguments.work / "items.csv")
    on_test = not arguments.validation
    peer = measure_baseline(arguments.work, on_test)
    found = [measure_recipe(arguments.work, seed, arguments.overrides, on_test) for seed in arguments.seeds]
    rows = rows_of(found, peer, "python -m benchmarks.news_text --data FOLDER")
    print_rows(rows)
    if arguments.save and on_test:
        save_rows(rows)


if __name__ == "__main__":
    main()
