"""The data set that everything downstream sees: vocabularies, and the edges of each split and relation, on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.cold_nodes import ColdNodes, hold_out
from dist_gat.data.distinct_pairs import (
    Repeats,
    Shared,
    encode_pairs,
    example_pairs,
    refuse_repeated,
    refuse_shared,
)
from dist_gat.data.edge_file import GONE, Columns, EdgeFile, degrees, with_split
from dist_gat.data.engine import Engine
from dist_gat.data.filters import left_out
from dist_gat.data.nearest import nearest_edges
from dist_gat.data.node_columns import NodeColumns, read_node_columns
from dist_gat.data.nodes import Nodes, dense, further_nodes, reindexed, separated
from dist_gat.data.overlap import check_overlap
from dist_gat.data.relations import Edges, open_relation, relate
from dist_gat.data.side_table import read_titles
from dist_gat.data.source import open_source
from dist_gat.data.split import SPLITS, TRAIN, VALID, given_splits
from dist_gat.data.table import IDS, Table, read_table
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.data.vocabulary import IdColumn, Vocabulary, build_vocabulary, doubtful_ids

# the label that every table may have, and messages carry
WEIGHT = "weight"
BAD_ROWS = "bad rows"  # the reason in Dataset.dropped for rows that skip_bad_rows left out
ROW_BYTES = 120  # what an edge of a chunk takes while it is worked on
CHUNK_SHARE = 0.2
MOST_ROWS, LEAST_ROWS = 8 << 20, 1 << 12


@dataclass(frozen=True)
class Dataset:
    """Edges as indices, and the external ID of each index."""

    # by type, users and items first, sorted by ID. A user has a training row of some behaviour; an item may occur in
    # valid or test alone; other nodes have an edge.
    nodes: dict[str, Nodes]
    train: EdgeFile  # users and items as dense indices
    valid: EdgeFile
    test: EdgeFile
    relations: dict[str, Edges]  # more of them, by name: for training all of them
    titles: np.ndarray | None  # str objects by item index, None where unknown
    columns: dict[str, NodeColumns]  # by node type, of those that have any
    dropped: dict[str, int]  # reason -> rows left out, where there are any
    notes: dict[str, Any]  # what was recognised and decided, for the report
    warnings: list[str]
    cold: ColdNodes

    @property
    def users(self) -> Nodes:
        return self.nodes["user"]

    @property
    def items(self) -> Nodes:
        return self.nodes["item"]


def chunk_rows(memory_bytes: int) -> int:
    """How many edges to work on at once."""
    return int(min(max(memory_bytes * CHUNK_SHARE / ROW_BYTES, LEAST_ROWS), MOST_ROWS))


def load_dataset(
    engine: Engine, config: DataConfig, seed: int, tables: Mapping[str, Any] | None = None, rows: int | None = None
) -> Dataset:
    """Read, check, encode, split and index the interactions and their side tables.

    tables: in memory, by the names that the recipe has for files. rows: of a chunk; nothing else depends on it.

    The result doesn't depend on the order of rows, but where equal pairs of equal times come again. A valid or test
    row whose user has no training row can't be scored: in given files it is an error (dropped with
    `config.skip_bad_rows`), in our own splits it is dropped; what is dropped is counted. Raises `DataError`.
    """
    rows = rows or chunk_rows(engine.memory_bytes)
    dropped: dict[str, int] = {}
    main, more = _read_tables(engine, config, tables)
    every = [*main.values(), *more.values()]
    _count(dropped, BAD_ROWS, sum(table.num_bad for table in main.values()))
    _count(dropped, f"{BAD_ROWS} of relations", sum(table.num_bad for table in more.values()))
    _count(dropped, "rows of missing IDs", sum(table.num_missing for table in every))
    behaviours = {name: table for name, table in more.items() if config.relations[name].is_behaviour}
    ends = [[IdColumn(table, end) for table in [*main.values(), *behaviours.values()]] for end in IDS]
    users, items = (build_vocabulary(engine, *own) for own in zip(("user_id", "item_id"), ends, strict=True))
    warnings = [warning for table in every for warning in table.warnings]
    warnings += [*doubtful_ids(engine, "user", users, ends[0]), *doubtful_ids(engine, "item", items, ends[1])]

    is_given = config.split.method == "files"
    edges, repeats, shared = encode_pairs(
        engine, "interactions", list(main.values()), users, items, config.repeated, is_split=is_given
    )
    related = {
        name: encode_pairs(engine, f"relation-{name}", [table], users, items, config.repeated, is_split=False)
        for name, table in behaviours.items()
    }
    relation_edges = [found[0] for found in related.values()]
    if config.repeated == "error":
        refuse_repeated(engine, list(main.values()), repeats, users, items)
        for name, table in behaviours.items():
            refuse_repeated(engine, [table], related[name][1], users, items)
    notes = _notes(main, repeats, {name: found[1] for name, found in related.items()})

    if is_given:
        degree = degrees(edges, "source", users.count, rows)
        check_overlap(engine, dict(enumerate(main.values())), edges, relation_edges, "user", users, rows)
        edges = _as_given(
            engine, edges, list(main), list(main.values()), degree, rows, config, shared, users, items, dropped
        )
    edges, gone = left_out(edges, config, users.count, items.count, rows)
    dropped |= gone
    edges, cold, apart = hold_out(engine, config, edges, users, items, rows, seed)
    warnings += cold.warnings

    known = degrees(edges, "source", users.count, rows, TRAIN) > 0
    if not known.any():
        _refuse_no_training(config, list(main.values()))
    for file in relation_edges:
        known |= degrees(file, "source", users.count, rows) > 0
    known &= cold.is_warm_user
    edges = _without_unknown_users(engine, edges, known, main, config, users, rows, dropped)
    if is_given:
        of_splits = {SPLITS.index(name): table for name, table in main.items()}
        has_columns = "item" in config.node_columns
        warnings += check_overlap(engine, of_splits, edges, relation_edges, "item", items, rows, has_columns)
    if config.split.merge_valid:
        edges = with_split(edges, _merged(edges, rows))
    item_known = np.ones(items.count, bool)
    if gone:
        item_known = degrees(edges, "target", items.count, rows) > 0
        for file in relation_edges:
            item_known |= degrees(file, "target", items.count, rows) > 0
    nodes = {"user": Nodes(users, dense(known)), "item": Nodes(items, dense(item_known))}
    train, valid, test = separated(edges, nodes["user"], nodes["item"], rows)
    cold = cold.of_kept(nodes["item"].index, degrees(train, "target", nodes["item"].count, rows), apart)
    context = relate(
        engine, config, {name: more[name] for name in more if name not in behaviours},
        {"user": users, "item": items}, tables,
    )  # fmt: skip
    found = {name: Edges("user", "item", (), *related[name][:2]) for name in behaviours} | context.edges
    nodes |= further_nodes(context, nodes, rows)
    found = {name: reindexed(own, nodes, rows) for name, own in found.items()}
    for reason, count in context.dropped.items():
        _count(dropped, reason, count)
    notes["repeated"] |= _repeated({name: own.repeats for name, own in context.edges.items()})
    data = Dataset(nodes, train, valid, test, found, None, {}, dropped, notes, [*warnings, *context.warnings], cold)
    return _with_nearest(engine, _with_side_tables(engine, data, config, rows, tables), config)


def _read_tables(
    engine: Engine, config: DataConfig, tables: Mapping[str, Any] | None
) -> tuple[dict[str, Table], dict[str, Table]]:
    """Those of the interactions, by split where these are given, and those of relations."""
    main: dict[str, Table] = {}
    names = SPLITS if config.split.method == "files" else ("interactions",)
    for name in names:
        if (files := getattr(config, name)) is not None:
            source = open_source(files, config, f"data.{name}", tables=tables)
            main[name] = read_table(
                engine, f"rows-{name}", source, config, config.columns, min_weight=config.min_weight
            )
    for table in main.values():
        _refuse_other_columns(next(iter(main.values())), table)
    of_tables = {name: relation for name, relation in config.relations.items() if relation.nearest is None}
    more = {name: open_relation(engine, name, relation, config, tables) for name, relation in of_tables.items()}
    if config.split.method in ("temporal", "leave_last_out") and main["interactions"].unit is None:
        raise DataError(
            f"data.split.method={config.split.method} orders interactions by time, and data.interactions has no "
            "datetime or timestamp column; name it with data.columns.datetime=NAME, or set data.split.method=random"
        )
    return main, more


def _refuse_other_columns(first: Table, other: Table) -> None:
    """Raise `DataError` where two given splits have different columns."""
    if differing := sorted(first.beside_ids ^ other.beside_ids):
        name = differing[0]
        has, lacks = (first, other) if name in first.beside_ids else (other, first)
        raise DataError(
            f"{lacks.source.name}: no column for {name}, which {has.source.name} has; expected the same in every "
            f"split; add it, or leave it out of all with data.columns.{name}=null"
        )


def _notes(main: Mapping[str, Table], repeats: Repeats, related: Mapping[str, Repeats]) -> dict[str, Any]:
    units = {name: table.unit for name, table in main.items() if table.unit}
    return {"time_unit": units, "repeated": _repeated({"interacts": repeats, **related})}


def _repeated(several: Mapping[str, Repeats]) -> dict[str, Any]:
    return {name: {"rows": one.count, "rules": dict(one.rules)} for name, one in several.items() if one.count}


def _as_given(
    engine: Engine, edges: EdgeFile, names: list[str], tables: list[Table], degree: np.ndarray, rows: int,
    config: DataConfig, shared: Shared, users: Vocabulary, items: Vocabulary, dropped: dict[str, int],
) -> EdgeFile:  # fmt: skip
    """With the splits of the files that the edges came from; a pair of two splits is refused, or stays in one."""
    if "valid" not in names:  # the second file is that of test
        edges = with_split(edges, (2 * chunk["split"] for chunk in edges.chunks(rows, ["split"])))
        shared = shared.renamed({1: 2})
        names, tables = list(SPLITS), [tables[0], tables[1], tables[1]]
    is_part = config.split.valid_is_part_of_train
    if is_part:
        outside = [
            (int(user), int(item))
            for chunk in edges.whole_users(degree, rows)
            for user, item in _valid_alone(chunk)
        ]  # fmt: skip
        if outside:
            raise DataError(
                f"{tables[1].source.name}: {len(outside)} pairs are not in {tables[0].source.name}, for example "
                f"{example_pairs(engine, outside[:NUM_EXAMPLES], users, items)}; data.split.valid_is_part_of_train "
                "expects every valid pair there; correct the files or set it to false"
            )
        shared.counts.pop((0, 1), None)
    may_drop = config.skip_bad_rows or config.repeated not in ("auto", "error")
    if shared.counts and not may_drop:
        refuse_shared(engine, tables, names, shared, users, items)
    for (one, other), count in shared.counts.items():
        _count(dropped, f"{names[other]} pairs that are in {names[one]} too", count)
    if is_part or shared.counts:
        edges = with_split(edges, given_splits(edges, degree, rows, is_part))
    return edges


def _valid_alone(chunk: Columns) -> np.ndarray:
    """The pairs [n, 2] of valid whose training pair is missing."""
    user, item, split = chunk["source"], chunk["target"], chunk["split"]
    same = np.append(False, (user[1:] == user[:-1]) & (item[1:] == item[:-1]) & (split[:-1] == TRAIN))
    return np.stack([user, item], axis=1)[(split == VALID) & ~same]


def _refuse_no_training(config: DataConfig, tables: list[Table]) -> None:
    hint = "lower data.split.valid_ratio and test_ratio, or take another data.split.method"
    if config.split.method == "files":
        hint = "data.split.valid_is_part_of_train took every pair out of it"
    if config.min_user_interactions or config.min_item_interactions or config.max_user_interactions:
        hint = "data.min_user_interactions and its like left out the others"
    raise DataError(f"{tables[0].source.name}: no interaction is left for training; {hint}")


def _without_unknown_users(
    engine: Engine, edges: EdgeFile, known: np.ndarray, main: Mapping[str, Table], config: DataConfig,
    users: Vocabulary, rows: int, dropped: dict[str, int],
) -> EdgeFile:  # fmt: skip
    """Valid and test edges of users without a training row are refused in given files, else GONE and counted."""
    counts, cold = np.zeros(len(SPLITS), np.int64), {n: np.zeros(len(known), bool) for n in (1, 2)}
    for chunk in edges.chunks(rows, ["source", "split"]):
        gone = ~known[chunk["source"]] & (chunk["split"] < GONE)
        counts += np.bincount(chunk["split"][gone], minlength=len(SPLITS))
        for number, users_of in cold.items():
            users_of[chunk["source"][gone & (chunk["split"] == number)]] = True
    for split in np.flatnonzero(counts).tolist():
        if config.split.method == "files" and not config.skip_bad_rows and config.split.cold_items is None:
            some = np.flatnonzero(cold[split])
            examples = ", ".join(map(shown, users.at(engine, some[:NUM_EXAMPLES].tolist())))
            raise DataError(
                f"{main[SPLITS[split]].source.name}: {counts[split]} rows of {len(some)} users without a training row, "
                f"for example {examples}; expected users of the train file; correct the files, or drop and count "
                "such rows with data.skip_bad_rows=true (--skip-bad-rows)"
            )
        _count(dropped, f"{SPLITS[split]} rows of users without a training row", int(counts[split]))
    if not counts.any():
        return edges
    return with_split(
        edges, (np.where(known[c["source"]], c["split"], GONE) for c in edges.chunks(rows, ["source", "split"]))
    )


def _merged(edges: EdgeFile, rows: int) -> Iterator[np.ndarray]:
    for chunk in edges.chunks(rows, ["split"]):
        yield np.where(chunk["split"] == VALID, TRAIN, chunk["split"])


def _with_side_tables(
    engine: Engine, data: Dataset, config: DataConfig, rows: int, tables: Mapping[str, Any] | None
) -> Dataset:
    columns: dict[str, NodeColumns] = {}
    warnings = list(data.warnings)
    cold = data.cold
    for kind in config.node_columns:
        nodes, known = data.nodes[kind], _met_in_training(data, config, kind, rows)
        if kind == "user" and cold.pairs:
            # users who are no nodes come after those who are, and training knows none of them
            index = np.where(cold.is_measured, nodes.count + np.cumsum(cold.is_measured) - 1, nodes.index)
            nodes = replace(nodes, index=index)
        padded = np.concatenate([known, np.zeros(nodes.count - len(known), bool)])
        found = read_node_columns(engine, config, kind, nodes, padded, tables)
        _count(data.dropped, f"{BAD_ROWS} of {kind} columns", found.num_bad)
        if nodes.count > len(known):
            cold = replace(cold, columns=found.values[len(known) :])
        columns[kind] = replace(found, values=found.values[: len(known)])
        warnings += found.warnings
    titles = None
    if config.item_titles is not None:
        titles, num_bad, more = read_titles(
            engine, config, config.item_titles, "data.item_titles", data.items.vocabulary, data.items.index, tables
        )
        _count(data.dropped, f"{BAD_ROWS} of item titles", num_bad)
        warnings += more
    return replace(data, columns=columns, titles=titles, warnings=warnings, cold=cold)


def _with_nearest(engine: Engine, data: Dataset, config: DataConfig) -> Dataset:
    """With the relations that are made from columns."""
    made = {
        name: nearest_edges(engine, name, own.source, own.nearest, data.columns[own.source])
        for name, own in config.relations.items()
        if own.nearest is not None
    }
    return replace(data, relations=data.relations | made)


def _met_in_training(data: Dataset, config: DataConfig, kind: str, rows: int) -> np.ndarray:
    """bool [nodes]: of users and items whether a training pair has them; nodes of other types have an edge. All, where
    the recipe says so."""
    if kind not in ("user", "item") or config.known_nodes == "all":
        return np.ones(data.nodes[kind].count, bool)
    behaviours = {name for name, relation in config.relations.items() if relation.is_behaviour}
    pairs = [data.train, *(own.file for name, own in data.relations.items() if name in behaviours)]
    end, count = ("source" if kind == "user" else "target"), data.nodes[kind].count
    return np.any([degrees(file, end, count, rows) > 0 for file in pairs], axis=0)


def _count(dropped: dict[str, int], reason: str, number: int) -> None:
    if number:
        dropped[reason] = number
