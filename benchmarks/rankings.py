"""How well recipes rank that attend along several relations: `python -m benchmarks.rankings LINE --data FOLDER`.

FOLDER holds the public files (ml-100k/, lastfm-hin/, ciao-social/, tmall-behaviours/, gowalla/). For each seed, `fit`
of the recipe and of its variants: validation chooses the epoch and the blend, the last training has train and
validation pairs, the test pairs are looked at once. A seed draws the split too, where it is random. Prints a table;
with `--save` its rows go to benchmarks/results/quality.json. `--validation` stops before the test, for choosing
settings: further arguments KEY=VALUE change the recipe.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.quality import RECIPES, Metrics, Row, print_rows, quality_parser, save_rows, shown, spread_of
from dist_gat import api
from dist_gat.base.metric_counts import is_count
from dist_gat.graph.part import open_prepared

RECIPE, NO_BLEND = "recipe", ("blend.linear=false", "blend.spectral_rank=0")
ALONE = "model alone"
# of the held-out pairs whose items have few training pairs, how many are in the lists
RARE, MOST_PAIRS, LONG_LIST = "recall@200 of items with 10 training pairs or fewer", 10, 200


@dataclass(frozen=True)
class Bar:
    """What a metric of one of the models should reach: `times` the value of the peer, which is another of the models,
    or stands here with the value that its authors published."""

    metric: str
    peer: str
    times: float = 1.0
    published: float | None = None
    model: str = RECIPE


@dataclass(frozen=True)
class Variant:
    """settings: what it changes. write: tables of its own, from the public folder to another."""

    settings: tuple[str, ...] = ()
    write: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True)
class Line:
    """data: in words. recipe: in configs/quality. folder: of the public files. variants: models beside the recipe, by
    name."""

    data: str
    recipe: str
    folder: str
    bars: tuple[Bar, ...]
    variants: dict[str, Variant] = field(default_factory=dict)


def without(*relations: str) -> Variant:
    """Nobody attends along these in any of two layers."""
    return Variant(tuple(f"sampling.relations.{name}.fanouts=[0,0]" for name in relations))


def published(peer: str, recall: float, ndcg: float) -> tuple[Bar, Bar]:
    """Of the authors of a model, in the first 20."""
    return Bar("recall@20", peer, published=recall), Bar("ndcg@20", peer, published=ndcg)


def write_as_one_table(public: Path, folder: Path) -> None:
    """What was bought, collected and put into carts as one table of interactions."""
    tables = [pl.read_csv(public / f"{name}.csv", columns=["user_id", "item_id"]) for name in ("train", "collect_cart")]
    pl.concat(tables).write_csv(folder / "train.csv")
    for split in ("valid", "test"):
        shutil.copy(public / f"{split}.csv", folder / f"{split}.csv")


LINES = {
    "next": Line(
        "MovieLens-100K, leave-last-out", "ml-100k-next", "ml-100k",
        (
            Bar("hit_rate@20", "EASE with half-life", published=0.2545, model=ALONE),
            Bar("ndcg@20", "EASE with half-life", published=0.1089, model=ALONE),
            Bar("hit_rate@20", "EASE with half-life", 1.05, published=0.2545),
            Bar("ndcg@20", "EASE with half-life", 1.05, published=0.1089),
            Bar("hit_rate@20", "by degree", 1.15),
            Bar("ndcg@20", "by degree", 1.15),
        ),
        {ALONE: Variant(NO_BLEND), "by degree": Variant((*NO_BLEND, "model.scoring=degree", "model.terms=[]"))},
    ),
    "social": Line(
        "Last.fm, random 80/10/10", "lastfm-social", "lastfm-hin",
        (
            Bar("recall@10", "SEPT", 0.22 / 0.2127, published=0.2127),
            Bar("ndcg@10", "SEPT", 0.214 / 0.2057, published=0.2057),
            Bar("ndcg@10", "without friends"),
            Bar("ndcg@10", "without tags"),
            Bar("ndcg@10", "without both"),
        ),
        {
            "without friends": without("friends"), "without tags": without("tags"),
            "without both": without("friends", "tags"),
        },
    ),
    "trust": Line(
        "Ciao, given split", "ciao-trust", "ciao-social",
        (Bar("recall@20", "RecDiff", published=0.0712), Bar("recall@20", "without trust")),
        {"without trust": without("trust", "trusted")},
    ),
    "behaviours": Line(
        "Tmall purchases, given split, 4,000 users", "tmall-behaviours", "tmall-behaviours",
        (
            Bar("recall@20", "linear filter, merged", 1.15, published=0.1482),
            Bar("ndcg@20", "linear filter, merged", 1.15, published=0.0858),
            Bar("recall@20", "as one relation", 1.2),
            Bar("ndcg@20", "as one relation", 1.2),
        ),
        {"as one relation": Variant(("data.relations={}", "blend.relations={}"), write_as_one_table)},
    ),
    "knowledge": Line(
        "MovieLens-100K with .kg, random 70/10/20", "ml-100k-knowledge", "ml-100k",
        (Bar("ndcg@20", "without knowledge"), Bar(RARE, "without knowledge")),
        {"without knowledge": without("kg")},
    ),
    "cold": Line(
        "citeulike-t, a fifth of the items new", "citeulike-cold", "citeulike-t",
        (
            Bar("cold_among_cold/recall@20", "cosine of tags", 0.54 / 0.46, published=0.46),
            Bar("cold_among_cold/recall@20", "cosine of words", 0.38 / 0.30, published=0.30, model="words alone"),
            Bar("warm_among_warm/recall@20", "without columns"),
        ),
        {
            "words alone": Variant(
                (
                    "data.nodes.item.columns.tags=null", "data.nodes.item.columns.words.weights=tf_idf",
                    "train.learning_rate=0.005", "train.num_epochs=3",
                )
            ),
            "without columns": Variant(("data.nodes={}", 'model.inputs={"ids": ["item"]}', "train.metric=recall@20")),
        },
    ),
    "modalities": Line(
        "TikTok, given split", "tiktok", "tiktok",
        (
            *published("LightGCN", 0.0653, 0.0282),
            *published("LATTICE", 0.0843, 0.0367),
            *published("MMSSL", 0.0921, 0.0392),
            *published("DiffMM", 0.1129, 0.0456),
            Bar("recall@20", "without columns"),
            Bar("ndcg@20", "without columns"),
            Bar("ndcg@20", "without pictures"),
            Bar("ndcg@20", "without sound"),
        ),
        {
            "without columns": Variant(("data.nodes={}", "data.relations={}", "model.terms=[]")),
            "without pictures": Variant(
                ("data.nodes.item.columns.image=null", 'data.relations.similar.nearest.columns=["audio"]')
            ),
            "without sound": Variant(
                ("data.nodes.item.columns.audio=null", 'data.relations.similar.nearest.columns=["image"]')
            ),
        },
    ),
    "gowalla": Line(
        "Gowalla, given split", "../gowalla", "gowalla",
        # not behind by more than the deviation over the seeds
        (
            Bar("recall@20", "by degree", (0.1967 - 0.0011) / 0.1967, published=0.1967),
            Bar("ndcg@20", "by degree", (0.1623 - 0.0013) / 0.1623, published=0.1623),
        ),
    ),
}  # fmt: skip


def measure(
    line: Line, name: str, variant: Variant, overrides: Sequence[str], public: Path, work: Path, seed: int,
    on_test: bool,
) -> Metrics:  # fmt: skip
    """The metrics of test, or without `on_test` those of validation."""
    place = work / f"{name.replace(' ', '-')}-{seed}"
    tables = public
    if variant.write is not None:
        tables = place / "tables"
        tables.mkdir(parents=True, exist_ok=True)
        variant.write(public, tables)
    places = [f"data.path={tables}", f"data.prepared={place / 'prepared'}", f"run={place / 'run'}"]
    config = api.load_config(
        RECIPES / f"{line.recipe}.yaml", [*overrides, *variant.settings, *places, f"seed={seed}"]
    )  # fmt: skip
    if on_test:
        done = api.fit(config)
        metrics: dict[str, Any] = done.get("metrics", {})
    else:
        api.prepare(config)
        done = api.train(config)
        metrics = {**done["valid"], f"{config.train.metric} with the blend": done["blended"]}
    if any(bar.metric == RARE for bar in line.bars) and not done["stopped"]:
        run = Path(done["run"])
        split, folder = ("test", run / "prepared") if on_test else ("valid", Path(config.data.prepared))
        metrics[RARE] = recall_of_rare_items(run, folder, split)
    if done["stopped"]:
        sys.exit(f"{name}, seed {seed}: stopped; the same command with the same --work goes on")
    metrics = {key: value for key, value in metrics.items() if isinstance(value, float) and not is_count(key)}
    print(f"{name}, seed {seed}: {shown(metrics)}", flush=True)
    return metrics


def recall_of_rare_items(run: Path, folder: Path, split: str) -> float:
    """Of the pairs of a split whose items have few training pairs, prepared in `folder`."""
    prepared = open_prepared(str(folder))
    relation = prepared.schema.relations[0]
    users, items = (prepared.ids(kind).select("node_id", "external_id") for kind in (relation.source, relation.target))

    def pairs(split: str) -> pl.DataFrame:
        found = np.concatenate([part.pairs(relation, split) for part in prepared.parts])
        table = pl.DataFrame({"user": found[:, 0], "item": found[:, 1]})
        table = table.join(users.rename({"external_id": "user_id"}), left_on="user", right_on="node_id")
        return table.join(items.rename({"external_id": "item_id"}), left_on="item", right_on="node_id")

    train = pairs("train")
    often = train.group_by("item_id").len().filter(pl.col("len") > MOST_PAIRS)
    rare = pairs(split).join(often, on="item_id", how="anti")
    asked = rare["user_id"].unique(maintain_order=True)
    met = train.join(asked.to_frame(), on="user_id").group_by("user_id").len()["len"].to_numpy()
    # the model would leave out validation pairs too, so nothing is left out by it
    lists = api.open(run).recommend(asked.to_list(), LONG_LIST + int(met.max()), filter_seen=False)
    lists = lists.join(train, on=["user_id", "item_id"], how="anti", maintain_order="left")
    lists = lists.group_by("user_id", maintain_order=True).head(LONG_LIST)
    return len(rare.join(lists, on=["user_id", "item_id"])) / len(rare)


def rows_of(key: str, line: Line, found: dict[str, list[Metrics]]) -> list[Row]:
    rows = []
    for bar in line.bars:
        if bar.model not in found or (bar.published is None and bar.peer not in found):
            continue
        values = [metrics[bar.metric] for metrics in found[bar.model]]
        spread = spread_of(values)
        peer = bar.published
        if peer is None:
            peer = statistics.mean(metrics[bar.metric] for metrics in found[bar.peer])
        metric = bar.metric if bar.model == RECIPE else f"{bar.metric}, {bar.model}"
        value, command = statistics.mean(values), f"python -m benchmarks.rankings {key} --data FOLDER"
        rows.append(Row(key, line.data, metric, value, spread, bar.peer, peer, bar.times * peer, command))
    return rows


def main() -> None:
    parser = quality_parser(__doc__, "rankings", LINES)
    parser.add_argument("--models", nargs="*", help="of the line, for a part of the table")
    arguments = parser.parse_args()
    key, line, on_test = arguments.line, LINES[arguments.line], not arguments.validation
    models = {RECIPE: Variant(), **line.variants}
    chosen = arguments.models or list(models)
    public, work = arguments.data / line.folder, arguments.work / key
    found = {
        name: [
            measure(line, name, models[name], arguments.overrides, public, work, seed, on_test)
            for seed in arguments.seeds
        ]
        for name in chosen
    }  # fmt: skip
    if on_test:
        rows = rows_of(key, line, found)
        print_rows(rows)
        if arguments.save:
            save_rows(rows)


if __name__ == "__main__":
    main()
