"""`fennel`: parts with few edges between them, in memory that doesn't depend on the number of edges.

Users stream by with their items, several times, and each takes the part with most of its neighbours, less a penalty of
what the part already has (Fennel: Tsourakakis, Gkantsidis, Radunovic, Vojnovic: WSDM 2014; repeated as in Nishimura,
Ugander: KDD 2013). At first an item counts for every part by its share of users there, much as in the
Social Hash Partitioner (Kabiljo et al.: VLDB 2017); once users have settled, items have parts too.

Neighbours in a table are often alike: taken in order, they would fill one part after another. So a pass takes users in
buckets, drawn by hash, whose items are written to disk once.

Shape legend: U users, I items, P parts, E edges, m users of a bucket, e edges of a bucket.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from dist_gat.base.random import Purpose, hash_ids, make_key
from dist_gat.kernels.grouping import group

NUM_BUCKETS = 64
# of a part as full as the mean, in shares of a node's neighbours: the best of 1 to 16 on seven graphs
PENALTY = 4.0
# no part gets more than this times the mean of (degree + 1), where its nodes let it
SLACK = 1.03
# passes end when fewer of the users move
FEW = 0.01

Chunks = Iterable[tuple[np.ndarray, np.ndarray]]


def fennel(
    chunks: Chunks, degree: tuple[np.ndarray, np.ndarray], num_parts: int, seed: int, passes: int = 10,
    folder: Path | None = None, progress: Callable[[str], None] = lambda message: None,
) -> np.ndarray:  # fmt: skip
    """The part of every user, then of every item, int64 [U + I]: few edges between parts, even sums of (degree + 1).

    chunks: users and items of the edges, by ascending user, cut anywhere; read once. degree: int64 [U] and [I], of
    these edges. passes: over all users, at most, before items have parts and again after. folder: where 4 bytes an edge
    are kept meanwhile, by default the system's place for temporary files. The result is a function of the edges, the
    number of parts and the seed.
    """
    user_degree, item_degree = degree
    num_items = len(item_degree)
    bucket_of = hash_ids(make_key(seed, Purpose.ASSIGNMENT), np.arange(len(user_degree))) % np.uint64(NUM_BUCKETS)
    with tempfile.TemporaryDirectory(prefix="dist-gat-fennel-", dir=folder) as name:
        buckets = _write_buckets(chunks, bucket_of.astype(np.int64), user_degree, num_items, Path(name))
        state = _State(
            user_part=np.full(len(user_degree), -1),
            item_part=np.full(num_items, -1),
            user_counts_IP=np.zeros((num_items, num_parts), np.int32),
            load_P=np.zeros(num_parts, np.int64),
        )
        _settle_users(state, buckets, degree, passes, progress)
        _settle_both(state, buckets, degree, passes, progress)
    for part, degrees in ((state.user_part, user_degree), (state.item_part, item_degree)):
        _fill(np.flatnonzero(degrees == 0), part, state.load_P)
    return np.concatenate([state.user_part, state.item_part])


def settle(
    parts: np.ndarray, starts: np.ndarray, edges: Sequence[tuple[int, int, Callable[[], Chunks]]],
    degree: Sequence[np.ndarray], num_parts: int,
) -> np.ndarray:  # fmt: skip
    """The parts of users and items, and of the nodes of further types: those of most of their neighbours.

    One type after another, the nodes of most edges first, each with the penalty and the room that `fennel` has. edges:
    as in `Graph`. Neighbours of later types don't count.
    """
    found = list(np.split(parts, [starts[1]]))
    for kind in range(2, len(degree)):
        size = len(degree[kind])
        counts_NP = np.zeros((size, num_parts), np.int32)
        for one, other, chunks in edges:
            if kind in (one, other) and min(one, other) < kind and max(one, other) == kind:
                near = found[min(one, other)]
                for ends in chunks():
                    own, neighbor = ends if one == kind else ends[::-1]
                    np.add.at(counts_NP, (own, near[neighbor]), 1)
        of_type, load_P = np.full(size, -1), np.zeros(num_parts, np.int64)
        order = np.argsort(-degree[kind], kind="stable")
        order = order[counts_NP.sum(axis=1)[order] > 0]
        _move_items(order, degree[kind], of_type, counts_NP, load_P, (degree[kind].sum() + size) / num_parts)
        _fill(np.flatnonzero(of_type < 0), of_type, load_P)
        found.append(of_type)
    return np.concatenate(found)


def fennel_bytes(sizes: Sequence[int], num_parts: int) -> int:
    """About what `fennel` takes at its peak, beside chunks and degrees. sizes: nodes of each type."""
    return 4 * max(sizes[1:]) * num_parts + 40 * sum(sizes)


@dataclass(frozen=True)
class _Bucket:
    """users: int64 [m], ascending; file: their items, int32 [e], a user's after those of the one before."""

    users: np.ndarray
    file: Path

    def items(self) -> np.ndarray:
        return np.fromfile(self.file, np.int32)


@dataclass(frozen=True)
class _State:
    """user_part: int64 [U]; item_part: int64 [I]; -1 where there is none yet. user_counts_IP: the users of each item in
    each part; load_P: the sum of (degree + 1) over the nodes that are in each part."""

    user_part: np.ndarray
    item_part: np.ndarray
    user_counts_IP: np.ndarray
    load_P: np.ndarray


