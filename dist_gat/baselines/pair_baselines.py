"""What a user would pick instead of a model that predicts ratings, clicks or counts.

Shape legend: m pairs, U users (sources), I items (targets).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, hstack

from dist_gat.baselines.histories import shifts
from dist_gat.evaluate.pair_values import PartPairs
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.tasks.pair_task import PairTask

# in pairs: a bias that few pairs support stays near 0 (Koren, Bell and Volinsky, IEEE Computer 2009)
DAMPING = 10.0
SWEEPS = 10
RATE_FLOOR = 1e-3


@dataclass(frozen=True)
class LabelledPairs:
    """users, items: int64 [m], numbered from 0. labels, exposures: float64 [m]; these are 1 where a task has none."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    num_users: int
    num_items: int
    exposures: np.ndarray


# from training pairs: a function from users and items, int64 [m] each, to predictions, float64 [m]
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fit_mean(train: LabelledPairs) -> Predict:
    """The mean of all training labels."""
    mean = float(train.labels.sum() / train.exposures.sum())
    return lambda users, items: np.full(len(users), mean)


def fit_user_mean(train: LabelledPairs) -> Predict:
    """The mean of the user's labels, as if it had `DAMPING` more of the overall mean."""
    mean_U = damped_rates(train.users, train, train.num_users)
    return lambda users, items: mean_U[users]


def fit_item_mean(train: LabelledPairs) -> Predict:
    """The same of the item's labels."""
    mean_I = damped_rates(train.items, train, train.num_items)
    return lambda users, items: mean_I[items]


def fit_biases(train: LabelledPairs) -> Predict:
    """mean + b_u + b_i, the least squares with a penalty `DAMPING` on each squared bias, by turns."""
    mean = float(train.labels.mean())
    bias_U, bias_I = np.zeros(train.num_users), np.zeros(train.num_items)
    count_U, count_I = np.bincount(train.users, minlength=len(bias_U)), np.bincount(train.items, minlength=len(bias_I))
    for _ in range(SWEEPS):
        rest = train.labels - mean - bias_U[train.users]
        bias_I = np.bincount(train.items, rest, len(bias_I)) / (count_I + DAMPING)
        rest = train.labels - mean - bias_I[train.items]
        bias_U = np.bincount(train.users, rest, len(bias_U)) / (count_U + DAMPING)
    return lambda users, items: mean + bias_U[users] + bias_I[items]


def fit_click_biases(train: LabelledPairs) -> Predict:
    """`fit_biases`, cut to probabilities."""
    predict = fit_biases(train)
    return lambda users, items: predict(users, items).clip(RATE_FLOOR, 1 - RATE_FLOOR)


def fit_logistic(train: LabelledPairs) -> Predict:
    """Logistic regression with one weight a user and one an item (scikit-learn's, with its default penalty)."""
    from sklearn.linear_model import LogisticRegression

    def columns(users: np.ndarray, items: np.ndarray) -> csr_array:
        rows, ones = np.arange(len(users)), np.ones(len(users))
        left = csr_array((ones, (rows, users)), shape=(len(users), train.num_users))
        return csr_array(hstack([left, csr_array((ones, (rows, items)), shape=(len(users), train.num_items))]))

    model = LogisticRegression(max_iter=500).fit(columns(train.users, train.items), train.labels)
    return lambda users, items: model.predict_proba(columns(users, items))[:, 1]


