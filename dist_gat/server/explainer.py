"""`Explainer`: explanations for a served run, from its model and its data set, one at a time and opened once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import MANIFEST, sha256_of
from dist_gat.explain.explanation import explain_item
from dist_gat.explain.trained_run import TrainedRun, open_trained_run
from dist_gat.server.problem import TOO_MANY, Problem

MOST_WAITING, RETRY_AFTER_S = 8, 2


class Explainer:
    """run: the folder; None: only a model is served, which has no explanations."""

    def __init__(self, run: Path | None) -> None:
        self.run = run
        self.waiting = 0
        self.opened: tuple[str, TrainedRun] | None = None
        self.pool = ThreadPoolExecutor(1, "explain")

    async def explain(self, digest: str, user: str, item: str | None, top: int) -> dict[str, Any]:
        """Of the model with this digest. Raises `Problem` where too many wait, and what `explain_item` does."""
        if self.waiting >= MOST_WAITING:
            raise Problem(
                TOO_MANY, f"{self.waiting} explanations wait already", f"at most {MOST_WAITING}",
                f"come again in {RETRY_AFTER_S} s", {"Retry-After": str(RETRY_AFTER_S)},
            )  # fmt: skip
        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.pool, self._explain, digest, user, item, top)
        finally:
            self.waiting -= 1

    def _explain(self, digest: str, user: str, item: str | None, top: int) -> dict[str, Any]:
        return explain_item(self._run(digest), user, item, top)

    def _run(self, digest: str) -> TrainedRun:
        if self.run is None:
            raise ConfigError("a model folder is served, and explanations need its run; serve the run folder")
        if self.opened is None or self.opened[0] != digest:
            opened = open_trained_run(self.run)
            if sha256_of(opened.saved.folder / MANIFEST) != digest:
                raise StorageError(f"{self.run}: another model takes the place of the one that answers; ask again")
            self.opened = digest, opened
        return self.opened[1]

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
