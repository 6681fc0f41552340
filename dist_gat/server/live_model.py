"""`LiveModel`: the opened model that answers, and how another one takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from dist_gat.base.errors import DistGatError
from dist_gat.base.storage import MANIFEST, sha256_of
from dist_gat.explain.opened_run import OpenedRun, with_run
from dist_gat.serve.opened_model import Question, open_whole


class LiveModel:
    """now: what answers; whoever answers takes it once, so that no answer is of two models.

    run: the folder around the model's, which explanations need. trouble: why the newest model of the folder could not
    be opened. opened: hears of each model, and of the one before.
    """

    def __init__(
        self, folder: Path, opened: Callable[[OpenedRun, OpenedRun | None], None], index_probes: int | None = None,
        run: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder, self._opened, self.index_probes, self.run = folder, opened, index_probes, run
        self.now = open_warm(folder, index_probes, run)
        self.trouble: str | None = None
        self._lock = asyncio.Lock()
        opened(self.now, None)

    def has_another(self) -> bool:
        """Whether the folder holds another model. Reads a small file."""
        try:
            return sha256_of(self.folder / MANIFEST) != self.now.digest
        except OSError:
            return False  # a run is putting it there

    async def reload(self) -> bool:
        """Open the folder's model where it is another one; answers go on meanwhile. Raises `StorageError`, and what
        answers stays."""
        async with self._lock:
            if not self.has_another():
                self.trouble = None
                return False
            try:
                model = await asyncio.to_thread(open_warm, self.folder, self.index_probes, self.run)
            except DistGatError as err:
                self.trouble = str(err)
                raise
            self.now, before, self.trouble = model, self.now, None
            self._opened(model, before)
            return True


def open_warm(folder: Path, index_probes: int | None, run: Path | None) -> OpenedRun:
    """An opened model that has answered once, so that its rows are in memory and its kernels compiled."""
    model = open_whole(folder, index_probes=index_probes)
    model.answer([Question([str(user)]) for user in model.ranker.users.external_ids.head(1)])
    return with_run(model, run)
