"""`check_overlap`: whether given splits speak of the same users and items as training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.data.edge_file import EdgeFile, degrees
from dist_gat.data.engine import Engine, parquet
from dist_gat.data.table import Table
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.data.vocabulary import Vocabulary, same_id

ENDS = {"user": "source", "item": "target"}
COMPARED = 1000  # IDs that are compared with those of training
FEW = 10  # so few IDs may all be new; of more it is no chance


def check_overlap(
    engine: Engine, tables: Mapping[int, Table], edges: EdgeFile, related: Sequence[EdgeFile], kind: str,
    ids: Vocabulary, rows: int, may_be_new: bool = False,
) -> list[str]:  # fmt: skip
    """Warnings of items of a split that training lacks. Raises `DataError` where it lacks all of more than a few,
    or all and has them in another writing.

    tables: by their number in `split` of the edges; 0 is training. kind: user or item, whose vocabulary is `ids`.
    may_be_new: all of them, because columns tell of them.
    """
    end = ENDS[kind]
    trained, warnings = degrees(edges, end, ids.count, rows, 0) > 0, []
    for file in related:
        trained |= degrees(file, end, ids.count, rows) > 0
    for number in sorted(set(tables) - {0}):
        own = degrees(edges, end, ids.count, rows, number) > 0
        absent, count = np.flatnonzero(own & ~trained), int(own.sum())
        if not len(absent):
            continue
        examples = ", ".join(map(shown, ids.at(engine, absent[:NUM_EXAMPLES].tolist())))
        name, where = tables[number].source.name, tables[0].source.name
        likely = ""
        if len(absent) == count:
            likely = _written_otherwise(engine, ids, absent[:COMPARED], np.flatnonzero(trained))
        if likely or (len(absent) == count and count > FEW and not may_be_new):
            raise DataError(
                f"{name}: none of its {count:,} {plural(kind)} is in {where}, for example {examples}{likely}; expected "
                f"{plural(kind)} of training, else there is nothing to measure; write the IDs in one way, or name the "
                f"right column with data.columns.{kind}_id"
            )
        if kind == "item":  # users without training have a rule of their own
            warnings.append(
                f"{len(absent):,} of {count:,} items of {name} are not in {where}, for example {examples}: "
                "recommending them is chance, unless columns tell of them (data.nodes)"
            )
    return warnings


def _written_otherwise(engine: Engine, ids: Vocabulary, absent: np.ndarray, trained: np.ndarray) -> str:
    """For the message: pairs of an ID that training lacks and one that it has, which may be the same."""
    if ids.key_type != "VARCHAR":
        return ""
    numbers = ", ".join(map(str, absent.tolist()))
    found = engine.frame(
        f"select a.key as one, t.key as other, t.file_row_number as n from {parquet(ids.path)} a "
        f"join {parquet(ids.path)} t on {same_id('a.key')} = {same_id('t.key')} and a.key <> t.key "
        f"where a.file_row_number in ({numbers}) order by a.file_row_number"
    )
    rows = found.filter(np.isin(found["n"].to_numpy(), trained)).head(NUM_EXAMPLES)
    pairs = [f"{shown(one)} may be {shown(other)} there" for one, other, _ in rows.iter_rows()]
    return f" ({', '.join(pairs)})" if pairs else ""
