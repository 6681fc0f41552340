"""`Ranker`: a saved model that is opened once and ranks items for one chunk of users after another.

Every score is a product of two rows, see `dist_gat.kernels.products`, and a term of the linear filter, each computed
pair by pair: it has the same bits whoever else is asked about and whichever items are ranked.

Shape legend: n users of a chunk, R representation size, k columns of the filters, m items of a block, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import polars as pl
from scipy.sparse import csr_array, vstack

from dist_gat.base.errors import ConfigError
from dist_gat.evaluate.topk import Known, RunningTopK, known_items
from dist_gat.filters.linear_scores import LinearScores, open_linear_scores
from dist_gat.kernels.products import add_products
from dist_gat.sampling.edge_columns import positions
from dist_gat.serve.id_index import IdIndex, open_ids
from dist_gat.serve.new_items import NewItemRows
from dist_gat.serve.pair_scale import PairScale, open_scales
from dist_gat.serve.saved_model import RANKING_ROWS, SavedModel

# the users that a user has items in common with may be all of them, so with the linear filter fewer at a time
CHUNK, LINEAR_CHUNK = 1024, 128
# items of a block: the fewest, and how many scores a block has otherwise
ITEM_BLOCK, BLOCK_SCORES = 4096, 1 << 22


@dataclass(frozen=True)
class RankedUsers:
    """What ranking reads of n users, known or new.

    rows_nR: float32 [n, R + k], ranking rows of the model and of the filters side by side. known: items that are not
    ranked. profile_nN: float32, training interactions for the linear filter; None: it has no part. by_popularity: bool
    [n], those of whom nothing is known, who get the most popular items.
    """

    rows_nR: np.ndarray
    known: Known
    profile_nN: csr_array | None
    by_popularity: np.ndarray

    def __len__(self) -> int:
        return len(self.rows_nR)

    def at(self, place: int) -> RankedUsers:
        """One of them."""
        profile_1N = None if self.profile_nN is None else csr_array(self.profile_nN[[place]])
        one = slice(place, place + 1)
        return RankedUsers(self.rows_nR[one], self.known.of(np.array([place])), profile_1N, self.by_popularity[one])


@dataclass(frozen=True)
class Ranker:
    """users, items: IDs of the two node types. titles: of the items, in the order of their IDs.

    known, profiles, degrees: by part, rows: of a part, ranking rows of the model and of the filters; each is read once.
    new: items that are no nodes, whose numbers come after those of the nodes.
    """

    model: SavedModel
    users: IdIndex
    items: IdIndex
    titles: pl.Series | None
    scales: list[PairScale]
    known: Callable[[int], Known]
    rows: Callable[[int], list[np.ndarray]]
    profiles: Callable[[int], csr_array]
    degrees: Callable[[int], np.ndarray]
    linear: LinearScores | None
    new: NewItemRows | None = None

    def beside(self, new: NewItemRows) -> Ranker:
        """The same with candidates beside those of the graph. IDs of items are text then."""
        columns = {"id": self.items.external_ids.cast(pl.String), "node": self.items.nodes}
        if self.titles is not None:
            columns["title"] = self.titles
        added = pl.DataFrame({"id": new.names, "node": new.numbers})
        every = pl.concat([pl.DataFrame(columns), added], how="diagonal").sort("id")
        index = IdIndex(self.items.kind, every["id"].alias(self.items.external_ids.name), every["node"].to_numpy())
        return replace(self, items=index, titles=None if self.titles is None else every["title"], new=new)

    @property
    def chunk(self) -> int:
        """Users at a time."""
        return CHUNK if self.linear is None else LINEAR_CHUNK

    def empty(self) -> pl.DataFrame:
        """A table of no recommendations."""
        return self.table_of(self.users.external_ids[:0], RunningTopK(0, 1))

    def recommend(self, nodes: np.ndarray, k: int) -> Iterator[pl.DataFrame]:
        """The K best new items of user nodes, int64 [n], chunk by chunk: user_id, item_id, score, rank[, title].

        The score of a task that predicts ratings, clicks or counts is the prediction.
        """
        for start in range(0, len(nodes), self.chunk):
            own = nodes[start : start + self.chunk]
            yield self.table_of(self.users.names_of(own), self.best(self.known_users(own), k))

    def known_users(
        self, nodes: np.ndarray, filter_seen: bool = True, excluded: np.ndarray | None = None
    ) -> RankedUsers:
        """Users of the graph, int64 [n]. excluded: int64, item nodes that are not ranked either."""
        pairs = [excluded_pairs(len(nodes), excluded)]
        if filter_seen:
            pairs += self.met_by(nodes)
        profile_nN = None if self.linear is None else self.profiles_of(nodes)
        known = known_items(np.arange(len(nodes)), pairs)
        return RankedUsers(self.rows_of_users(nodes), known, profile_nN, np.zeros(len(nodes), bool))

    def best(self, users: RankedUsers, k: int) -> RunningTopK:
        """The K best of all items."""
        best = RunningTopK(len(users), positive(k))
        for first, scores_nm in self.score_blocks(users):
            best.merge(0, scores_nm, first, users.known)
        return best

    def best_among(self, users: RankedUsers, k: int, items: np.ndarray) -> RunningTopK:
        """The K best of some item nodes, int64, distinct and ascending."""
        best = RunningTopK(len(users), positive(k))
        places = np.searchsorted(items, users.known.items)
        is_one = places < len(items)
        is_one[is_one] = items[places[is_one]] == users.known.items[is_one]
        indptr = np.append(0, np.cumsum(is_one))[users.known.indptr]
        best.merge(0, self.scores_of(users, items), 0, Known(indptr, places[is_one]))
        found = best.items_UK >= 0
        best.items_UK[found] = items[best.items_UK[found]]
        return best

    def score_blocks(self, users: RankedUsers) -> Iterator[tuple[int, np.ndarray]]:
        """The first item node of each block, ascending, and the scores of users for its items, float32 [n, m]."""
        model, ranges = self.model, self.model.ranges
        sides = self._sides(users.rows_nR)
        companions = self._companions(users)
        size = max(ITEM_BLOCK, BLOCK_SCORES // max(1, len(users)))
        for part in range(ranges.num_parts):
            items, first_node = ranges.nodes_of_type(part, model.relation.target), int(ranges.starts[part])
            for first in range(items.start, items.stop, size):
                last = min(first + size, items.stop)
                scores_nm = np.zeros((len(users), last - first), np.float32)
                block = [rows[first - first_node : last - first_node] for rows in self.rows(part)]
                add_products(sides, block, scores_nm)
                if self.linear is not None:
                    of_linear = self.linear.scores(companions, np.arange(first, last))
                    scores_nm += np.float32(model.linear_weight) * of_linear
                yield first, self._by_popularity(users, scores_nm, np.arange(first, last))
        if self.new is not None:
            yield self.new.first, self.scores_of(users, self.new.numbers)

    def scores_of(self, users: RankedUsers, items: np.ndarray) -> np.ndarray:
        """float32 [n, m]: the scores of users for item nodes, int64 [m], in any order."""
        scores_nm, is_new = np.zeros((len(users), len(items)), np.float32), items >= self.model.ranges.num_nodes
        add_products(self._sides(users.rows_nR), self._sides(self.rows_of_items(items)), scores_nm)
        if self.linear is not None and not is_new.all():
            of_linear = self.linear.scores(self._companions(users), items[~is_new])
            scores_nm[:, ~is_new] += np.float32(self.model.linear_weight) * of_linear
        return self._by_popularity(users, scores_nm, items)

    def _sides(self, rows_nR: np.ndarray) -> list[np.ndarray]:
        """The columns of `rows` of a part, one after the other."""
        sizes = [rows.shape[1] for rows in self.rows(0)]
        return [np.ascontiguousarray(side) for side in np.split(rows_nR, np.cumsum(sizes)[:-1], axis=1)]

    def _companions(self, users: RankedUsers) -> list[csr_array]:
        return [] if self.linear is None or users.profile_nN is None else self.linear.companions(users.profile_nN)

    def _by_popularity(self, users: RankedUsers, scores_nm: np.ndarray, items: np.ndarray) -> np.ndarray:
        if users.by_popularity.any():
            scores_nm[users.by_popularity] = self.popularity(items)
        return scores_nm

    def popularity(self, items: np.ndarray) -> np.ndarray:
        """float32 [m]: the interactions of items."""
        found = np.zeros(len(items), np.float32)
        for part, mine, nodes in self._by_part(items[items < self.model.ranges.num_nodes]):
            found[mine] = self.degrees(part)[nodes - int(self.model.ranges.starts[part]), 0]
        if self.new is not None and (is_new := items >= self.new.first).any():
            found[is_new] = self.new.degree_m[items[is_new] - self.new.first]
        return found

    def values_of(self, scores: np.ndarray) -> np.ndarray:
        """float64: scores as they are told, which are predictions in the unit of the labels where a task has one."""
        values = scores.astype(np.float64)
        for scale in self.scales:
            if scale.rows == RANKING_ROWS:
                values = scale.predictions([scale.values(values)])
        return values

    def table_of(self, users: pl.Series, best: RunningTopK) -> pl.DataFrame:
        """users: their names."""
        found = best.items_UK >= 0
        row, column = np.nonzero(found)
        at = self.items.places_of(best.items_UK[found])
        columns = {
            "user_id": users[row], "item_id": self.items.external_ids[at],
            "score": self.values_of(best.scores_UK[found]), "rank": column + 1,
        }  # fmt: skip
        if self.titles is not None:
            columns["title"] = self.titles[at]
        return pl.DataFrame(columns)

    def rows_of_users(self, nodes: np.ndarray) -> np.ndarray:
        """float32 [n, R + k]: ranking rows of the model and of the filters side by side, of nodes of the graph."""
        rows_nR = np.zeros((len(nodes), sum(rows.shape[1] for rows in self.rows(0))), np.float32)
        for part, mine, own in self._by_part(nodes):
            at = own - int(self.model.ranges.starts[part])
            rows_nR[mine] = np.concatenate([rows[at] for rows in self.rows(part)], axis=1)
        return rows_nR

    def rows_of_items(self, items: np.ndarray) -> np.ndarray:
        """float32 [m, R + k]: the same of items, which may be new."""
        if self.new is None:
            return self.rows_of_users(items)
        is_new = items >= self.new.first
        rows_mR = self.rows_of_users(np.where(is_new, 0, items))
        rows_mR[is_new] = self.new.rows_mR.numpy()[items[is_new] - self.new.first]
        return rows_mR

    def met_by(self, nodes: np.ndarray) -> list[np.ndarray]:
        """int64 [m, 2]: place among user nodes, of which several may be one user, and an item that it has met."""
        pairs = []
        for part, mine, own in self._by_part(nodes):
            met = self.known(part).of(own - self._first_user(part))
            pairs.append(np.stack([np.repeat(mine, np.diff(met.indptr)), met.items], axis=1))
        if self.new is not None:
            order, met_p2 = np.argsort(nodes, kind="stable"), self.new.met_p2
            starts, stops = (np.searchsorted(nodes[order], met_p2[:, 0], side) for side in ("left", "right"))
            place = order[positions(starts, stops - starts)]
            pairs.append(np.stack([place, np.repeat(met_p2[:, 1], stops - starts)], axis=1))
        return pairs

    def profiles_of(self, nodes: np.ndarray) -> csr_array:
        """float32 [n, N]: the training interactions of user nodes."""
        found = list(self._by_part(nodes))
        if not found:
            return csr_array((0, self.model.ranges.num_nodes), dtype=np.float32)
        rows = vstack([self.profiles(part)[own - self._first_user(part)] for part, _, own in found])
        order = np.argsort(np.concatenate([mine for _, mine, _ in found]))
        return csr_array(csr_array(rows)[order])

    def _first_user(self, part: int) -> int:
        return self.model.ranges.nodes_of_type(part, self.model.relation.source).start

    def _by_part(self, nodes: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Each part of some nodes, their places among `nodes`, and the nodes."""
        part_of = self.model.ranges.part_of(nodes)
        for part in np.unique(part_of).tolist():
            mine = np.flatnonzero(part_of == part)
            yield part, mine, nodes[mine]


