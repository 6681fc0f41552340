"""What pre-training and adapters bring on Last.fm: `python -m benchmarks.pretraining --data FOLDER [KEY=VALUE ...]`.

FOLDER holds lastfm-hin/. The recipe is configs/quality/lastfm-social.yaml with scoring=degree_dot, so that its layers
have matrices, without its filters, which have no part in pre-training, and at a lower learning rate, which is better
for it too. For each seed, by NDCG@20 of validation at the best epoch:

base     6 epochs of reconstructing hidden edges of all relations; also what it ranks itself
alone    the ranking task for 10 epochs, as many steps as the two others together
begun    the ranking task for 4 epochs, beginning with `base`; also the steps to the best of `alone`
adapted  the same as `begun`, where low-rank adapters are trained in place of the dense weights, with ID rows frozen and
         with ID rows trained; also the share of the dense parameters of the whole model that are trained

`--seeds N` says how many seeds. With `--save` rows go to benchmarks/results/quality.json. KEY=VALUE change all recipes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality import RECIPES, Row, save_rows
from dist_gat import api
from dist_gat.config.sections import Config

METRIC = "ndcg@20"
RECIPE = ("blend={}", "model.scoring=degree_dot")
# the recipe's own undoes in one epoch what was learned before
RATE = ("train.learning_rate=0.006",)
# with the whole weight of friends and tags, of which there are more, what users meet is learned too little
PRETRAIN = (
    "task.kind=reconstruct", "task.hidden_together=1", "task.weights={friends: 0.1, tags: 0.1}", *RATE,
    "train.num_epochs=6",
)  # fmt: skip
SHORT = ("train.num_epochs=4",)
# as many steps as both together
WHOLE = ("train.num_epochs=10",)
ADAPTER = ("model.adapter.rank=4", "model.adapter.alpha=8", "train.dense_learning_rate=0.02")
TRAINED_ROWS = ("model.adapter.rows=trained",)
DATA = "Last.fm with friends and tags, validation"
COMMAND = "python -m benchmarks.pretraining --data FOLDER --seeds {seeds}"


def recipe(data: Path, work: Path, run: str, seed: int, *settings: str) -> Config:
    """The recipe with settings, in a run folder of its own."""
    return api.load_config(
        RECIPES / "lastfm-social.yaml",
        [
            f"data.path={data / 'lastfm-hin'}", f"data.prepared={work / 'prepared'}", f"run={work / f'{run}-{seed}'}",
            f"seed={seed}", f"train.metric={METRIC}", *RECIPE, *settings,
        ],
    )  # fmt: skip


def best(result: dict[str, Any]) -> float:
    return max(found[METRIC] for found in result["history"])


def steps_to(result: dict[str, Any], value: float) -> int | None:
    """The step of the first validation that is as good; None where none is."""
    return next((found["step"] for found in result["history"] if found[METRIC] >= value), None)


def measure(data: Path, work: Path, seed: int, settings: Sequence[str]) -> dict[str, float]:
    """All numbers of one seed."""
    base = recipe(data, work, "base", seed, *PRETRAIN, *settings)

    def train(run: str, *own: str) -> dict[str, Any]:
        return api.train(recipe(data, work, run, seed, *RATE, *own, *settings))

    before, begin = api.train(base), (f"train.init_from={base.run_folder}", *SHORT)
    begun, alone = train("begun", *begin), train("alone", *WHOLE)
    frozen = train("adapted-frozen", *begin, *ADAPTER)
    trained = train("adapted-trained", *begin, *ADAPTER, *TRAINED_ROWS)
    steps = [steps_to(result, best(alone)) for result in (alone, begun)]
    # one that never gets there has saved no step
    begun_steps = steps[1] or steps[0] or 0
    return {
        "base": best(before),
        "alone": best(alone),
        "begun": best(begun),
        "rows frozen": best(frozen),
        "rows trained": best(trained),
        "gain of begun": best(begun) / best(alone) - 1,
        "rows frozen, of begun": best(frozen) / best(begun),
        "rows trained, of begun": best(trained) / best(begun),
        "share of dense, rows frozen": frozen["trained"]["trained_dense"] / begun["trained"]["dense"],
        "share of dense, rows trained": trained["trained"]["trained_dense"] / begun["trained"]["dense"],
        "steps alone": float(steps[0] or 0),
        "steps begun": float(begun_steps),
        "steps begun and base": float(begun_steps + before["steps"]),
    }


def rows_of(found: Sequence[dict[str, float]]) -> list[Row]:
    """What benchmarks/results/quality.json keeps: means over seeds."""

    def mean(name: str) -> float:
        return statistics.fmean(one[name] for one in found)

    def row(line: str, metric: str, value: str, peer: str, peer_value: str, factor: float) -> Row:
        spread = statistics.stdev(one[value] for one in found) if len(found) > 1 else 0.0
        known, command = mean(peer_value), COMMAND.format(seeds=len(found))
        return Row(line, DATA, metric, mean(value), spread, peer, known, factor * known, command)

    return [
        row("pretraining", f"{METRIC}, pre-trained", "begun", "not pre-trained", "alone", 1.01),
        row(
            "pretraining",
            "steps to the best without, pre-trained",
            "steps begun",
            "not pre-trained",
            "steps alone",
            0.7,
        ),
        row("adapters", f"{METRIC}, adapters and frozen ID rows", "rows frozen", "whole fine-tuning", "begun", 0.98),
        row("adapters", f"{METRIC}, adapters and trained ID rows", "rows trained", "whole fine-tuning", "begun", 0.98),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/pretraining"), help="for prepared data and runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    api.prepare(recipe(options.data, options.work, "base", 0))
    found = []
    for seed in range(options.seeds):
        found.append(measure(options.data, options.work, seed, options.settings))
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in found[-1].items()))
    for name in found[0]:
        values = [one[name] for one in found]
        spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
        print(f"{name}: {statistics.fmean(values):.4g}{spread}")
    if options.save:
        save_rows(rows_of(found))


if __name__ == "__main__":
    main()
