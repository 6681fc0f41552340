"""How well new users are served from their first interactions: `python -m benchmarks.new_users --data FOLDER`.

FOLDER holds the public files (ml-100k/). For each seed a fifth of the users is held out; `fit` of the recipe without
them chooses on validation and trains once more; then each held-out user's rest is ranked from 1, 5 and 10
interactions, by the saved model and by baselines on the same histories. Prints a table; with `--save` its rows go to
benchmarks/results/quality.json. `--validation` measures half as many further users, whom training doesn't meet either,
and stops before the test: for choosing settings; further arguments KEY=VALUE change the recipe.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality import RECIPES, Metrics, Row, print_rows, quality_parser, save_rows, shown, spread_of
from dist_gat import api
from dist_gat.base.metric_counts import is_count
from dist_gat.baselines.baseline import evaluate_baseline
from dist_gat.evaluate.new_user_metrics import NEW_USERS
from dist_gat.exchange.worker import lone_worker
from dist_gat.graph.part import open_prepared

RECIPE, DATA, FOLDER = "ml-100k-new-users", "MovieLens-100K, a fifth of the users new", "ml-100k"
PEERS = ("popularity", "itemknn", "ease")
MEASURED = ("ndcg@20", "recall@20")


def measure(overrides: Sequence[str], public: Path, work: Path, seed: int, on_test: bool) -> dict[str, Metrics]:
    """By model, of new users alone."""
    place = work / str(seed)
    places = [f"data.path={public}", f"data.prepared={place / 'prepared'}", f"run={place / 'run'}", f"seed={seed}"]
    config = api.load_config(RECIPES / f"{RECIPE}.yaml", [*overrides, *places])
    split, prepared = "test" if on_test else "valid", Path(config.data.prepared)
    if on_test:
        done = api.fit(config)
        metrics, prepared = done.get("metrics", {}), Path(done["run"]) / "prepared"
    else:
        api.prepare(config)
        done = api.train(config)
        metrics = {} if done["stopped"] else api.evaluate(config)["valid"]
    if done["stopped"]:
        sys.exit(f"seed {seed}: stopped; the same command with the same --work goes on")
    found = {"recipe": metrics}
    opened, worker, lengths = open_prepared(prepared), lone_worker(), config.data.split.cold_user_history
    for name in PEERS:
        measured = evaluate_baseline(
            name, opened, opened.schema.relations[0], split, config.evaluate, config.train.metric, seed, worker, lengths
        )
        found[name] = measured["metrics"]
    of_new = {
        name: {key: value for key, value in own.items() if key.startswith(NEW_USERS) and not is_count(key)}
        for name, own in found.items()
    }
    for name, own in of_new.items():
        print(f"{name}, seed {seed}: {shown({key: own[key] for key in own if key.endswith(MEASURED)})}", flush=True)
    return of_new


def rows_of(found: Sequence[dict[str, Metrics]], command: str) -> list[Row]:
    """Of each history and metric, against each peer, which is the bar."""
    rows = []
    for metric in (name for name in found[0]["recipe"] if name.endswith(MEASURED)):
        own = [models["recipe"][metric] for models in found]
        for peer in PEERS:
            value = statistics.fmean(models[peer][metric] for models in found)
            row = Row("new-users", DATA, metric, statistics.fmean(own), spread_of(own), peer, value, value, command)
            rows.append(row)
    return rows


def main() -> None:
    arguments = quality_parser(__doc__, "new-users").parse_args()
    public, on_test = arguments.data / FOLDER, not arguments.validation
    found = [measure(arguments.overrides, public, arguments.work, seed, on_test) for seed in arguments.seeds]
    rows = rows_of(found, "python -m benchmarks.new_users --data FOLDER")
    print_rows(rows)
    if on_test and arguments.save:
        save_rows(rows)


if __name__ == "__main__":
    main()
