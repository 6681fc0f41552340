"""Beyond accuracy: how much of the catalogue is recommended, how little known and how unlike each other the items are.

Over the lists of the K best items of the users with interactions in the split:
coverage@K   distinct items in all lists / all items (Ge, Delgado-Battenfeld and Jannach, RecSys 2010)
novelty@K    mean of -log2 p(i), p(i) the share of users who met item i in training; an item that nobody met counts as
             met by one (Zhou et al., PNAS 2010)
diversity@K  mean over pairs of a list of 1 - cos(z_i, z_j) of their representations (Ziegler et al., WWW 2005; Vargas
             and Castells, RecSys 2011), 0 for a list of one item
Novelty and diversity are computed for each list and averaged over the lists.

Shape legend: U users, n users of a chunk, K best items, R representation size, O own nodes, P parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dist_gat.evaluate.degrees import degrees_of
from dist_gat.evaluate.full_ranking import JudgedRanking, sum_of_parts
from dist_gat.evaluate.inference import fetch_rows
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.long_work import padded
from dist_gat.exchange.route import exchange, route_to
from dist_gat.exchange.worker import Worker
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.ownership import Ownership

# float64 cells in the representations of the lists of one chunk
CHUNK_CELLS = 1 << 22


def beyond_accuracy(
    judged: Sequence[JudgedRanking], rows_OR: Tensor, store: GraphStore, worker: Worker, relation: Relation,
    ks: Sequence[int],
) -> dict[str, float]:  # fmt: skip
    """`{"coverage@K": ..., "novelty@K": ..., "diversity@K": ...}` for each K. Collective.

    rows_OR: representations of this rank's nodes. The same bits on any number of ranks.
    """
    channel = worker.control
    num_parts, at_ks = store.ranges.num_parts, np.array(ks) - 1
    novelty, diversity = np.zeros((num_parts, len(ks))), np.zeros((num_parts, len(ks)))
    num_lists = np.zeros((num_parts, 1))
    information = self_information(judged, store, relation)
    for part, values_UK in zip(judged, information, strict=True):
        count_UK = np.maximum((part.items >= 0).cumsum(axis=1), 1)
        novelty[part.part] = (values_UK.cumsum(axis=1) / count_UK)[:, at_ks].sum(axis=0)
        num_lists[part.part] = len(part.items)
    chunks = padded(chunks_of(judged, rows_OR.shape[1]), (0, np.zeros((0, max(ks)), np.int64)), channel)
    for part_number, items_nK in worker.steps("diversity of lists", chunks, len(chunks)):
        diversity[part_number] += list_diversity(items_nK, rows_OR, store.ownership, worker.rows)[:, at_ks].sum(axis=0)
    *totals, count = sum_of_parts(np.concatenate([novelty, diversity, num_lists], axis=1), channel).tolist()
    values = [distinct_items(judged, store, channel, k) / max(store.ranges.count(relation.target), 1) for k in ks]
    values += [total / max(count, 1) for total in totals]
    names = [f"{name}@{k}" for name in ("coverage", "novelty", "diversity") for k in ks]
    return dict(zip(names, values, strict=True))


def self_information(judged: Sequence[JudgedRanking], store: GraphStore, relation: Relation) -> list[np.ndarray]:
    """-log2 p of every item of every list, float64 [U, K], 0 where there is no item. Collective."""
    items = np.concatenate([part.items for part in judged])
    share = np.maximum(degrees_of(store, items), 1) / store.ranges.count(relation.source)
    return np.split(np.where(items >= 0, -np.log2(share), 0.0), np.cumsum([len(part.items) for part in judged])[:-1])


def distinct_items(judged: Sequence[JudgedRanking], store: GraphStore, channel: Channel, k: int) -> int:
    """Different items in the first `k` places of all lists of all ranks: each is counted by its owner. Collective."""
    items = np.unique(np.concatenate([part.items[:, :k].ravel() for part in judged]))
    items = items[items >= 0]
    owner = store.transport.rank_of(store.ranges.part_of(items))
    owned = exchange(torch.from_numpy(items), route_to(torch.from_numpy(owner), store.channel))
    return int(channel.sum(torch.tensor([len(owned.unique())])))


def chunks_of(judged: Sequence[JudgedRanking], row_size: int) -> list[tuple[int, np.ndarray]]:
    """(part, items [n, K]) of a few users at a time, cut inside parts."""
    chunks = []
    for part in judged:
        step = max(CHUNK_CELLS // (part.items.shape[1] * row_size), 1)
        chunks += [(part.part, part.items[start : start + step]) for start in range(0, len(part.items), step)]
    return chunks


def list_diversity(items_nK: np.ndarray, rows_OR: Tensor, ownership: Ownership, channel: Channel) -> np.ndarray:
    """float64 [n, K]: the diversity of the first 1, 2, … K items of each list. Collective.

    Over the pairs of a list of unit rows, Σ_{i≠j} z_i · z_j = |Σ_i z_i|² - Σ_i |z_i|².
    """
    present_nK = items_nK >= 0
    distinct, place = np.unique(items_nK[present_nK], return_inverse=True)
    rows_SR = fetch_rows(rows_OR, torch.from_numpy(distinct), ownership, channel).double().cpu().numpy()
    # a row of zeros has the cosine 0 with any other
    unit_SR = rows_SR / np.maximum(np.sqrt((rows_SR**2).sum(axis=1, keepdims=True)), np.finfo(np.float64).tiny)
    unit_nKR = np.zeros((*items_nK.shape, rows_OR.shape[1]))
    unit_nKR[present_nK] = unit_SR[place]
    sum_nKR = unit_nKR.cumsum(axis=1)
    both = (sum_nKR**2).sum(axis=2) - (unit_nKR**2).sum(axis=2).cumsum(axis=1)
    count_nK = present_nK.cumsum(axis=1)
    pairs_nK = count_nK * (count_nK - 1)
    return np.where(pairs_nK > 0, 1.0 - both / np.maximum(pairs_nK, 1), 0.0)
