"""Baselines through the same ranking and metrics as the models, on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.baselines.als import fit_als
from dist_gat.baselines.ease import fit_ease
from dist_gat.baselines.graph_filters import fit_gfcf, fit_linear
from dist_gat.baselines.histories import Histories, shifts, training_histories
from dist_gat.baselines.markov import fit_markov
from dist_gat.baselines.most_popular import fit_popularity
from dist_gat.baselines.neighbors import fit_itemknn, fit_userknn
from dist_gat.baselines.scorer import Fit, Matrix, Scorer
from dist_gat.config.sections import BaselineConfig, EvaluateConfig
from dist_gat.evaluate.full_ranking import ITEM_BLOCK, PartRanking, item_blocks, rank_parts, ranking_metrics
from dist_gat.evaluate.new_user_metrics import History, new_user_metrics
from dist_gat.evaluate.split_metrics import cold_metrics
from dist_gat.evaluate.topk import RunningTopK, known_items
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.worker import Worker
from dist_gat.filters.history_weights import decay, newer_in_history
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation

PLAIN: dict[str, Fit] = {
    "popularity": fit_popularity,
    "userknn": fit_userknn,
    "itemknn": fit_itemknn,
    "als": fit_als,
    "ease": fit_ease,
    "gfcf": fit_gfcf,
    "linear": fit_linear,
}
# scores are of a history that fades: of R whose entries are 2^(-newer / half-life), see `filters.history_weights`, in
# place of 1; what they learn, the right-hand factor, is as without
RECENT: dict[str, Fit] = {"itemknn-recent": fit_itemknn, "ease-recent": fit_ease}
# scores are of a history alone, so they are there for new users too
OF_HISTORIES = ("popularity", "itemknn", "ease", "linear")
SEQUENTIAL: dict[str, Callable[[Histories, BaselineConfig], Scorer]] = {"markov": fit_markov}
# they need times
TIMED = (*RECENT, *SEQUENTIAL)
BASELINES = (*PLAIN, *TIMED)


def evaluate_baseline(
    name: str, prepared: PreparedGraph, relation: Relation, split: str, config: EvaluateConfig, metric: str, seed: int,
    worker: Worker, lengths: Sequence[int] = (),
) -> dict[str, Any]:  # fmt: skip
    """`metrics` of one baseline on a split, trained on the training interactions, and a `note` on what was chosen.

    metric: by which validation chooses a half-life. worker: the only one. Raises `ConfigError` where the baseline can't
    run on this data set or machine.

    lengths: of the histories of new users, whom the baselines of `OF_HISTORIES` are measured on too.
    """
    histories = training_histories(prepared, relation)

    def measure(score: Scorer, split: str) -> dict[str, float]:
        parts = range(prepared.ranges.num_parts)
        sample = sample_users(prepared, relation, split, parts, config.num_users, seed, worker.control)
        rank = partial(rank_baseline, score, prepared, relation, split, config, sample.users, worker)
        rankings = rank()
        found = ranking_metrics(rankings, prepared, worker.control, relation, split, config.ks)
        apart, _ = cold_metrics(rankings, rank, prepared, relation, split, parts, worker.control, config.ks)
        return found | apart | sample.counts

    if name in PLAIN:
        score = PLAIN[name](histories.matrix(), config.baseline)
        metrics = measure(score, split)
        if name in OF_HISTORIES:
            best_items = partial(best_for_new, score, prepared, relation, max(config.ks))
            metrics |= new_user_metrics(best_items, prepared, split, lengths, config, seed)
        return {"metrics": metrics, "note": ""}
    if name in SEQUENTIAL:
        return {"metrics": measure(SEQUENTIAL[name](histories, config.baseline), split), "note": ""}
    half_lives, chosen_by = config.baseline.half_lives, ""
    if len(half_lives) > 1 and not prepared.num_pairs(relation, "valid"):
        raise ConfigError(
            f"{name} chooses among evaluate.baseline.half_life={half_lives} on validation pairs, and there are none: "
            "give one number, or set data.split and prepare again"
        )
    scores = fit_recent(name, histories, config.baseline)
    best = half_lives[0]
    if len(half_lives) > 1:
        best = max(half_lives, key=lambda half_life: measure(scores(half_life), "valid")[metric])
        chosen_by = ", chosen on validation"
    note = "all of a history counts alike" if best is None else f"a half-life of {best:g} newer interactions"
    return {"metrics": measure(scores(best), split), "note": note + chosen_by}


def fit_recent(name: str, histories: Histories, config: BaselineConfig) -> Callable[[float | None], Scorer]:
    """One of `RECENT`, by half-life. Raises `ConfigError` without times."""
    newer = newer_in_history(histories.users, histories.when(name))
    fitted = RECENT[name](histories.matrix(), config)
    return lambda half_life: fitted.with_left(histories.matrix(decay(newer, half_life)))


def rank_baseline(
    score: Scorer, prepared: PreparedGraph, relation: Relation, split: str, config: EvaluateConfig,
    users: Mapping[int, np.ndarray], worker: Worker, among: np.ndarray | None = None,
) -> list[PartRanking]:  # fmt: skip
    """The best items of `users`, part by part. among: see `rank_parts`."""
    ranges = prepared.ranges
    user_shift, item_shift = shifts(ranges, relation.source), shifts(ranges, relation.target)

    def score_part(part: int, users_n: np.ndarray, first: int, last: int) -> np.ndarray:
        shift = int(item_shift[ranges.part_of(np.array(first))])
        return score(users_n - user_shift[part], slice(first - shift, last - shift))

    return rank_parts(
        prepared, relation, users, split, max(config.ks), config.user_chunk, score_part, worker, among=among
    )


def best_for_new(
    score: Scorer, prepared: PreparedGraph, relation: Relation, k: int, histories: Sequence[History]
) -> np.ndarray:
    """int64 [n, k]: the best items that new users have not met, by a baseline of `OF_HISTORIES`; -1 where there are
    fewer."""
    ranges, shift = prepared.ranges, shifts(prepared.ranges, relation.target)
    user = np.repeat(np.arange(len(histories)), [len(history.items) for history in histories])
    met = np.concatenate([np.zeros(0, np.int64), *(history.items for history in histories)])
    shape = len(histories), ranges.count(relation.target)
    left: Matrix = csr_array((np.ones(len(met), np.float32), (user, met - shift[ranges.part_of(met)])), shape=shape)
    if score.lefts[0].shape[1] == 1:  # of popularity, which is the same for everyone
        left = np.ones((len(histories), 1), np.float32)
    scores_of, best = score.with_left(left), RunningTopK(len(histories), k)
    known = known_items(np.arange(len(histories)), [np.stack([user, met], axis=1)])
    for first, last in item_blocks(prepared, relation, ITEM_BLOCK):
        own = int(shift[ranges.part_of(np.array(first))])
        best.merge(0, scores_of(slice(None), slice(first - own, last - own)), first, known)
    return best.items_UK