def open_ranker(model: SavedModel) -> Ranker:
    """Raises `StorageError` for a damaged model."""
    profiles, ranges = cache(model.user_items), model.ranges
    items = model.ids(model.relation.target)
    linear = None
    if model.linear_weight:
        linear = open_linear_scores(profiles, ranges.num_parts, ranges.num_nodes)
    index = IdIndex(model.relation.target, items["external_id"], items["node_id"].to_numpy())
    return Ranker(
        model, open_ids(model, model.relation.source), index, items["title"] if "title" in items.columns else None,
        list(open_scales(model).values()), cache(model.known),
        cache(lambda part: [rows.numpy() for rows in model.ranking_rows(part)]), profiles, cache(model.degrees),
        linear,
    )  # fmt: skip


def excluded_pairs(num_users: int, excluded: np.ndarray | None) -> np.ndarray:
    """int64 [m, 2]: each of some users with each of the items."""
    if excluded is None or not len(excluded):
        return np.zeros((0, 2), np.int64)
    return np.stack([np.repeat(np.arange(num_users), len(excluded)), np.tile(excluded, num_users)], axis=1)


def positive(k: int) -> int:
    """Raises `ConfigError` for a number of items that is none."""
    if k < 1:
        raise ConfigError(f"k={k}: expected a positive number of items a user")
    return k
