"""`Explainer`: explanations of the model that answers, one at a time, beside the searches."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dist_gat.explain.opened_run import OpenedRun
from dist_gat.server.problem import TOO_MANY, Problem

MOST_WAITING, RETRY_AFTER_S = 8, 2


class Explainer:
    """A queue of its own: an explanation takes as long as a hundred searches."""

    def __init__(self) -> None:
        self.waiting = 0
        self.pool = ThreadPoolExecutor(1, "explain")

    async def explain(self, model: OpenedRun, user: str, item: str | None, top: int) -> dict[str, Any]:
        """Raises `Problem` where too many wait, and what `OpenedRun.explain` does."""
        if self.waiting >= MOST_WAITING:
            raise Problem(
                TOO_MANY, f"{self.waiting} explanations wait already", f"at most {MOST_WAITING}",
                f"come again in {RETRY_AFTER_S} s", {"Retry-After": str(RETRY_AFTER_S)},
            )  # fmt: skip
        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.pool, model.explain, user, item, top)
        finally:
            self.waiting -= 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
