"""New users as a user gives them: JSON lines, a table, or Python dictionaries, checked and turned into `History`.

A line is {"user": "x", "items": ["a", "b"]}, and may have "weights" and "times", lists of the same length, "columns",
values by name, and "relations", the nodes that the user is joined with, as {"friends": ["u1"]}, see
`dist_gat.serve.joined_nodes`. A table has the columns user_id, item_id[, weight][, time] and those of users, by their
names or as columns.NAME, with a row for each interaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.serve.given_nodes import (
    Given,
    NewRows,
    check_id,
    columns_of_table,
    given_nodes,
    numbers_of,
    only_value,
    times_of,
)
from dist_gat.serve.joined_nodes import JoinedNodes
from dist_gat.serve.new_columns import tell
from dist_gat.serve.new_users import NewUsers

LISTS = {"items": "item_id", "weights": "weight", "times": "time"}
KEYS = ("user", *LISTS, "columns", "relations")
EXPECTED = (
    'expected {"user": "x", "items": ["a", "b"]}, and if known "weights" and "times" of the same length, "columns" and '
    '"relations": {"friends": ["u1"]}'
)


def read_histories(source: NewRows, new: NewUsers, progress: Callable[[str], None]) -> list[History]:
    """In the order of the source. An item that comes again counts once, as its last row says; items that training never
    saw are left out, categories that it never saw are missing, and `progress` is told. Raises `DataError` for what
    can't be read."""
    columns, joined = new.columns, JoinedNodes(new.nodes, new.model.relation.source, EXPECTED)
    given = given_nodes(source, "user", EXPECTED, lambda table, where: _of_table(table, where, columns.names))
    if not given:
        return []
    for where, user in given:
        _check(user, where)
    every = pl.Series([str(item) for _, user in given for item in user["items"]], dtype=pl.String)
    nodes = new.ranker.items.find_texts(every)
    nodes[nodes >= new.model.ranges.num_nodes] = -1  # new items, which nobody has met yet
    ends = np.cumsum([len(user["items"]) for _, user in given])
    histories, seen = [], set()
    for (where, user), own in zip(given, np.split(nodes, ends[:-1]), strict=True):
        name = str(user["user"])
        if name in seen:
            raise DataError(f"{where}: user {shown(name)} again; expected each new user once: put the items together")
        seen.add(name)
        weights, times = numbers_of(user, "weights", where), times_of(user, where)
        whole = History(
            name, own, None if weights is None else weights.astype(np.float32), times,
            columns.row(user.get("columns"), where), others=joined.histories(name, user.get("relations"), where),
        )  # fmt: skip
        # the last of equal ones, in the order of the list
        last = {node: at for at, node in enumerate(own.tolist()) if node >= 0}
        histories.append(whole.part(np.array(sorted(last.values()), dtype=np.int64)))
    unknown = every.filter(nodes < 0)
    if len(unknown):
        examples = ", ".join(shown(item) for item in unknown[:NUM_EXAMPLES])
        progress(f"{len(unknown):,} items are unknown to the model and left out, for example {examples}")
    tell([*columns.notes, *joined.notes], progress)
    return histories


def _of_table(table: pl.DataFrame, where: str, names: Sequence[str]) -> list[Given]:
    """Users in the order of their first rows. names: of columns of users; with some, a row may have no item."""
    needed = ["user_id"] if names else ["user_id", "item_id"]
    if missing := [name for name in needed if name not in table.columns]:
        found = ", ".join(map(shown, table.columns))
        raise DataError(f"{where}: no column {' and '.join(missing)}; found {found}; expected user_id, item_id[, ...]")
    lists = {key: name for name, key in LISTS.items() if key in table.columns}
    own = columns_of_table(table, names, ["user_id", *LISTS.values()], where)
    found_users = []
    for (user,), rows in table.group_by(["user_id"], maintain_order=True):
        at = f"{where}, user {user}"
        met = rows.filter(pl.col("item_id").is_not_null()) if names and "item_id" in lists else rows
        given: dict[str, Any] = {"user": user, "items": []}
        given |= {name: met[key].to_list() for key, name in lists.items()}
        values = {name: only_value(rows[column], f"{at}: {column}") for name, column in own.items()}
        if names:
            given["columns"] = values
        found_users.append((at, given))
    return found_users


def _check(user: Any, where: str) -> None:
    """Raise `DataError` unless it is a dictionary with the keys and lists that are known."""
    if not isinstance(user, Mapping) or "user" not in user or not isinstance(user.get("items"), list):
        raise DataError(f"{where}: found {str(user)[:80]}; {EXPECTED}")
    if more := [key for key in user if key not in KEYS]:
        raise DataError(f"{where}: unknown key {shown(more[0])}; {EXPECTED}")
    for name in ("weights", "times"):
        if user.get(name) is not None and (
            not isinstance(user[name], list) or len(user[name]) != len(user["items"])
        ):  # fmt: skip
            raise DataError(f"{where}: {name} is no list of {len(user['items'])}, as items is; {EXPECTED}")
    for one in (user["user"], *user["items"]):
        check_id(one, where)
