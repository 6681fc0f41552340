"""`recommend_file`: recommendations of many users as a file, chunk by chunk in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pa_parquet

from dist_gat.base.errors import ConfigError, DataError, DistGatError, StorageError, first_line
from dist_gat.base.storage import atomic_file
from dist_gat.data.parquet import read_parquet
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.serve.new_items import NewItemRows
from dist_gat.serve.pairs_file import FORMATS, SEPARATORS, format_of, unreadable
from dist_gat.serve.ranker import Ranker, open_ranker, positive
from dist_gat.serve.saved_model import SavedModel

COLUMN = "user_id"
WRITTEN = [COLUMN, "item_id", "score", "rank"]
SAY_EVERY_S = 5.0


def recommend_file(
    model: SavedModel, users: Path | None, output: Path, k: int,
    progress: Callable[[str], None] = lambda message: None, is_stopped: Callable[[], bool] = lambda: False,
    new_items: NewItemRows | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the K best new items of each user to a table with the columns user_id, item_id, score, rank.

    users: a file of IDs, see `read_users`, whose order is kept; None: all, in the order of parts. Each user's rows are
    those of `OpenedModel.recommend`. The file gets its name when it is whole. Returns `output`, `users`, `rows`,
    `met_everything`, the number of users who have no new item, and `seconds`. Raises `DataError` for an unknown user,
    `ConfigError` where the output's name tells no format, `StorageError` where it can't be written,
    `KeyboardInterrupt` where `is_stopped` says so.
    """
    started = said = time.perf_counter()
    ranker = open_ranker(model)
    if new_items is not None:
        ranker = ranker.beside(new_items)
    nodes = np.sort(ranker.users.nodes) if users is None else find_users(users, ranker)
    done = rows = without = 0
    try:
        with write_table(output, ranker.empty().select(WRITTEN)) as write:
            for table in ranker.recommend(nodes, positive(k)):
                if is_stopped():
                    raise KeyboardInterrupt
                write(table.select(WRITTEN))
                asked = min(ranker.chunk, len(nodes) - done)
                done, rows = done + asked, rows + len(table)
                without += asked - int((table["rank"] == 1).sum())
                now = time.perf_counter()
                if now - said > SAY_EVERY_S:
                    said, speed = now, done / (now - started)
                    left = (len(nodes) - done) / speed
                    progress(f"{done:,} of {len(nodes):,} users; {speed:,.0f} users/s, some {left:,.0f} s left")
    except DistGatError:
        raise
    except OSError as err:
        raise StorageError(f"{output}: can't be written: {err}; choose another place with --output") from None
    return {
        "output": str(output), "users": len(nodes), "rows": rows, "met_everything": without,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def find_users(path: Path, ranker: Ranker) -> np.ndarray:
    """int64 [n]: nodes of the users in a file. Raises `DataError` for unknown ones, with their number."""
    wanted = read_users(path)
    if wanted.dtype == pl.String:
        nodes = ranker.users.find_texts(wanted.fill_null("").to_list())
    else:
        nodes = ranker.users.find(wanted, str(path))
    unknown = np.flatnonzero(nodes < 0)
    if len(unknown):
        examples = ", ".join(shown(value) for value in wanted.gather(unknown[:NUM_EXAMPLES]))
        raise DataError(
            f"{path}: {len(unknown)} of {len(wanted)} users are unknown to the model, e.g. {examples}; leave them out, "
            "or prepare and train with them"
        )
    return nodes


def read_users(path: Path) -> pl.Series:
    """The IDs of a file: the column user_id of a table (.parquet, .csv, .tsv), or else one ID a line.

    Raises `DataError`.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'no file' if path.exists() else 'no such file'}; expected a file of user IDs")
    form = FORMATS.get(path.suffix, "text")
    try:
        if form == "parquet":
            frame = read_parquet(path)
        else:
            separator = SEPARATORS.get(form)
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            if separator is None or separator not in (lines or [""])[0]:
                ids = [line.strip().strip('"') for line in lines if line.strip()]
                return pl.Series(COLUMN, ids[1:] if ids[:1] == [COLUMN] else ids, dtype=pl.String)
            frame = pl.read_csv(path, separator=separator, infer_schema=False)
    except (OSError, ValueError, pl.exceptions.PolarsError) as err:
        raise unreadable(path, form, first_line(err)) from None
    if COLUMN not in frame.columns:
        found = ", ".join(map(shown, frame.columns))
        raise DataError(f"{path}: no column {COLUMN}; found {found}; rename one, or write one ID a line")
    return frame[COLUMN]


@contextmanager
def write_table(path: Path, empty: pl.DataFrame) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Yield what adds rows of the columns and types of `empty` to a table, .parquet, .csv or .tsv.

    The file gets its name when the block succeeds. Raises `ConfigError` for a name that can't be that of a table.
    """
    form = format_of(path)
    if path.is_dir():
        raise ConfigError(f"{path}: a folder is there; choose another name for the table")
    with atomic_file(path) as temporary:
        if form == "parquet":
            schema = empty.to_arrow().schema
            with pa_parquet.ParquetWriter(temporary, schema) as writer:
                yield lambda table: writer.write_table(table.to_arrow().cast(schema))
        else:
            with temporary.open("wb") as file:
                separator = SEPARATORS[form]
                empty.write_csv(file, separator=separator)
                yield lambda table: table.write_csv(file, separator=separator, include_header=False)
