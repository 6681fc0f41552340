"""Recommendations from a saved model: the best new items of users, in external IDs.

Users go through in chunks, and the products of rows in slabs of one shape, so that a user's scores have the same bits
whoever else is asked about.

Shape legend: n users of a chunk, R representation size, k columns of the filters, m items of a block, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from dist_gat.base.errors import ConfigError
from dist_gat.data.vocabulary import encode, parse_id
from dist_gat.evaluate.topk import Known, RunningTopK, known_items
from dist_gat.filters.linear_filter import LinearFilter
from dist_gat.sampling.edge_columns import positions
from dist_gat.serve.new_items import NewItem, NewItemRows, rows_of_new_items
from dist_gat.serve.pair_scale import PairScale, open_scales
from dist_gat.serve.saved_model import RANKING_ROWS, SavedModel

SLAB, ITEM_BLOCK = 128, 4096
ALIGNED = 16  # floats of a vector of 64 bytes
# the users that a user has items in common with may be all of them, so with the linear filter fewer at a time
CHUNK, LINEAR_CHUNK = 1024, SLAB


def recommend_items(
    model: SavedModel, users: list[str], k: int, new_items: Sequence[NewItem] = ()
) -> pl.DataFrame:  # fmt: skip
    """The K best items that each user has not met: user_id, item_id, score, rank[, title].

    The score of a task that predicts ratings, clicks or counts is the prediction.

    users: external IDs as text; they are read as the type that the data set has. Raises `DataError` for an
    unknown one. new_items: candidates beside those of the graph.
    """
    ranker = open_ranker(model, k, new_items)
    tables = [ranker.empty(), *ranker.recommend(ranker.places_of(users))]
    return pl.concat(tables)


@dataclass(frozen=True)
class Ranker:
    """A saved model that is ready to recommend K items to one chunk of users after another.

    users, items: IDs of the two node types, see `SavedModel.ids`, sorted by ID. item_order: places of items by node.
    known, profiles: by part, and read once. rows: of a part, by name. new: items that are no nodes, whose numbers come
    after those of the nodes.
    """

    model: SavedModel
    k: int
    users: pl.DataFrame
    items: pl.DataFrame
    item_order: np.ndarray
    scales: list[PairScale]
    known: Callable[[int], Known]
    rows: Callable[[int], list[Tensor]]
    profiles: Callable[[int], csr_array]
    linear: LinearFilter | None
    new: NewItemRows | None = None

    @property
    def user_ids(self) -> pl.Series:
        return self.users["external_id"].alias(self.model.relation.source)

    def places_of(self, users: list[str]) -> np.ndarray:
        """int64 [n]: places of external IDs, given as text, among all. Raises `DataError` for an unknown one."""
        places = encode(pl.Series(users, dtype=pl.String), self.user_ids.cast(pl.String))
        for unknown in np.flatnonzero(places < 0)[:1]:
            parse_id(users[int(unknown)], self.user_ids)  # which raises it in words
        return places

    def empty(self) -> pl.DataFrame:
        """A table of no recommendations."""
        return self._table(self.user_ids[:0], np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))

    @property
    def chunk(self) -> int:
        """Users at a time."""
        return CHUNK if self.linear is None else LINEAR_CHUNK

    def recommend(self, places: np.ndarray) -> Iterator[pl.DataFrame]:
        """The recommendations of users at these places, int64 [n], chunk by chunk."""
        for start in range(0, len(places), self.chunk):
            yield self._recommend(places[start : start + self.chunk])

    def _recommend(self, places: np.ndarray) -> pl.DataFrame:
        nodes = self.users["node_id"].to_numpy()[places]
        rows_nR, known = self.rows_of_users(nodes)
        profiles_nN = None if self.linear is None else self.profiles_of_users(nodes)
        return self.ranked(self.user_ids.gather(places), rows_nR, known, profiles_nN)

    def ranked(self, users: pl.Series, rows_nR: Tensor, known: Known, profile_nN: csr_array | None) -> pl.DataFrame:
        """The recommendations of users by what `score_blocks` reads of them. users: their names. known: not ranked."""
        best = RunningTopK(len(users), self.k)
        for first, scores in self.score_blocks(rows_nR, profile_nN):
            best.merge(0, scores, first, known)
        return self.table_of(users, best)

    def table_of(self, users: pl.Series, best: RunningTopK) -> pl.DataFrame:
        found = best.items_UK >= 0
        scores = best.scores_UK[found].astype(np.float64)
        for scale in self.scales:
            if scale.rows == RANKING_ROWS:
                scores = scale.predictions([scale.values(scores)])
        row, column = np.nonzero(found)
        return self._table(users.gather(row), best.items_UK[found], scores, column + 1)

    def score_blocks(self, rows_nR: Tensor, profile_nN: csr_array | None) -> Iterator[tuple[int, np.ndarray]]:
        """The first item node of each block, ascending, and the scores of users for its items, float32 [n, m].

        rows_nR, profile_nN: as `rows_of_users` and `profiles_of_users` give them; the linear filter reads the latter.
        """
        model, ranges, num_users = self.model, self.model.ranges, len(rows_nR)
        slabs_nR = aligned([rows_nR], SLAB)
        companions = [] if self.linear is None or profile_nN is None else self.linear.companions(profile_nN)
        for part in range(ranges.num_parts):
            items = ranges.nodes_of_type(part, model.relation.target)
            first_node = int(ranges.starts[part])
            for first in range(items.start, items.stop, ITEM_BLOCK):
                last = min(first + ITEM_BLOCK, items.stop)
                block_mR = [rows[first - first_node : last - first_node] for rows in self.rows(part)]
                scores = products(slabs_nR, aligned(block_mR, ALIGNED))[:num_users, : last - first]
                if self.linear is not None:
                    scores += np.float32(model.linear_weight) * self.linear.scores_of_users(companions, first, last)
                yield first, scores
        if self.new is not None:
            for start in range(0, len(self.new.rows_mR), SLAB):
                of_new_mR = self.new.rows_mR[start : start + SLAB]
                scores = products(slabs_nR, aligned([of_new_mR], SLAB))[:num_users, : len(of_new_mR)]
                yield self.new.first + start, scores

    def _table(self, users: pl.Series, nodes: np.ndarray, scores: np.ndarray, rank: np.ndarray) -> pl.DataFrame:
        item_nodes = self.items["node_id"].to_numpy()
        at = self.item_order[np.searchsorted(item_nodes, nodes, sorter=self.item_order)]
        columns = {
            "user_id": users,
            "item_id": self.items["external_id"].gather(at),
            "score": scores,
            "rank": rank,
        }
        if "title" in self.items.columns:
            columns["title"] = self.items["title"].gather(at)
        return pl.DataFrame(columns)

    def rows_of_users(self, nodes: np.ndarray) -> tuple[Tensor, Known]:
        """Ranking rows of the model and of the filters side by side, [n, R + k], and known items of user nodes."""
        sizes = self.model.row_sizes
        rows_nR = torch.zeros(len(nodes), sizes[RANKING_ROWS] + sizes["spectral"])
        pairs = []
        for part, mine, users in self._by_part(nodes):
            at = torch.from_numpy(nodes[mine] - self.model.ranges.starts[part])
            rows_nR[torch.from_numpy(mine)] = torch.cat([rows[at] for rows in self.rows(part)], dim=1)
            met = self.known(part).of(users)
            pairs.append(np.stack([np.repeat(mine, np.diff(met.indptr)), met.items], axis=1))
        if self.new is not None:
            pairs.append(self._met_of_new(nodes, self.new))
        return rows_nR, known_items(np.arange(len(nodes)), pairs)

    def _met_of_new(self, nodes: np.ndarray, new: NewItemRows) -> np.ndarray:
        """int64 [m, 2]: place among user nodes, of which several may be one user, and new item that it has met."""
        order = np.argsort(nodes, kind="stable")
        starts, stops = (np.searchsorted(nodes[order], new.met_p2[:, 0], side) for side in ("left", "right"))
        place = order[positions(starts, stops - starts)]
        return np.stack([place, np.repeat(new.met_p2[:, 1], stops - starts)], axis=1)

    def profiles_of_users(self, nodes: np.ndarray) -> csr_array:
        """float32 [n, N]: the training interactions of user nodes."""
        found = list(self._by_part(nodes))
        rows = vstack([self.profiles(part)[users] for part, _, users in found])
        order = np.argsort(np.concatenate([mine for _, mine, _ in found]))
        return csr_array(csr_array(rows)[order])

    def _by_part(self, nodes: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Each part of user nodes, their places among `nodes`, and their places among the users of the part."""
        ranges, part_of = self.model.ranges, self.model.ranges.part_of(nodes)
        for part in np.unique(part_of).tolist():
            mine = np.flatnonzero(part_of == part)
            yield part, mine, nodes[mine] - ranges.nodes_of_type(part, self.model.relation.source).start


