"""`TextTuning`: when the kept vectors of a column of text are made anew, and what the log says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dist_gat.evaluate.kept_texts import encode_own_texts, keep_vectors, kept_vectors, staleness
from dist_gat.exchange.worker import Worker
from dist_gat.nn.inputs.trained_text import TrainedText
from dist_gat.sampling.graph_store import GraphStore, new_cache
from dist_gat.train.run_log import RunLog


class TextTuning:
    """Of a run that trains an encoder of texts.

    Kept vectors are those of the A and B at the start of an epoch, whenever validation is: so they don't depend on how
    often it is, nor on where a run was stopped.
    """

    def __init__(
        self, text: TrainedText, stores: Sequence[GraphStore], cache_bytes: int, steps_per_epoch: int, worker: Worker,
        log: RunLog,
    ) -> None:  # fmt: skip
        """stores: of each stream, the first of them the run's own."""
        self.text, self.stores, self.cache_bytes = text, stores, cache_bytes
        self.steps_per_epoch, self.worker, self.log = steps_per_epoch, worker, log

    @property
    def line(self) -> str:
        """What is trained, for people."""
        column = self.text.column
        return f"text column {column.node_type}.{column.vector.name}: {self.text.tower.share}"

    def restore(self) -> None:
        """Make the kept vectors of a checkpoint again, with the A and B that it has for that. Collective. Raises
        `Stopped`."""
        if int(self.text.tower.encoded_in) > 0:
            with self.text.tower.as_kept():
                vectors = encode_own_texts(self.text, self.stores[0], self.worker.control, self.worker.steps)
            keep_vectors(self.text, self.stores[0], vectors)
            self._fill_caches()

    def is_due(self, step: int) -> bool:
        """Whether an epoch begins after so many steps, and with it other kept vectors."""
        return step % self.steps_per_epoch == 0 and self.text.tower.is_due(step // self.steps_per_epoch)

    def begin_epoch(self, step: int) -> bool:
        """Make the kept vectors anew where that is due; returns whether it was. Collective. Raises `Stopped`, and
        changes nothing then."""
        due = self.is_due(step)
        if due:
            with self.present(step):
                pass
        return due

    @contextmanager
    def present(self, step: int) -> Iterator[None]:
        """Inside, all vectors are of the present A and B; after it the kept ones are back, unless these are due to
        become them. Collective. Raises `Stopped`, and changes nothing then."""
        tower, store, control = self.text.tower, self.stores[0], self.worker.control
        started, before = time.perf_counter(), kept_vectors(self.text, store)
        new = encode_own_texts(self.text, store, control, self.worker.steps)
        keep_vectors(self.text, store, new)
        stale = staleness(before, new, control)
        took = time.perf_counter() - started
        self.log.scalars(step, {"text/staleness": stale})
        self.log.event("text", step=step, staleness=stale, kept_since_epoch=int(tower.encoded_in), took=took)
        try:
            yield
        except BaseException:
            keep_vectors(self.text, store, before)
            raise
        if self.is_due(step):
            tower.keep(step // self.steps_per_epoch)
            self._fill_caches()
        else:
            keep_vectors(self.text, store, before)

    def _fill_caches(self) -> None:
        cache = new_cache(self.stores[0], self.cache_bytes)
        for store in self.stores:
            store.cache = cache
