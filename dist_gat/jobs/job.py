"""`Job`: what a launcher starts on every worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dist_gat.config.sections import Config
from dist_gat.exchange.worker import Worker

# The result is plain JSON data, and the same on every rank. Jobs are module-level functions, so that
# another process can import them.
Job = Callable[[Config, Worker], dict[str, Any]]
