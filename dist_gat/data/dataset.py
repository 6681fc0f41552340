"""The data set that everything downstream sees: vocabularies, and each split as index arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.pairs import order_of_pairs, sort_pairs
from dist_gat.config.sections import DataConfig
from dist_gat.data.bad_rows import NUM_EXAMPLES, shown
from dist_gat.data.given_split import read_given_splits, split_files
from dist_gat.data.id_types import with_one_type
from dist_gat.data.relations import read_relations, relation_files
from dist_gat.data.side_table import read_features, read_titles
from dist_gat.data.split import SPLITS, split_interactions
from dist_gat.data.table import IDS, read_table
from dist_gat.data.vocabulary import build_vocabulary, encode

# the label that every table may have, and messages carry
WEIGHT = "weight"
RELATION = "relation "
BAD_ROWS = "bad rows"  # the reason in Dataset.dropped for rows that skip_bad_rows left out


def load_dataset(config: DataConfig, seed: int) -> Dataset:
    """Read, check, split and index the interactions and their side tables.

    The result doesn't depend on the order of rows. A valid or test row whose user has no training row can't be
    scored: in given files it is an error (dropped with `config.skip_bad_rows`), in our own splits it is dropped;
    what is dropped is counted. Raises `DataError`.
    """
    tables, dropped = _read_splits(config, seed)
    more, bad = read_relations(config)
    _count(dropped, f"{BAD_ROWS} of relations", bad)
    tables, more = _with_one_type(tables, more, config)
    items = build_vocabulary(table["item_id"] for table in [*tables.values(), *more.values()])
    known = pl.concat([table.select("user_id") for table in (tables["train"], *more.values())])
    tables = _drop_cold_users(tables, known, config, dropped)
    if config.split.merge_valid:
        tables |= {"train": pl.concat([tables["train"], tables["valid"]]), "valid": tables["valid"].clear()}
    users = build_vocabulary([tables["train"]["user_id"], *(table["user_id"] for table in more.values())])

    features: dict[str, np.ndarray] = {}
    for node_type, feature, vocabulary in (
        ("user", config.user_features, users),
        ("item", config.item_features, items),
    ):
        if feature is not None:
            features[node_type], bad = read_features(config, feature, f"data.{node_type}_features", vocabulary)
            _count(dropped, f"{BAD_ROWS} of {node_type} features", bad)
    titles = None
    if config.item_titles is not None:
        titles, bad = read_titles(config, config.item_titles, "data.item_titles", items)
        _count(dropped, f"{BAD_ROWS} of item titles", bad)

    train, valid, test = (_encode_edges(tables[split], users, items) for split in SPLITS)
    relations = {name: _encode_edges(table, users, items) for name, table in more.items()}
    return Dataset(users, items, train, valid, test, relations, titles, features, dropped)


@dataclass(frozen=True)
class Edges:
    """The interactions of one split, sorted by (user, item)."""

    user: np.ndarray  # int64 [E], index into Dataset.users
    item: np.ndarray  # int64 [E], index into Dataset.items
    time: np.ndarray | None = None  # int64 [E], microseconds since the epoch
    labels: dict[str, np.ndarray] = field(default_factory=dict)  # float32 [E] by name; one may be the weight

    @property
    def weight(self) -> np.ndarray | None:
        return self.labels.get(WEIGHT)


@dataclass(frozen=True)
class Dataset:
    """Interactions as indices, with the external ID of each index."""

    users: pl.Series  # external IDs by user index, sorted; each has a training row of some relation
    items: pl.Series  # external IDs by item index, sorted; an item may occur in valid or test alone
    train: Edges
    valid: Edges
    test: Edges
    relations: dict[str, Edges]  # more behaviours, by name: training pairs all of them
    titles: pl.Series | None  # String by item index, null where unknown
    features: dict[str, np.ndarray]  # "user" or "item" -> float32 [N, columns], rows by index
    dropped: dict[str, int]  # reason -> rows left out, where there are any


def _read_splits(config: DataConfig, seed: int) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    dropped: dict[str, int] = {}
    if config.split.method == "files":
        tables, bad = read_given_splits(config)
        hint = "data.split.valid_is_part_of_train took every pair out of it"
    else:
        assert config.interactions is not None, "DataConfig checks this"
        table, bad = read_table(Path(config.path, config.interactions), config)
        tables = split_interactions(table, config.split, seed)
        hint = "lower data.split.valid_ratio and test_ratio, or take another data.split.method"
    _count(dropped, BAD_ROWS, bad)
    if tables["train"].is_empty():
        file = Path(config.path, config.train or config.interactions or "")
        raise DataError(f"{file}: no interaction is left for training; {hint}")
    return tables, dropped


def _with_one_type(
    tables: dict[str, pl.DataFrame], more: dict[str, pl.DataFrame], config: DataConfig
) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """Splits and relations, whose IDs may come from files that are typed by their own values."""
    if not more:
        return tables, more
    whole = Path(config.path, config.interactions or "")
    files = {split: split_files(config).get(split, whole) for split in tables}
    # apart, since a relation may have the name of a split
    apart = {f"{RELATION}{name}": name for name in more}
    files |= {key: relation_files(config)[name] for key, name in apart.items()}
    typed = with_one_type({**tables, **{key: more[name] for key, name in apart.items()}}, files, config)
    return {split: typed[split] for split in tables}, {name: typed[key] for key, name in apart.items()}


def _drop_cold_users(
    tables: dict[str, pl.DataFrame], known: pl.DataFrame, config: DataConfig, dropped: dict[str, int]
) -> dict[str, pl.DataFrame]:
    """The tables without valid and test rows of users that have no training row. known: who has, as `user_id`."""
    warm: dict[str, pl.DataFrame] = {}
    for split, table in tables.items():
        if split == "train" or table.is_empty():
            warm[split] = table
            continue
        warm[split] = table.join(known, on="user_id", how="semi")
        num_cold = len(table) - len(warm[split])
        if num_cold and config.split.method == "files" and not config.skip_bad_rows:
            cold = table.join(known, on="user_id", how="anti")["user_id"].unique().sort()
            examples = ", ".join(map(shown, cold.head(NUM_EXAMPLES)))
            raise DataError(
                f"{split_files(config)[split]}: {num_cold} rows of {len(cold)} users without a training row, for "
                f"example {examples}; expected users of the train file; correct the files, or drop and count such rows "
                "with data.skip_bad_rows=true (--skip-bad-rows)"
            )
        _count(dropped, f"{split} rows of users without a training row", num_cold)
    return warm


def _encode_edges(table: pl.DataFrame, users: pl.Series, items: pl.Series) -> Edges:
    user, item = encode(table["user_id"], users), encode(table["item_id"], items)
    names = [name for name in table.columns if name not in IDS]
    if not names:
        return Edges(*sort_pairs(user, item))
    order = order_of_pairs(user, item)  # pairs are distinct
    time = table["datetime"].to_numpy()[order] if "datetime" in names else None
    labels = {name: table[name].cast(pl.Float32).to_numpy()[order] for name in names if name != "datetime"}
    return Edges(user[order], item[order], time, labels)


def _count(dropped: dict[str, int], reason: str, number: int) -> None:
    if number:
        dropped[reason] = number
