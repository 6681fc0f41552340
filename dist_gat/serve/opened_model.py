"""`OpenedModel`: a saved model that is opened once and answers many questions, from its own folder alone.

Questions are answered together where they can be, and each has the bits that it has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array, vstack

from dist_gat.base.errors import ConfigError, DataError, DistGatError, StorageError
from dist_gat.base.progress_listener import Progress
from dist_gat.base.storage import MANIFEST, sha256_of
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.evaluate.topk import Known, RunningTopK
from dist_gat.kernels.threads import cut
from dist_gat.serve.given_nodes import NewRows
from dist_gat.serve.item_index import ItemIndex, build_index
from dist_gat.serve.new_edges import NO_EDGES, EdgeRows
from dist_gat.serve.new_items_file import new_item_rows
from dist_gat.serve.new_nodes import NewNodes, open_new_nodes
from dist_gat.serve.new_users import NewUsers, open_new_users
from dist_gat.serve.new_users_file import read_histories
from dist_gat.serve.ranker import RankedUsers, Ranker, open_ranker, positive
from dist_gat.serve.saved_model import SavedModel, open_model
from dist_gat.serve.similar_nodes import SimilarNodes, open_similar

TRIES = 3


@dataclass(frozen=True)
class Question:
    """Whom to recommend how many items: users of the graph, by external IDs as text, or new ones, as
    `dist_gat.serve.new_users_file` reads them.

    candidates: the only items that are ranked; None: all. exclude: items that are not. filter_seen: leave out what a
    user has met. new_items: further items that are ranked, as `dist_gat.serve.new_items_file` reads them.
    """

    users: Sequence[str] = ()
    k: int = 10
    new_users: NewRows = ()
    candidates: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    filter_seen: bool = True
    new_items: NewRows | None = None


@dataclass(frozen=True)
class Answer:
    """ranker: that found it. users: their names, in the order of the question. best: their items. notes: what was left
    out, in words."""

    ranker: Ranker
    users: pl.Series
    best: RunningTopK
    notes: list[str] = field(default_factory=list)

    def table(self) -> pl.DataFrame:
        """user_id, item_id, score, rank[, title]"""
        return self.ranker.table_of(self.users, self.best)


@dataclass(frozen=True)
class _Read:
    """A question whose IDs are nodes. candidates: int64, ascending; None: all."""

    users: pl.Series
    ranked: RankedUsers
    k: int
    candidates: np.ndarray | None


@dataclass(frozen=True)
class OpenedModel:
    """digest: of the model's manifest, which tells this model from an earlier one of the run. similar_nodes: of the
    same. new_nodes: what the model says of users and items that it doesn't know, opened once; raises `ConfigError`
    where it has no answer. index: finds the items that are ranked; None: all are."""

    ranker: Ranker
    digest: str
    similar_nodes: SimilarNodes
    new_nodes: Callable[[], NewNodes]
    index: ItemIndex | None = None

    @property
    def saved(self) -> SavedModel:
        return self.ranker.model

    @cached_property
    def new_users(self) -> NewUsers:
        """Raises `ConfigError` for a model that has no answer for new users."""
        return open_new_users(self.ranker, self.new_nodes())

    def beside(
        self, new_items: NewRows | None, progress: Progress = lambda message: None,
        new_edges: Mapping[str, EdgeRows] = NO_EDGES,
    ) -> OpenedModel:  # fmt: skip
        """The same with candidates that training never saw. Raises `DataError` for what can't be read."""
        rows = new_item_rows(new_items, self.new_nodes(), progress, new_edges)
        return self if rows is None else replace(self, ranker=self.ranker.beside(rows))

    def load(self) -> None:
        """Open all files of the model now, so that none is missing when another model has taken its place."""
        for part in range(self.saved.ranges.num_parts):
            self.ranker.rows(part)
            self.ranker.known(part)
            if self.ranker.linear is not None:
                self.ranker.profiles(part)
                self.ranker.linear.by_item(part)
            self.similar_nodes.scales(part)
            if "new_users" in self.saved.manifest:
                self.ranker.degrees(part)
        with suppress(ConfigError):  # no answer for new users and items
            self.new_nodes().load()

    def recommend(
        self, users: Sequence[Any] = (), k: int = 10, *, new_users: NewRows | str | None = None,
        new_items: NewRows | str | None = None, candidates: Sequence[Any] | None = None, exclude: Sequence[Any] = (),
        filter_seen: bool = True, progress: Progress = lambda message: None,
        new_edges: Mapping[str, EdgeRows] = NO_EDGES,
    ) -> pl.DataFrame:  # fmt: skip
        """The K best items of each user: columns user_id, item_id, score, rank[, title].

        The arguments are those of `Question`. A user for whom no item is left has no row. Raises `DataError` for an
        unknown user, and for new users and items that can't be read. `progress` hears what was left out. new_edges: of
        new items, by relation, see `dist_gat.serve.new_edges`.
        """
        if new_items is not None or new_edges:
            given = None if new_items is None else source_of(new_items)
            return self.beside(given, progress, new_edges).recommend(
                users, k, new_users=new_users, candidates=candidates, exclude=exclude, filter_seen=filter_seen,
                progress=progress,
            )  # fmt: skip
        if new_users is not None and len(users):
            raise ConfigError("new_users: goes without users; ask for known users in a call of its own")
        among = None if candidates is None else [str(item) for item in candidates]
        whole = Question(
            [str(user) for user in users], k, () if new_users is None else source_of(new_users), among,
            [str(item) for item in exclude], filter_seen,
        )  # fmt: skip
        tables, notes = [], list[str]()
        for read in self._read(whole, new_users is not None, notes, self.ranker.chunk):
            while notes:
                progress(notes.pop(0))
            tables.append(self.ranker.table_of(read.users, self._best(read)))
        return pl.concat(tables)

    def answer(self, questions: Sequence[Question]) -> list[Answer | DistGatError]:
        """Each answer, or what is wrong with the question: the items of `recommend`, to the bit."""
        found: dict[int, Answer | DistGatError] = {}
        waiting: list[tuple[int, _Read, list[str]]] = []
        for number, question in enumerate(questions):
            notes: list[str] = []
            try:
                added = question.new_items
                model = self if added is None else self.beside(added, notes.append)
                (read,) = model._read(question, not question.users, notes)
            except DistGatError as err:
                found[number] = err
                continue
            if model is self and read.candidates is None:
                waiting.append((number, read, notes))
            else:
                found[number] = Answer(model.ranker, read.users, model._best(read), notes)
        for batch in batches(waiting, self.ranker.chunk):
            reads = [read for _, read, _ in batch]
            best = self._best_of_all(joined([read.ranked for read in reads]), max(read.k for read in reads))
            last = 0
            for number, read, notes in batch:
                first, last = last, last + len(read.users)
                found[number] = Answer(self.ranker, read.users, best.part(slice(first, last), read.k), notes)
        return [found[number] for number in range(len(questions))]

    def score(self, user: Any, items: Sequence[Any], new_user: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """The scores of items for one user, known or new: columns item_id, score, in the order of the items.

        They are those of `recommend`, to the bit, whether or not the user has met the item. Raises `DataError` for an
        unknown user or item.
        """
        nodes = self.ranker.items.require_texts([str(item) for item in items])
        question = Question([str(user)]) if new_user is None else Question(new_users=[new_user])
        (read,) = self._read(question, new_user is not None, [])
        scores = self.ranker.values_of(self.ranker.scores_of(read.ranked, nodes)[0])
        return pl.DataFrame({"item_id": self.ranker.items.names_of(nodes), "score": scores})

    def similar(
        self, *, items: Sequence[Any] | None = None, users: Sequence[Any] | None = None, k: int = 10
    ) -> pl.DataFrame:
        """The K items that are most like each of some items, or users like users: columns item_id, similar_id,
        cosine, rank, or user_id and so on. Raises `DataError` for an unknown ID."""
        if (items is None) == (users is None):
            raise ConfigError("similar: expected either items or users")
        name, index, asked = ("user_id", self.ranker.users, users) if items is None else (
            "item_id", self.ranker.items, items
        )  # fmt: skip
        texts = [str(one) for one in asked or ()]
        nodes = index.require_texts(texts)
        if (nodes >= self.saved.ranges.num_nodes).any():
            raise DataError("similar: new items can't be asked about; ask about items that the model knows")
        best = self.similar_nodes.best(index.kind, nodes, k)
        found = best.items_UK >= 0
        row, column = np.nonzero(found)
        return pl.DataFrame({
            name: index.names_of(nodes[row]), "similar_id": index.names_of(best.items_UK[found]),
            "cosine": best.scores_UK[found].astype(np.float64), "rank": column + 1,
        })  # fmt: skip

    def _best(self, read: _Read) -> RunningTopK:
        if read.candidates is None:
            return self._best_of_all(read.ranked, read.k)
        return self.ranker.best_among(read.ranked, read.k, read.candidates)

    def _best_of_all(self, users: RankedUsers, k: int) -> RunningTopK:
        if self.index is None:
            return self.ranker.best(users, k)
        best = self.index.best(users, k)
        if self.ranker.new is not None:  # which the index doesn't have
            numbers = self.ranker.new.numbers
            best.merge(0, self.ranker.scores_of(users, numbers), int(numbers[0]), users.known)
        return best

    def _read(self, question: Question, is_new: bool, notes: list[str], size: int | None = None) -> Iterator[_Read]:
        """Chunks of `size` users, or all at once. Adds to the notes what is left out."""
        excluded, candidates = self._items_of(question.exclude, "exclude", notes), None
        if question.candidates is not None:
            candidates = self._items_of(question.candidates, "candidates", notes)
        k = positive(question.k)
        if is_new:
            histories = read_histories(question.new_users, self.new_users, notes.append)
            self._tell_of_unknown(histories, notes)
            for chunk in cut(max(1, len(histories)), size or max(1, len(histories))):
                own = histories[chunk]
                names = pl.Series("user_id", [history.name for history in own], dtype=pl.String)
                yield _Read(names, self.new_users.ranked(own, question.filter_seen, excluded), k, candidates)
            return
        nodes = self.ranker.users.require_texts(question.users)
        for chunk in cut(max(1, len(nodes)), size or max(1, len(nodes))):
            ranked = self.ranker.known_users(nodes[chunk], question.filter_seen, excluded)
            yield _Read(self.ranker.users.names_of(nodes[chunk]), ranked, k, candidates)

    def _items_of(self, items: Sequence[str], what: str, notes: list[str]) -> np.ndarray:
        """int64: item nodes, ascending, each once. Notes what the model doesn't know."""
        if not len(items):
            return np.zeros(0, np.int64)
        nodes = self.ranker.items.find_texts(items)
        if len(unknown := [item for item, node in zip(items, nodes.tolist(), strict=True) if node < 0]):
            examples = ", ".join(map(shown, unknown[:NUM_EXAMPLES]))
            notes.append(f"{what}: {len(unknown):,} items are unknown to the model and left out, e.g. {examples}")
        return np.unique(nodes[nodes >= 0])

    def _tell_of_unknown(self, histories: Sequence[History], notes: list[str]) -> None:
        """Note users of whom nothing is known, and by what their items are ranked."""
        if without := [history.name for history in histories if not self.new_users.knows(history)]:
            by = "best predictions without a history" if self.ranker.scales else "most popular items"
            others = " and others" if len(without) > 3 else ""
            what = " and nothing else that the model reads" if self.new_users.columns.names else ""
            notes.append(f"{', '.join(without[:3])}{others}: no interactions{what}, so the {by}")


def batches(waiting: Sequence[tuple[int, _Read, list[str]]], size: int) -> Iterator[list[tuple[int, _Read, list[str]]]]:
    """Questions that are answered together: those of as many users, or one."""
    batch: list[tuple[int, _Read, list[str]]] = []
    num_users = 0
    for one in waiting:
        if batch and num_users + len(one[1].users) > size:
            yield batch
            batch, num_users = [], 0
        batch.append(one)
        num_users += len(one[1].users)
    if batch:
        yield batch


def joined(users: Sequence[RankedUsers]) -> RankedUsers:
    """Several users as one batch."""
    if len(users) == 1:
        return users[0]
    ends = np.cumsum([0, *(one.known.indptr[-1] for one in users)])
    indptr = [one.known.indptr[1:] + end for one, end in zip(users, ends[:-1].tolist(), strict=True)]
    profiles = [one.profile_nN for one in users if one.profile_nN is not None]
    return RankedUsers(
        np.concatenate([one.rows_nR for one in users]),
        Known(np.concatenate([np.zeros(1, np.int64), *indptr]), np.concatenate([one.known.items for one in users])),
        csr_array(vstack(profiles)) if profiles else None,
        np.concatenate([one.by_popularity for one in users]),
    )


def source_of(rows: NewRows | str) -> NewRows:
    """A text is the name of a file."""
    return Path(rows) if isinstance(rows, str) else rows


def open_answers(model: SavedModel, index_probes: int | None = None) -> OpenedModel:
    """Files are read when they are first needed. index_probes: of an index, see `build_index`; None: every search is
    exact."""
    ranker, digest = open_ranker(model), sha256_of(model.folder / MANIFEST)
    index = None if index_probes is None else build_index(ranker, index_probes)
    return OpenedModel(ranker, digest, open_similar(ranker), cache(partial(open_new_nodes, model)), index)


def open_whole(
    folder: Path, verify: bool = False, progress: Progress = lambda message: None, index_probes: int | None = None
) -> OpenedModel:
    """Open all of a model folder, which a run may replace meanwhile. Raises `StorageError`."""
    for _ in range(TRIES):
        before = sha256_of(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
        opened = open_answers(open_model(folder, verify, progress), index_probes)
        opened.load()
        if before == opened.digest == sha256_of(folder / MANIFEST):
            return opened
    raise StorageError(f"{folder}: replaced {TRIES} times while it was read; try again when no run writes it")
