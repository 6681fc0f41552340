"""Ranking metrics against ir-measures."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, P, R, Success, nDCG

from dist_gat.evaluate.metrics import find_hits, metric_names, user_metrics

KS = (1, 5, 10)
ORACLES = {"recall": R, "precision": P, "ndcg": nDCG, "mrr": RR, "hit_rate": Success}


def test_the_metrics_are_those_of_ir_measures() -> None:
    rng = np.random.default_rng(0)
    num_users, num_items = 60, 40
    items_UK = np.stack([rng.permutation(num_items)[:10] for _ in range(num_users)])
    truth = np.array([(u, i) for u in range(num_users) for i in np.sort(rng.choice(40, rng.integers(1, 15), False))])
    hits, count = find_hits(np.arange(num_users), items_UK, truth)
    values = user_metrics(hits, count, KS)
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, i in truth]
    run = [
        ir_measures.ScoredDoc(str(u), str(item), 100.0 - place)
        for u, row in enumerate(items_UK)
        for place, item in enumerate(row)
    ]
    measures = {name: ORACLES[name.split("@")[0]] @ int(name.split("@")[1]) for name in metric_names(KS)}
    names = {str(measure): column for column, (_, measure) in enumerate(measures.items())}
    compared = 0
    for result in ir_measures.iter_calc(list(measures.values()), qrels, run):
        assert values[int(result.query_id), names[str(result.measure)]] == pytest.approx(result.value, abs=1e-6)
        compared += 1
    assert compared == num_users * len(measures)


def test_users_without_relevant_items_have_none_and_padding_is_no_hit() -> None:
    truth = np.array([[4, 0], [4, 3], [9, 1]])
    hits, count = find_hits(np.array([3, 4, 9]), np.array([[0, 3], [3, -1], [-1, -1]]), truth)
    assert count.tolist() == [0, 2, 1]
    assert hits.tolist() == [[False, False], [True, False], [False, False]]
    nothing = find_hits(np.array([3]), np.array([[0]]), np.zeros((0, 2), np.int64))
    assert nothing[0].tolist() == [[False]]
