"""`ColdNodes`: the items and users that training shall not meet, and how their interactions are held out.

A hash of the seed and the external ID orders the nodes, so the choice does not depend on the order of rows. The first
ones, or those of a file, are test; of the others the next half as many are valid, so that validation can choose what
is best for cold nodes. In the last training of `fit`, with `merge_valid`, the latter are as any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.edge_file import GONE, Columns, EdgeFile, EdgeWriter, degrees, with_split, write_edges
from dist_gat.data.engine import Engine
from dist_gat.data.split import SPLITS, TEST, TRAIN, VALID, hash_ids
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.data.vocabulary import Vocabulary, encode

NOTHING: Mapping[str, EdgeFile] = {}


@dataclass(frozen=True)
class ColdNodes:
    """items, users: uint8, by index of the vocabulary: VALID and TEST of cold nodes, TRAIN of the others; None where a
    recipe asks for none. pairs: the interactions of the cold users, by split: users as in the vocabulary.

    In a `Dataset` items are by dense index, and GONE are those that have no training interaction by chance.
    """

    items: np.ndarray | None
    users: np.ndarray | None
    warnings: list[str]
    pairs: Mapping[str, EdgeFile]

    @property
    def is_warm_user(self) -> np.ndarray:
        """bool, of the vocabulary, or [1] where nobody is cold."""
        return np.ones(1, bool) if self.users is None else self.users == TRAIN

    def of_kept(self, item_index: np.ndarray, train_degree: np.ndarray, pairs: Mapping[str, EdgeFile]) -> ColdNodes:
        """With items by dense index. item_index: int64, from the vocabulary to dense indices, -1 where left out.
        train_degree: int64, by dense index. pairs: items as in the vocabulary."""
        found = self
        if self.items is not None:
            kept = self.items[item_index >= 0]
            found = replace(found, items=np.where((train_degree == 0) & (kept == TRAIN), GONE, kept).astype(np.uint8))
        return replace(found, pairs={split: _with_items(edges, item_index) for split, edges in pairs.items()})


def _with_items(edges: EdgeFile, item_index: np.ndarray) -> EdgeFile:
    def dense() -> Iterator[Columns]:
        for chunk in edges.chunks(edges.count or 1):
            kept = item_index[chunk["target"]] >= 0
            own = {name: values[kept] for name, values in chunk.items()}
            yield own | {"target": item_index[own["target"]]}

    return write_edges(edges.folder.with_name(f"{edges.folder.name}-dense"), edges.types, dense())


def find_cold(
    engine: Engine, config: DataConfig, edges: EdgeFile, users: Vocabulary, items: Vocabulary, rows: int, seed: int
) -> ColdNodes:
    """Raises `DataError` for a file that can't be read or names no node of the interactions."""
    found: dict[str, np.ndarray | None] = {}
    warnings: list[str] = []
    for kind, vocabulary, end, given in (
        ("user", users, "source", config.split.cold_users), ("item", items, "target", config.split.cold_items),
    ):  # fmt: skip
        if not given:
            found[kind] = None
            continue
        is_there = degrees(edges, end, vocabulary.count, rows) > 0
        hashes = hash_ids(engine, vocabulary, f"{seed}/cold/{kind}/")
        order = np.argsort(hashes, kind="stable")
        order = order[is_there[order]]
        if isinstance(given, str):
            is_test, warning = _named(engine, Path(config.path) / given, kind, vocabulary, is_there)
            warnings += warning
        else:
            is_test = np.zeros(vocabulary.count, bool)
            is_test[order[: round(given * len(order))]] = True
        split = np.where(is_test, TEST, TRAIN).astype(np.uint8)
        if not config.split.merge_valid:
            rest = order[~is_test[order]]
            split[rest[: int(is_test.sum()) // 2]] = VALID
        found[kind] = split
    return ColdNodes(found["item"], found["user"], warnings, NOTHING)


def _named(
    engine: Engine, path: Path, kind: str, vocabulary: Vocabulary, is_there: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """bool [of the vocabulary]: the nodes of a file with an ID on each line, below a line `user_id` or `item_id` or
    none; and a warning of IDs that no interaction has."""
    setting = f"data.split.cold_{plural(kind)}"
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(
            f"{setting}: {path}: can't be read: {err}; expected a text file with an ID a line, or a share"
        ) from None
    names = [line.strip('"') for line in lines if line]
    names = names[1:] if names[:1] == [f"{kind}_id"] else names
    ids = pl.concat([some.cast(pl.String) for some in vocabulary.ids(engine)])
    at = encode(pl.Series(names, dtype=pl.String), ids)
    chosen = np.zeros(vocabulary.count, bool)
    chosen[at[at >= 0]] = True
    chosen &= is_there
    unknown = [name for name, place in zip(names, at.tolist(), strict=True) if place < 0]
    examples = ", ".join(map(shown, unknown[:NUM_EXAMPLES]))
    if not chosen.any():
        raise DataError(
            f"{setting}: {path}: none of its {len(names)} IDs is of {plural(kind)} with interactions"
            f"{f', for example {examples}' if unknown else ''}; write an ID a line, as in the interactions"
        )
    warnings = [f"{setting}: {len(unknown):,} IDs have no interaction, for example {examples}"] if unknown else []
    return chosen, warnings


def without_cold_users(
    edges: EdgeFile, cold: ColdNodes, rows: int
) -> tuple[EdgeFile, Mapping[str, EdgeFile]]:  # fmt: skip
    """The edges of the other users, and those of cold users by split."""
    of_user = cold.users
    if of_user is None:
        return edges, NOTHING
    types = {name: kind for name, kind in edges.types.items() if name != "split"}
    writers = {n: EdgeWriter(edges.folder.with_name(f"{edges.folder.name}-cold-{n}"), types) for n in (VALID, TEST)}

    def others() -> Iterator[Columns]:
        for chunk in edges.chunks(rows):
            split = of_user[chunk["source"]]
            for number, writer in writers.items():
                writer.append({name: chunk[name][split == number] for name in types})
            yield {name: values[split == TRAIN] for name, values in chunk.items()}

    kept = write_edges(edges.folder.with_name(f"{edges.folder.name}-warm-users"), edges.types, others())
    apart = {SPLITS[number]: writer.close() for number, writer in writers.items()}
    return kept, {split: found for split, found in apart.items() if found.count}


def with_cold_items(
    edges: EdgeFile, of_item: np.ndarray, rows: int, divided: Callable[[EdgeFile], EdgeFile] | None
) -> EdgeFile:
    """The edges with splits: those of cold items by these, the others as `divided` says; None: as they are split."""
    if divided is None:
        given = (
            np.where((of_item[c["target"]] != TRAIN) & (c["split"] != GONE), of_item[c["target"]], c["split"])
            for c in edges.chunks(rows, ["target", "split"])
        )
        return with_split(edges, given)

    def others() -> Iterator[Columns]:
        for chunk in edges.chunks(rows):
            warm = of_item[chunk["target"]] == TRAIN
            yield {name: values[warm] for name, values in chunk.items()}

    warm = divided(write_edges(edges.folder.with_name(f"{edges.folder.name}-warm-items"), edges.types, others()))

    def splits() -> Iterator[np.ndarray]:
        start = 0
        for chunk in edges.chunks(rows, ["target"]):
            split = of_item[chunk["target"]].copy()
            is_warm = split == TRAIN
            stop = start + int(is_warm.sum())
            if stop > start:
                split[is_warm] = warm.read(start, stop, ["split"])["split"]
            start = stop
            yield split

    return with_split(edges, splits())
