"""Exact full ranking over sharded representations, and its metrics.

Users are the sources of a relation, items its targets. Every rank ranks for its own users that are measured, see
`UserSample`. Item rows are sent round block by block, so no rank holds all of them, and a score block is at most
`user_chunk` × ITEM_BLOCK. Blocks and chunks are cut inside parts, and sums are taken part by part, so the numbers are
the same for any number of ranks.

Shape legend: O own nodes, R representation size, U users of a part, n users of a chunk, m items of a block, K best
items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.errors import DataError
from dist_gat.base.pairs import pairs_of
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.metrics import find_hits, metric_names, user_metrics
from dist_gat.evaluate.score_term import ScoreTerm
from dist_gat.evaluate.topk import RunningTopK, known_items
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.long_work import padded
from dist_gat.exchange.route import share_rows
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

# the scores of a block for a chunk of users stay in the last-level cache
ITEM_BLOCK = 2048
SEEN_BEFORE = {"train": [], "valid": ["train"], "test": ["train", "valid"]}


@dataclass(frozen=True)
class PartRanking:
    """The best items of one part's users: node IDs int64 [U], items int64 [U, K], scores float32 [U, K]."""

    part: int
    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray


# scores of nodes of a part, int64 [n], for item nodes [first, last), float32 [n, m]
ScoreBlock = Callable[[int, np.ndarray, int, int], np.ndarray]


def rank_parts(
    prepared: PreparedGraph, relation: Relation, users: Mapping[int, np.ndarray], split: str, k: int, user_chunk: int,
    score: ScoreBlock, worker: Worker, next_block: Callable[[int, int], None] = lambda first, last: None,
    block_size: int = ITEM_BLOCK, among: np.ndarray | None = None,
) -> list[PartRanking]:  # fmt: skip
    """Rank all items for `users` of this rank's parts, except each user's items in the splits before `split`.

    among: bool, by node: of the items that are ranked; None: all.

    `next_block(first, last)` is called, by every rank in the same order, before the block's scores. Collective.
    """
    best = {p: RunningTopK(len(own), k) for p, own in users.items()}
    known = {
        p: known_items(own, [pairs_of(prepared.parts[p].pairs(relation, s), own) for s in SEEN_BEFORE[split]])
        for p, own in users.items()
    }
    chunks = padded(
        [(p, start) for p, own in users.items() for start in range(0, len(own), user_chunk)], None, worker.control
    )
    blocks = item_blocks(prepared, relation, block_size)
    begun = -1
    for (first, last), chunk in worker.steps(f"ranking of {split}", product(blocks, chunks), len(blocks) * len(chunks)):
        if first != begun:
            next_block(first, last)
            begun = first
        if chunk is not None:
            p, start = chunk
            scores = score(p, users[p][start : start + user_chunk], first, last)
            if among is not None:
                scores = np.where(among[first:last], scores, np.float32(-np.inf))
            best[p].merge(start, scores, first, known[p])
    return [PartRanking(p, own, best[p].items_UK, best[p].scores_UK) for p, own in users.items()]


def item_blocks(prepared: PreparedGraph, relation: Relation, size: int) -> list[tuple[int, int]]:
    """(first, last) item node IDs of each block of at most `size` items; no block crosses a part."""
    blocks = []
    for part in range(prepared.ranges.num_parts):
        items = prepared.ranges.nodes_of_type(part, relation.target)
        blocks += [(first, min(first + size, items.stop)) for first in range(items.start, items.stop, size)]
    return blocks


