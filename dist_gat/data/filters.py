"""`left_out`: users and items of few interactions, and users of too many, leave before the split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dist_gat.config.data_sections import DataConfig
from dist_gat.data.edge_file import GONE, Columns, EdgeFile, write_edges


def left_out(
    edges: EdgeFile, config: DataConfig, num_users: int, num_items: int, rows: int
) -> tuple[EdgeFile, dict[str, int]]:
    """The edges that stay, and how many went for which reason.

    max_user_interactions counts first, then the two minima; with `k_core` they count again, until nothing goes.
    """
    few_users, few_items, most = (
        config.min_user_interactions,
        config.min_item_interactions,
        config.max_user_interactions,
    )
    dropped: dict[str, int] = {}
    if not (few_users or few_items or most):
        return edges, dropped
    user_stays, item_stays = np.ones(num_users, bool), np.ones(num_items, bool)
    if most:
        user_degree = _degree(edges, "source", user_stays, item_stays, rows)
        user_stays &= user_degree <= most
        _note(dropped, "rows of users with too many interactions", int(user_degree[~user_stays].sum()))
    while True:
        before = user_stays.sum(), item_stays.sum()
        for kind, end, stays, least in (
            ("item", "target", item_stays, few_items), ("user", "source", user_stays, few_users),
        ):  # fmt: skip
            degree = _degree(edges, end, user_stays, item_stays, rows)
            few = stays & (degree < least)
            stays &= ~few
            _note(dropped, f"rows of {kind}s with too few interactions", int(degree[few].sum()))
        if not config.k_core or before == (user_stays.sum(), item_stays.sum()):
            break
    if not dropped:
        return edges, dropped

    def staying() -> Iterator[Columns]:
        for chunk in edges.chunks(rows):
            own = user_stays[chunk["source"]] & item_stays[chunk["target"]]
            yield {name: values[own] for name, values in chunk.items()}

    return write_edges(edges.folder.with_name(f"{edges.folder.name}-left"), edges.types, staying()), dropped


def _degree(edges: EdgeFile, name: str, user_stays: np.ndarray, item_stays: np.ndarray, rows: int) -> np.ndarray:
    """int64: edges between users and items that stay, of each node."""
    found = np.zeros(len(user_stays if name == "source" else item_stays), np.int64)
    for chunk in edges.chunks(rows, [column for column in ("source", "target", "split") if column in edges.types]):
        own = user_stays[chunk["source"]] & item_stays[chunk["target"]]
        if "split" in chunk:
            own &= chunk["split"] < GONE
        found += np.bincount(chunk[name][own], minlength=len(found))
    return found


def _note(dropped: dict[str, int], reason: str, number: int) -> None:
    if number:
        dropped[reason] = dropped.get(reason, 0) + number
