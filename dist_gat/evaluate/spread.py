"""How far a metric would move with other users: its standard error.

Shape legend: P parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dist_gat.base.random import Purpose, hash_ids, make_key
from dist_gat.evaluate.full_ranking import JudgedRanking, sum_of_parts
from dist_gat.evaluate.metrics import metric_names, user_metrics
from dist_gat.evaluate.pair_slices import Measure
from dist_gat.evaluate.pair_values import PairValues
from dist_gat.exchange.channel import Channel

NUM_GROUPS = 10


def ranking_spread(
    judged: Sequence[JudgedRanking], num_parts: int, channel: Channel, ks: Sequence[int]
) -> dict[str, float]:
    """The standard error of each ranking metric, a mean over users; NaN with less than two. Collective."""
    names = metric_names(ks)
    sums = np.zeros((num_parts, 2, len(names) + 1))
    for part in judged:
        values = user_metrics(part.hits, part.num_relevant, ks)
        sums[part.part, 0] = [*values.sum(axis=0), len(values)]
        sums[part.part, 1, :-1] = (values**2).sum(axis=0)
    totals, squares = sum_of_parts(sums, channel)
    num_users = totals[-1]
    if num_users < 2:
        return dict.fromkeys(names, float("nan"))
    variance = np.maximum(squares[:-1] - totals[:-1] ** 2 / num_users, 0.0) / (num_users - 1)
    return dict(zip(names, np.sqrt(variance / num_users).tolist(), strict=True))


def pair_spread(predicted: PairValues, measure: Measure) -> dict[str, float]:
    """The standard error of each metric of predictions, from random groups of users (Wolter: Introduction to Variance
    Estimation, 2007, chapter 2): the standard deviation over `NUM_GROUPS` groups, over the root of their number.

    That holds for metrics that are no means too. Groups without pairs or with an undefined metric don't count; NaN
    where less than two are left.
    """
    users = predicted.pairs[:, 0]
    # the same groups for all models of a data set
    group = hash_ids(make_key(0, Purpose.SPREAD), users) % np.uint64(NUM_GROUPS)
    rows = [
        measure(predicted.labels[mine], predicted.values[mine], users[mine])
        for mine in (group == number for number in np.unique(group))
    ]
    spreads = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        known = values[np.isfinite(values)]
        spreads[name] = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
    return spreads
