"""From the rows of tables to distinct pairs of users and items, sorted by both: `encode_pairs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import AUTO
from dist_gat.data.bad_rows import BadRows, refuse_bad_rows
from dist_gat.data.edge_file import Columns, EdgeFile, joined, write_edges
from dist_gat.data.engine import Engine, named
from dist_gat.data.guess_columns import COUNTS, words_of
from dist_gat.data.table import IDS, Table
from dist_gat.data.text_table import NUM_EXAMPLES, ROW, shown
from dist_gat.data.vocabulary import Vocabulary

APART = {"category": "uint16", "split": "uint8"}
KEYS = ("source", "target", *APART)
REPEATED_REMEDY = "remove them, or say what they mean with data.repeated: first, last, sum, max or count"


@dataclass
class Repeats:
    """Rows whose pair an earlier row of the same table has."""

    rules: dict[str, str]  # by label, and of `time` where there is one
    count: int = 0
    # number of the table among the splits, row, user, item: of the smallest rows
    first: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, other: Repeats) -> None:
        self.count += other.count
        self.first = sorted([*self.first, *other.first])[:NUM_EXAMPLES]


@dataclass
class Shared:
    """Pairs of several given splits, by the numbers of two: their count, and the first."""

    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    first: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)

    def renamed(self, numbers: Mapping[int, int]) -> Shared:
        """With other numbers of splits."""
        keys = {(one, other): (numbers.get(one, one), numbers.get(other, other)) for one, other in self.counts}
        return Shared(
            {keys[key]: count for key, count in self.counts.items()},
            {keys[key]: some for key, some in self.first.items()},
        )

    def add(self, other: Shared) -> None:
        for key, count in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count
            self.first[key] = [*self.first.get(key, []), *other.first[key]][:NUM_EXAMPLES]

    def note(self, one: int, other: int, users: np.ndarray, items: np.ndarray) -> None:
        if len(users):
            self.counts[one, other] = self.counts.get((one, other), 0) + len(users)
            some = self.first.setdefault((one, other), [])
            some += list(zip(users[:NUM_EXAMPLES].tolist(), items[:NUM_EXAMPLES].tolist(), strict=True))
            del some[NUM_EXAMPLES:]


def rules_of(labels: Mapping[str, str], has_time: bool, repeated: str) -> dict[str, str]:
    """What becomes of each label, and of the time, of pairs that come again. labels: name -> column of the file."""
    keeps_first = repeated in ("error", "first") or (repeated == AUTO and not labels)
    time = {"time": "first" if keeps_first else "last"} if has_time else {}
    if repeated == "error":
        return {**dict.fromkeys(labels, "first"), **time}
    if repeated == "count":
        return {**dict.fromkeys(labels, "last"), "weight": "count", **time}
    if repeated != AUTO:
        return {**dict.fromkeys(labels, repeated), **time}
    counts = {name: bool({*words_of(name), *words_of(column)} & COUNTS) for name, column in labels.items()}
    return {**{name: "sum" if is_count else "last" for name, is_count in counts.items()}, **time}


def encode_pairs(
    engine: Engine,
    key: str,
    tables: Sequence[Table],
    users: Vocabulary,
    items: Vocabulary,
    repeated: str,
    is_split: bool,
) -> tuple[EdgeFile, Repeats, Shared]:
    """The distinct pairs of tables that have the same labels, with `split` the number of the table if `is_split`.

    Pairs of several splits stay one in each.
    """
    (first, *_) = tables
    read = []
    for number, table in enumerate(tables):
        u, i = (ids.key(end, table.id_types[end]) for ids, end in zip((users, items), IDS, strict=True))
        given = "".join(f", r.{named(label)}::double as {named(label)}" for label in first.labels)
        given += ", r.time" if first.unit is not None else ""
        given += f", {number}::utinyint as split" if is_split else ""
        read.append(
            f"select u.n as source, i.n as target, r.{ROW}{given} from {table.rows} r "
            f"join {users.numbers()} u on u.key = {u} join {items.numbers()} i on i.key = {i}"
        )
    rows = Rows(" union all ".join(read), first.labels, first.unit is not None, ("split",) if is_split else ())
    return distinct_pairs(engine, key, rows, users.count, repeated, first.source.name)


@dataclass(frozen=True)
class Rows:
    """sql: for `source` and `target`, indices, `row`, labels as double, `time`, and what tells equal pairs apart."""

    sql: str
    labels: Mapping[str, str]  # name -> column of the file
    has_time: bool
    apart: tuple[str, ...]  # of `category` and `split`


def distinct_pairs(
    engine: Engine, key: str, rows: Rows, num_sources: int, repeated: str, name: str
) -> tuple[EdgeFile, Repeats, Shared]:
    """One of each pair, sorted. key: names the file. name: of the table, for the progress."""
    rules = rules_of(rows.labels, rows.has_time, repeated)
    names = list(dict.fromkeys([*rows.labels, *(["weight"] if repeated == "count" else [])]))
    ordered = ", ".join(
        map(named, ["source", "target", *rows.apart, *(["time"] if rows.has_time else []), ROW])
    )  # fmt: skip
    folder = engine.work / f"edges-{key}"
    known = engine.recall(f"{folder.name}/done")
    if known is not None:
        return EdgeFile(folder, known["types"], known["count"]), Repeats(**known["repeats"]), Shared()
    repeats, shared = Repeats(rules), Shared()
    types = {"source": "uint32", "target": "uint32"}
    types |= ({"time": "int64"} if rows.has_time else {}) | dict.fromkeys(names, "float32")
    types |= {name: APART[name] for name in rows.apart}
    if engine.tasks is None:
        sql = f"select * from ({rows.sql}) order by {ordered}"
        batches = engine.batches(sql, what=f"sorting pairs of {name}")
        edges = write_edges(folder, types, folded(batches, names, repeats, shared))
    else:
        engine.progress(f"sorting pairs of {name}, {engine.tasks.num_tasks} ranges of users at a time")
        share, bounds = engine.memory_bytes // engine.tasks.num_tasks, ranges(num_sources, engine.tasks.num_tasks)
        pieces = engine.tasks(
            sort_elsewhere, [(engine.work, share, key, first, after, rows.sql, ordered, types, names, rules)
                             for first, after in bounds],
        )  # fmt: skip
        edges = joined(folder, [piece[0] for piece in pieces])
        for _, more, common in pieces:
            repeats.add(more)
            shared.add(common)
    if "split" not in rows.apart:  # given splits are changed in place
        engine.remember(f"{folder.name}/done", {"types": edges.types, "count": edges.count, "repeats": asdict(repeats)})
    return edges, repeats, shared


def ranges(count: int, num_ranges: int) -> list[tuple[int, int]]:
    """Cuts 0 to count - 1 into ranges, each as its first number and the one after its last."""
    cuts = [count * number // num_ranges for number in range(num_ranges + 1)]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def sort_elsewhere(
    work: Path, memory_bytes: int, key: str, first_user: int, after: int, every: str, ordered: str,
    types: Mapping[str, str], names: Sequence[str], rules: dict[str, str],
) -> tuple[EdgeFile, Repeats, Shared]:  # fmt: skip
    """As a task, the edges of a range of users."""
    repeats, shared = Repeats(rules), Shared()
    with Engine(work, memory_bytes, threads=1) as engine:
        own = f"where {named('source')} >= {first_user} and {named('source')} < {after}"
        batches = engine.batches(f"select * from ({every}) {own} order by {ordered}")
        edges = write_edges(work / f"edges-{key}-{first_user}", types, folded(batches, names, repeats, shared))
    return edges, repeats, shared


def folded(batches: Iterator[Columns], labels: Sequence[str], repeats: Repeats, shared: Shared) -> Iterator[Columns]:
    """Sorted rows with one of each pair and split; what is left out is noted."""
    held: Columns = {}
    for batch in batches:
        rows = {name: np.concatenate([held[name], values]) for name, values in batch.items()} if held else batch
        user, item = rows["source"], rows["target"]
        # the rows of the last pair may go on in the next batch
        is_last = (user == user[-1]) & (item == item[-1])
        cut = int(np.argmax(is_last))
        held = {name: values[cut:] for name, values in rows.items()}
        if cut:
            yield _folded({name: values[:cut] for name, values in rows.items()}, labels, repeats, shared)
    if held:
        yield _folded(held, labels, repeats, shared)


def _folded(rows: Columns, labels: Sequence[str], repeats: Repeats, shared: Shared) -> Columns:
    keys = [rows[name] for name in KEYS if name in rows]
    is_new = np.ones(len(rows["source"]), bool)
    is_new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.flatnonzero(is_new)
    num_repeated = len(is_new) - len(starts)
    if num_repeated:
        repeats.count += num_repeated
        again = np.flatnonzero(~is_new)
        split = rows.get("split", np.zeros(len(is_new), np.uint8))
        again = again[np.lexsort([rows[ROW][again], split[again]])[:NUM_EXAMPLES]]
        noted = zip(*(values[again].tolist() for values in (split, rows[ROW], *keys[:2])), strict=True)
        repeats.first = sorted([*repeats.first, *noted])[:NUM_EXAMPLES]
    ends = np.append(starts[1:], len(is_new))
    chosen: Columns = {name: rows[name][starts] for name in KEYS if name in rows}
    for name in [*labels, *(["time"] if "time" in rows else [])]:
        rule = repeats.rules[name]
        if rule == "count":
            chosen[name] = (ends - starts).astype(np.float64)
        elif rule == "first" or not num_repeated:
            chosen[name] = rows[name][starts]
        elif rule == "last":
            chosen[name] = rows[name][ends - 1]
        else:
            chosen[name] = (np.add if rule == "sum" else np.maximum).reduceat(rows[name], starts)
    if "split" in chosen:
        user, item, split = chosen["source"], chosen["target"], chosen["split"]
        for gap in (1, 2):  # a pair has at most three rows, one a split
            at = np.flatnonzero((user[gap:] == user[:-gap]) & (item[gap:] == item[:-gap]))
            for one, other in ((0, 1), (0, 2), (1, 2)):
                both = at[(split[at] == one) & (split[at + gap] == other)]
                shared.note(one, other, user[both], item[both])
    return chosen


def refuse_repeated(
    engine: Engine, tables: Sequence[Table], repeats: Repeats, users: Vocabulary, items: Vocabulary
) -> None:
    """Raise `DataError` where a pair comes again in one of the tables."""
    if not repeats.count:
        return
    number = repeats.first[0][0]
    _, rows, user, item = zip(*(found for found in repeats.first if found[0] == number), strict=True)
    pairs = zip(users.at(engine, user), items.at(engine, item), strict=True)
    examples = [(row, f"user {one!r}, item {other!r}") for row, (one, other) in zip(rows, pairs, strict=True)]
    fault = BadRows("pair of user and item again", "each pair once", repeats.count, examples)
    refuse_bad_rows(tables[number].source, repeats.count, [fault], REPEATED_REMEDY)


def example_pairs(engine: Engine, pairs: Sequence[tuple[int, int]], users: Vocabulary, items: Vocabulary) -> str:
    """For messages: (user 1, item 2), ..."""
    one, other = zip(*pairs, strict=True)
    known = zip(users.at(engine, one), items.at(engine, other), strict=True)
    return ", ".join(f"(user {shown(user)}, item {shown(item)})" for user, item in known)


def refuse_shared(
    engine: Engine, tables: Sequence[Table], names: Sequence[str], shared: Shared, users: Vocabulary, items: Vocabulary,
) -> None:  # fmt: skip
    """Raise `DataError` where a pair is in two splits. names: of the tables' splits."""
    for (one, other), count in sorted(shared.counts.items()):
        both, part = (names[one], names[other]), ""
        if both == ("train", "valid"):
            part = "; if valid was copied from train, set data.split.valid_is_part_of_train=true"
        raise DataError(
            f"{tables[other].source.name}: {count} pairs are also in {tables[one].source.name}, for example "
            f"{example_pairs(engine, shared.first[one, other], users, items)}; expected each pair in one split, else "
            f"evaluation leaks; remove them from one file, or leave them out of the later split with "
            f"data.repeated=first{part}"
        )