def open_ranker(model: SavedModel, k: int, new_items: Sequence[NewItem] = ()) -> Ranker:
    """Raises `ConfigError` for a number of items that is none, `StorageError` for a damaged model."""
    if k < 1:
        raise ConfigError(f"k={k}: expected a positive number of items a user")
    profiles, ranges = cache(model.user_items), model.ranges
    items = model.ids(model.relation.target)
    new = rows_of_new_items(model, new_items) if new_items else None
    if new is not None:
        added = pl.DataFrame({"external_id": [one.name for one in new_items], "node_id": new.numbers})
        items = pl.concat([items.with_columns(pl.col("external_id").cast(pl.String)), added], how="diagonal")
    return Ranker(
        model, k, model.ids(model.relation.source), items, np.argsort(items["node_id"].to_numpy()),
        list(open_scales(model).values()), cache(model.known),
        cache(model.ranking_rows), profiles,
        LinearFilter(profiles, ranges.num_parts, ranges.num_nodes) if model.linear_weight else None, new,
    )  # fmt: skip


def aligned(columns: list[Tensor], multiple: int) -> Tensor:
    """Columns [n, …] side by side, with rows of zeros up to a multiple, and columns of zeros up to whole vectors."""
    num_rows, num_columns = len(columns[0]), sum(each.shape[1] for each in columns)
    rows = torch.zeros(-(-num_rows // multiple) * multiple, -(-num_columns // ALIGNED) * ALIGNED)
    rows[:num_rows, :num_columns] = torch.cat(columns, dim=1)
    return rows


def products(rows_nR: Tensor, block_mR: Tensor) -> np.ndarray:
    """float32 [n, m] of aligned rows, slab by slab.

    The order of a sum may depend on the shape of what is multiplied, and on how rows lie in memory: with 18 columns,
    the same row gave other bits at another place of the slab.
    """
    scores = torch.empty(len(rows_nR), len(block_mR))
    for start in range(0, len(rows_nR), SLAB):
        torch.mm(rows_nR[start : start + SLAB], block_mR.T, out=scores[start : start + SLAB])
    return scores.numpy()