def _write_buckets(
    chunks: Chunks, bucket_of: np.ndarray, user_degree: np.ndarray, num_items: int, folder: Path
) -> list[_Bucket]:
    assert num_items <= np.iinfo(np.int32).max, "the table of counts would not fit any memory either"
    users = group(bucket_of, NUM_BUCKETS)
    buckets = [_Bucket(users[number], folder / f"{number}") for number in range(NUM_BUCKETS)]
    with ExitStack() as stack:
        files = [stack.enter_context(bucket.file.open("wb")) for bucket in buckets]
        for user, item in chunks:
            for file, edges in zip(files, group(bucket_of[user], NUM_BUCKETS), strict=True):
                item[edges].astype(np.int32).tofile(file)
    return [_Bucket(users[user_degree[users] > 0], bucket.file) for bucket, users in zip(buckets, users, strict=True)]


def _settle_users(
    state: _State, buckets: list[_Bucket], degree: tuple[np.ndarray, np.ndarray], passes: int,
    progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Users take parts, by shares of items."""
    mean = (degree[0].sum() + len(degree[0])) / len(state.load_P)
    for number in range(passes):
        moved = _pass(state, buckets, degree, mean, False)
        progress(f"fennel: pass {number + 1}, {moved:.1%} of users moved")
        if moved < FEW:
            break


def _settle_both(
    state: _State, buckets: list[_Bucket], degree: tuple[np.ndarray, np.ndarray], passes: int,
    progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Items take parts, the popular first, and users again."""
    mean = sum(int(degrees.sum()) + len(degrees) for degrees in degree) / len(state.load_P)
    order = np.argsort(-degree[1], kind="stable")
    order = order[degree[1][order] > 0]
    _move_items(order, degree[1], state.item_part, state.user_counts_IP, state.load_P, mean)
    for number in range(passes):
        moved = _pass(state, buckets, degree, mean, True)
        _move_items(order, degree[1], state.item_part, state.user_counts_IP, state.load_P, mean)
        progress(f"fennel: pass {number + 1} with items, {moved:.1%} of users moved")
        if moved < FEW:
            break


def _pass(
    state: _State, buckets: list[_Bucket], degree: tuple[np.ndarray, np.ndarray], mean: float, by_item_part: bool
) -> float:
    """All users take the best part, one after another; the share of users that moved."""
    moved = 0
    for bucket in buckets:
        moved += _move_users(
            bucket.users, bucket.items(), *degree, state.user_part, state.item_part, state.user_counts_IP,
            state.load_P, mean, by_item_part,
        )  # fmt: skip
    return moved / max(sum(len(bucket.users) for bucket in buckets), 1)


@njit(nogil=True, cache=True)
def _move_users(  # type: ignore[no-untyped-def]
    users, items, user_degree, item_degree, user_part, item_part, user_counts_IP, load_P, mean, by_item_part
):
    """How many of the users moved. by_item_part: an item counts for its own part, not for all by shares of users."""
    score_P = np.empty(load_P.shape[0])
    moved, stop = 0, 0
    for k in range(users.shape[0]):
        user = users[k]
        start, stop = stop, stop + user_degree[user]
        old = user_part[user]
        if old >= 0:
            load_P[old] -= user_degree[user] + 1
            for edge in range(start, stop):
                user_counts_IP[items[edge], old] -= 1
        score_P[:] = 0.0
        for edge in range(start, stop):
            item = items[edge]
            if by_item_part:
                score_P[item_part[item]] += 1.0
            else:
                weight = 1.0 / item_degree[item]
                for part in range(score_P.shape[0]):
                    score_P[part] += user_counts_IP[item, part] * weight
        best = _best_part(score_P, user_degree[user], load_P, mean)
        for edge in range(start, stop):
            user_counts_IP[items[edge], best] += 1
        load_P[best] += user_degree[user] + 1
        user_part[user] = best
        moved += best != old
    return moved


@njit(nogil=True, cache=True)
def _move_items(order, item_degree, item_part, user_counts_IP, load_P, mean):  # type: ignore[no-untyped-def]
    for k in range(order.shape[0]):
        item = order[k]
        if item_part[item] >= 0:
            load_P[item_part[item]] -= item_degree[item] + 1
        best = _best_part(user_counts_IP[item], item_degree[item], load_P, mean)
        load_P[best] += item_degree[item] + 1
        item_part[item] = best


@njit(nogil=True, cache=True)
def _best_part(score_P, degree, load_P, mean):  # type: ignore[no-untyped-def]
    """The largest share of neighbours less penalty, of the parts with room for the node; else the emptiest."""
    best, best_score, emptiest = -1, -np.inf, 0
    for part in range(load_P.shape[0]):
        if load_P[part] < load_P[emptiest]:
            emptiest = part
        score = score_P[part] / degree - PENALTY * load_P[part] / mean
        if score > best_score and load_P[part] + degree + 1 <= SLACK * mean:
            best, best_score = part, score
    return best if best >= 0 else emptiest


@njit(nogil=True, cache=True)
def _fill(nodes, part_of, load_P):  # type: ignore[no-untyped-def]
    """Nodes without a neighbour go where there is room."""
    for k in range(nodes.shape[0]):
        emptiest = np.argmin(load_P)
        part_of[nodes[k]] = emptiest
        load_P[emptiest] += 1
