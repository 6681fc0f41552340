"""`CheckpointWriter`: commits checkpoints in the background, one at a time."""

from __future__ import annotations

import threading

from dist_gat.checkpoints.checkpoint_store import CheckpointStore
from dist_gat.checkpoints.snapshot import Snapshot, write_snapshot
from dist_gat.config.sections import CheckpointConfig
from dist_gat.exchange.channel import Channel


class CheckpointWriter:
    """Every rank has one; their threads meet on a channel of their own.

    A failure is an error on every rank, since the threads agree on it. `wait` raises it; all ranks call `wait` at the
    same step.
    """

    def __init__(self, checkpoints: CheckpointStore, config: CheckpointConfig, channel: Channel) -> None:
        self.checkpoints, self.config, self.channel = checkpoints, config, channel
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def start(self, snapshot: Snapshot) -> None:
        """Begin to write, after waiting for the previous checkpoint. Collective."""
        self.wait()
        # a daemon, so that a rank whose peers are gone can still end
        self.thread = threading.Thread(target=self._commit, args=(snapshot,), name="checkpoint", daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Return when nothing is being written. Raises what went wrong. Collective."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            raise self.error

    def _commit(self, snapshot: Snapshot) -> None:
        try:
            write_snapshot(self.checkpoints, snapshot, self.channel)
            if self.channel.rank == 0:
                self.checkpoints.prune(self.config.keep, snapshot.content["best"].get("step"))
        except Exception as err:
            self.error = err