def fit_boosting(train: LabelledPairs) -> Predict:
    """Gradient boosting on how many labels a user and an item have, and their mean.

    scikit-learn's HistGradientBoosting; the means of training pairs are of other folds (its TargetEncoder), so that no
    pair sees its own label.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.preprocessing import TargetEncoder

    counts = np.bincount(train.users, minlength=train.num_users), np.bincount(train.items, minlength=train.num_items)
    encoder = TargetEncoder(target_type="binary", random_state=0)

    def columns(users: np.ndarray, items: np.ndarray, means: np.ndarray) -> np.ndarray:
        return np.column_stack([counts[0][users], counts[1][items], means])

    with warnings.catch_warnings():
        # releases from 1.9 on want the folds instead of random_state, which earlier ones can't take
        warnings.simplefilter("ignore", FutureWarning)
        means = encoder.fit_transform(np.column_stack([train.users, train.items]), train.labels)
    model = HistGradientBoostingClassifier(random_state=0, early_stopping=True)
    model.fit(columns(train.users, train.items, means), train.labels)

    def predict(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        means = encoder.transform(np.column_stack([users, items]))
        return model.predict_proba(columns(users, items, means))[:, 1]

    return predict


def fit_rates(train: LabelledPairs) -> Predict:
    """The user's mean count times the item's over the overall mean, both damped."""
    mean = max(float(train.labels.sum() / train.exposures.sum()), RATE_FLOOR)
    mean_U = damped_rates(train.users, train, train.num_users)
    mean_I = damped_rates(train.items, train, train.num_items)
    return lambda users, items: np.maximum(mean_U[users] * mean_I[items] / mean, RATE_FLOOR)


PAIR_BASELINES: dict[str, dict[str, Callable[[LabelledPairs], Predict]]] = {
    "rating": {"mean": fit_mean, "user_mean": fit_user_mean, "item_mean": fit_item_mean, "biases": fit_biases},
    "click": {
        "mean": fit_mean, "item_mean": fit_item_mean, "biases": fit_click_biases, "logistic": fit_logistic,
        "boosting": fit_boosting,
    },
    "count": {"mean": fit_mean, "item_mean": fit_item_mean, "rates": fit_rates},
    "own": {"mean": fit_mean, "item_mean": fit_item_mean},
}  # fmt: skip


def evaluate_pair_baseline(name: str, task: PairTask, prepared: PreparedGraph, split: str) -> dict[str, float]:
    """Metrics of one baseline on a split, fitted on the training pairs."""
    parts = range(prepared.ranges.num_parts)
    predict = PAIR_BASELINES[task.config.kind][name](labelled_pairs(task, task.labelled.of_parts(parts, "train")))
    measured, counts = task.measured(parts, split, Channel("baseline"))
    held_out = labelled_pairs(task, measured)
    predictions = predict(held_out.users, held_out.items) * held_out.exposures
    metrics = task.likelihood.metrics(held_out.labels, predictions, held_out.users)
    return {**metrics, "num_pairs": float(len(held_out.labels)), **counts}


def labelled_pairs(task: PairTask, parts: Sequence[PartPairs]) -> LabelledPairs:
    """What the task trains on or is measured with, negatives among it; parts: all of them."""
    ranges, relation = task.labelled.prepared.ranges, task.relation
    pairs = np.concatenate([part.pairs for part in parts])
    labels = np.concatenate([part.labels for part in parts]).astype(np.float64)
    exposures = np.concatenate(
        [np.ones(len(part.labels)) if part.offsets is None else np.exp(part.offsets) for part in parts]
    )
    users, items = (
        nodes - shifts(ranges, kind)[ranges.part_of(nodes)]
        for kind, nodes in zip((relation.source, relation.target), pairs.T, strict=True)
    )
    num_users, num_items = ranges.count(relation.source), ranges.count(relation.target)
    return LabelledPairs(users, items, labels, num_users, num_items, exposures)


def damped_rates(nodes: np.ndarray, train: LabelledPairs, size: int) -> np.ndarray:
    """float64 [size]: of each node, labels over exposures, as if it had `DAMPING` more pairs like the mean of all."""
    exposures, sums = np.bincount(nodes, train.exposures, size), np.bincount(nodes, train.labels, size)
    damping = DAMPING * train.exposures.mean()
    return (sums + damping * train.labels.sum() / train.exposures.sum()) / (exposures + damping)
