"""`CheckpointWriter`: writes checkpoints, and commits them in the background, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from dist_gat.checkpoints.checkpoint_store import CheckpointStore
from dist_gat.checkpoints.snapshot import Snapshot, begin_checkpoint
from dist_gat.config.sections import CheckpointConfig
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import together


class CheckpointWriter:
    """Every rank has one; their threads meet on a channel of their own.

    Files are written at once, without a copy of the state: into the system's cache, about as fast as into memory.
    Flushing them to the disk, and their digests, take longer, and wait for nobody. A failure there is an error on every
    rank, since the threads agree on it. `wait` raises it; all ranks call `wait` at the same step.
    """

    def __init__(
        self, checkpoints: CheckpointStore, config: CheckpointConfig, channel: Channel,
        before: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """before: called on each rank before a checkpoint counts, for what must be there then."""
        self.checkpoints, self.config, self.channel, self.before = checkpoints, config, channel, before
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def start(self, snapshot: Snapshot) -> None:
        """Write, after waiting for the previous checkpoint, and begin to commit. Collective; raises `StorageError`."""
        self.wait()
        written = begin_checkpoint(self.checkpoints, snapshot, self.channel)
        best = snapshot.content["best"].get("step")
        # a daemon, so that a rank whose peers are gone can still end
        self.thread = threading.Thread(target=self._commit, args=(written, best), name="checkpoint", daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Return when nothing is being written. Raises what went wrong. Collective."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            raise self.error

    def _commit(self, written: ExitStack, best: int | None) -> None:
        try:
            with written, together(self.channel, "what belongs to a checkpoint can't be written, and none was added"):
                self.before()
            if self.channel.rank == 0:
                self.checkpoints.prune(self.config.keep, best)
        except Exception as err:
            self.error = err
