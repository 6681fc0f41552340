"""`ColdNodes`: the items and users that training shall not meet, and how their interactions are held out.

A hash of the seed and the external ID orders the nodes, so the choice does not depend on the order of rows. The first
ones, or those of a file, are test; of the others the next half as many are valid, so that validation can choose what
is best for cold nodes. In the last training of `fit`, with `merge_valid`, the latter are as any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.edge_file import GONE, Columns, EdgeFile, EdgeWriter, degrees, with_split, write_edges
from dist_gat.data.engine import Engine
from dist_gat.data.split import SPLITS, TEST, TRAIN, VALID, hash_ids, split_edges, with_keys
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.data.vocabulary import Vocabulary, encode

NOTHING: Mapping[str, EdgeFile] = {}


@dataclass(frozen=True)
class ColdNodes:
    """items, users: uint8, by index of the vocabulary: VALID and TEST of cold nodes, TRAIN of the others; None where a
    recipe asks for none. pairs: the interactions of the cold users, by split: users as in the vocabulary. columns:
    float32, what else is known of the users of `is_measured`, in their order; None where the recipe has no columns.

    In a `Dataset` items are by dense index, and GONE are those that have no training interaction by chance.
    """

    items: np.ndarray | None
    users: np.ndarray | None
    warnings: list[str]
    pairs: Mapping[str, EdgeFile]
    columns: np.ndarray | None = None

    @property
    def is_measured(self) -> np.ndarray:
        """bool, of the vocabulary: the cold users of the splits of `pairs`."""
        assert self.users is not None, "there are cold users"
        return np.isin(self.users, [SPLITS.index(split) for split in self.pairs])

    @property
    def is_warm_user(self) -> np.ndarray:
        """bool, of the vocabulary, or [1] where nobody is cold."""
        return np.ones(1, bool) if self.users is None else self.users == TRAIN

    def merged(self) -> ColdNodes:
        """With those of validation as any others."""
        items, users = (None if x is None else np.where(x == VALID, TRAIN, x) for x in (self.items, self.users))
        return replace(self, items=items, users=users)

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


def hold_out(
    engine: Engine, config: DataConfig, edges: EdgeFile, users: Vocabulary, items: Vocabulary, rows: int, seed: int
) -> tuple[EdgeFile, ColdNodes, Mapping[str, EdgeFile]]:
    """The edges with their splits, the cold nodes, and the interactions of cold users, by split.

    edges: of given splits, or of none. rows: of a chunk. Raises what `find_cold` does.
    """
    is_given, merges = config.split.method == "files", config.split.merge_valid
    cold = find_cold(engine, config, edges, users, items, rows, seed)
    edges, apart = without_cold_users(edges, cold, rows, (TEST,) if merges else (VALID, TEST))

    def divided(edges: EdgeFile) -> EdgeFile:
        if config.split.method == "random" and (config.split.valid_ratio or config.split.test_ratio):
            hashes = hash_ids(engine, users, f"{seed}/user_id/"), hash_ids(engine, items, f"{seed}/item_id/")
            edges = with_keys(edges, hashes, rows)
        degree = degrees(edges, "source", users.count, rows)
        return with_split(edges, split_edges(edges, config.split, degree, rows))

    if cold.items is not None or cold.users is not None:
        edges = with_cold_splits(edges, cold, rows, None if is_given else divided)
    elif not is_given:
        edges = divided(edges)
    return edges, cold.merged() if merges else cold, apart


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
    edges: EdgeFile, cold: ColdNodes, rows: int, splits: Sequence[int] = (VALID, TEST)
) -> tuple[EdgeFile, Mapping[str, EdgeFile]]:  # fmt: skip
    """The edges of the other users, and those of the cold users of some splits, by split."""
    of_user = cold.users
    if of_user is None:
        return edges, NOTHING
    types = {name: kind for name, kind in edges.types.items() if name != "split"}
    writers = {n: EdgeWriter(edges.folder.with_name(f"{edges.folder.name}-cold-{n}"), types) for n in splits}

    def others() -> Iterator[Columns]:
        for chunk in edges.chunks(rows):
            split = of_user[chunk["source"]]
            for number, writer in writers.items():
                writer.append({name: chunk[name][split == number] for name in types})
            left = ~np.isin(split, splits)
            yield {name: values[left] for name, values in chunk.items()}

    kept = write_edges(edges.folder.with_name(f"{edges.folder.name}-warm-users"), edges.types, others())
    apart = {SPLITS[number]: writer.close() for number, writer in writers.items()}
    return kept, {split: found for split, found in apart.items() if found.count}


def with_cold_splits(
    edges: EdgeFile, cold: ColdNodes, rows: int, divided: Callable[[EdgeFile], EdgeFile] | None
) -> EdgeFile:
    """The edges with splits: those of cold items by these, of cold users who are left TRAIN; the others as `divided`
    says, which sees no more of them than of any set of edges; None: as they are split."""

    def known_splits(chunk: Columns) -> tuple[np.ndarray, np.ndarray]:
        """bool and uint8, of each edge: whether cold nodes say its split, and which it is."""
        split, is_cold = np.zeros(len(chunk["source"]), np.uint8), np.zeros(len(chunk["source"]), bool)
        if cold.items is not None:
            split = cold.items[chunk["target"]]
            is_cold = split != TRAIN
        if cold.users is not None:
            is_cold = is_cold | (cold.users[chunk["source"]] != TRAIN)
        return is_cold, split

    def given() -> Iterator[np.ndarray]:
        for chunk in edges.chunks(rows, ["source", "target", "split"]):
            is_cold, split = known_splits(chunk)
            yield np.where(is_cold & (chunk["split"] != GONE), split, chunk["split"])

    if divided is None:
        return with_split(edges, given())

    def others() -> Iterator[Columns]:
        for chunk in edges.chunks(rows):
            is_cold, _ = known_splits(chunk)
            yield {name: values[~is_cold] for name, values in chunk.items()}

    warm = divided(write_edges(edges.folder.with_name(f"{edges.folder.name}-warm"), edges.types, others()))

    def splits() -> Iterator[np.ndarray]:
        start = 0
        for chunk in edges.chunks(rows, ["source", "target"]):
            is_cold, split = known_splits(chunk)
            stop = start + int((~is_cold).sum())
            out = split.copy()
            out[~is_cold] = warm.read(start, stop, ["split"])["split"]
            start = stop
            yield out

    return with_split(edges, splits())
