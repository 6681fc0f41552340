"""How good lists are for users who are no nodes, from their first interactions alone.

A recipe holds such users out with `data.split.cold_users`. Of each, the first n interactions are the history: the
oldest, or without times some by a hash. The rest is relevant. Metrics are called `new_users_from_n/recall@20`.

Shape legend: m interactions, U users, K best items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from dist_gat.base.random import Purpose, hash_ids, make_key
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.metrics import find_hits, metric_names, user_metrics
from dist_gat.graph.part import PreparedGraph

NEW_USERS = "new_users_from_"


@dataclass(frozen=True)
class History:
    """What a new user has met: item nodes, int64 [m], each once. name: of the user. weights: float32 [m]; None: not
    known. times: int64 [m], microseconds; without any the order of the list, the last one the newest. columns: float32
    [width], what else is known of the user, see `column_layout`; None: nothing. categories: int64 [m], of edges of a
    relation that has some. others: what else a user hears of, along other relations, by the numbers of edge types."""

    name: str
    items: np.ndarray
    weights: np.ndarray | None = None
    times: np.ndarray | None = None
    columns: np.ndarray | None = None
    categories: np.ndarray | None = None
    others: Mapping[int, History] = field(default_factory=dict)

    @property
    def moments(self) -> np.ndarray:
        """int64 [m]: times, or the order as microseconds, which are as good as one time."""
        return np.arange(len(self.items)) if self.times is None else self.times

    def part(self, places: np.ndarray) -> History:
        """Some of the interactions, in any order, at their moments."""
        weights, categories = (None if one is None else one[places] for one in (self.weights, self.categories))
        return replace(
            self, items=self.items[places], weights=weights, times=self.moments[places], categories=categories
        )


# the best items that users have not met, int64 [U, K], -1 where there are fewer
Best = Callable[[Sequence[History]], np.ndarray]


def new_user_metrics(
    best: Best, prepared: PreparedGraph, split: str, lengths: Sequence[int], config: EvaluateConfig, seed: int
) -> dict[str, float]:
    """The metrics of a split's new users, and how many they are of, who have more than n interactions; nothing where
    there are none."""
    found: dict[str, float] = {}
    if not prepared.num_cold_users(split):
        return found
    everyone = cold_histories(prepared, split, config.num_users, seed)
    for length in lengths:
        users = [history for history in everyone if len(history.items) > length]
        if not users:
            continue
        items_UK = best([history.part(np.arange(length)) for history in users])
        rest = [np.sort(history.items[length:]) for history in users]
        owner = np.repeat(np.arange(len(users)), [len(items) for items in rest])
        truth = np.stack([owner, np.concatenate(rest)], axis=1)
        hits_UK, num_relevant_U = find_hits(np.arange(len(users)), items_UK, truth)
        means = user_metrics(hits_UK, num_relevant_U, config.ks).mean(axis=0).tolist()
        named = {**dict(zip(metric_names(config.ks), means, strict=True)), "num_users": float(len(users))}
        found |= {f"{NEW_USERS}{length}/{name}": value for name, value in named.items()}
    return found


def cold_histories(prepared: PreparedGraph, split: str, num_users: int | None, seed: int) -> list[History]:
    """The new users of a split, or so many of them, with their interactions in order: the oldest first."""
    table = prepared.cold_users(split)
    key = make_key(seed, Purpose.USERS)
    order = ["time"] if "time" in table.columns else []
    _, user = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    draw = pl.Series("draw", hash_ids(key, user * prepared.ranges.num_nodes + table["item"].to_numpy()))
    table = table.with_columns(draw).sort(["user_id", *order, "draw"])
    columns = np.array(prepared.cold_user_columns(split)) if "row" in table.columns else None
    histories = []
    for (name,), own in table.group_by(["user_id"], maintain_order=True):
        weights = own["weight"].to_numpy() if "weight" in own.columns else None
        times = own["time"].to_numpy() if order else None
        known = None if columns is None else columns[own["row"][0]]
        histories.append(History(str(name), own["item"].to_numpy(), weights, times, known))
    if num_users is None or num_users >= len(histories):
        return histories
    draws = hash_ids(key, np.arange(len(histories)))
    return [histories[place] for place in np.sort(np.argsort(draws)[:num_users])]