def rank_representations(
    rows_OR: Tensor, store: GraphStore, worker: Worker, relation: Relation, split: str, config: EvaluateConfig,
    users: Mapping[int, np.ndarray], terms: Sequence[ScoreTerm] = (), among: np.ndarray | None = None,
) -> list[PartRanking]:  # fmt: skip
    """Rank for `users` of this rank's parts by the inner product of representations, plus `terms`. Collective.

    rows_OR: of this rank's nodes, as `Recommender.ranking_rows` gives them. among: see `rank_parts`. Raises `DataError`
    where rows are not finite.
    """
    if not bool(torch.isfinite(rows_OR).all()):
        raise DataError("representations have NaN or infinite values: training diverged; lower train.learning_rate")
    prepared, first_node = store.prepared, store.ownership.first_node
    block: list[Tensor] = []

    def next_block(first: int, last: int) -> None:
        start, stop = max(first - first_node, 0), max(last - first_node, 0)
        block[:] = [share_rows(rows_OR[start:stop], worker.rows)]
        for term in terms:
            term.next_block(first, last)

    def score(part: int, users_n: np.ndarray, first: int, last: int) -> np.ndarray:
        users_nR = rows_OR.index_select(0, torch.from_numpy(users_n - first_node).to(rows_OR.device))
        scores = (users_nR @ block[0].T).float().cpu().numpy()
        for term in terms:
            scores += term.scores(part, users_n)
        return scores

    size = max((term.block_size for term in terms), default=ITEM_BLOCK)
    return rank_parts(
        prepared, relation, users, split, max(config.ks), config.user_chunk, score, worker, next_block, size, among
    )


def ranking_metrics(
    rankings: Sequence[PartRanking],
    prepared: PreparedGraph,
    channel: Channel,
    relation: Relation,
    split: str,
    ks: Sequence[int],
    relevant: np.ndarray | None = None,
) -> dict[str, float]:
    """Mean metrics over the ranked users with interactions in `split`, and their number as `num_users`. Collective.

    relevant: see `judge`.
    """
    sums = np.zeros((prepared.ranges.num_parts, len(metric_names(ks)) + 1))
    for judged in judge(rankings, prepared, relation, split, relevant):
        values = user_metrics(judged.hits, judged.num_relevant, ks)
        sums[judged.part] = [*values.sum(axis=0), len(values)]
    *totals, num_users = sum_of_parts(sums, channel).tolist()
    means = {name: total / max(num_users, 1) for name, total in zip(metric_names(ks), totals, strict=True)}
    return {**means, "num_users": num_users}


@dataclass(frozen=True)
class JudgedRanking:
    """The best items of one part's users with interactions in a split, and which of these items are relevant.

    users: int64 [U], items: int64 [U, K], -1 where there are fewer; hits: bool [U, K]; num_relevant: int64 [U].
    """

    part: int
    users: np.ndarray
    items: np.ndarray
    hits: np.ndarray
    num_relevant: np.ndarray


def judge(
    rankings: Sequence[PartRanking], prepared: PreparedGraph, relation: Relation, split: str,
    relevant: np.ndarray | None = None,
) -> list[JudgedRanking]:  # fmt: skip
    """The rankings of the users that metrics are about: those with interactions in `split`.

    relevant: bool, by node: of the items whose interactions count; None: all.
    """
    judged = []
    for ranking in rankings:
        truth = pairs_of(prepared.parts[ranking.part].pairs(relation, split), ranking.users)
        if relevant is not None:
            truth = truth[relevant[truth[:, 1]]]
        hits, num_relevant = find_hits(ranking.users, ranking.items, truth)
        some = num_relevant > 0
        judged.append(
            JudgedRanking(ranking.part, ranking.users[some], ranking.items[some], hits[some], num_relevant[some])
        )
    return judged


def sum_of_parts(values: np.ndarray, channel: Channel) -> np.ndarray:
    """The sum over parts of float64 [P, ...], to the same bits on any number of ranks. Collective.

    Each part's row is written by one rank and 0 on the others, so the sum over ranks is exact; the sum over parts is
    taken in order.
    """
    return channel.sum(torch.from_numpy(values)).cumsum(dim=0)[-1].numpy()


def held_out_split(prepared: PreparedGraph, relation: Relation) -> str:
    """The split that models are compared on: test, or valid where there is no test. Raises `DataError` without both."""
    held_out = [split for split in ("test", "valid") if prepared.num_pairs(relation, split)]
    if not held_out:
        raise DataError(
            f"{prepared.folder}: {relation.name} has no test or validation pairs, so nothing can be measured; set "
            "data.split and prepare again, or predict another relation; `dist-gat train` trains on all pairs"
        )
    return held_out[0]
