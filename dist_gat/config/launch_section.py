"""Where the workers of a run are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from dist_gat.base.addresses import local_cache
from dist_gat.config.section import FileName, PositiveInt, Section


class LaunchConfig(Section):
    """Where the workers run. Everything listens on loopback until `interface` and `host` say otherwise."""

    launcher: Literal["ray", "local"] = "ray"
    num_workers: PositiveInt = 2
    threads_per_worker: int | None = Field(None, gt=0, description="default: the host's cores over num_workers")
    use_gpu: bool = False
    address: str | None = Field(None, description="of a running Ray cluster; default: start a local one")
    host: str = "127.0.0.1"
    interface: str | None = Field("lo", description="network interface of process groups; null: let torch choose")
    timeout_s: PositiveInt = 600
    max_failures: int = Field(3, ge=0, description="ray: restarts from the last checkpoint after a worker was lost")
    cache: FileName | None = Field(
        None, description="folder of each host for what it fetches from URLs; default: ~/.cache/dist_gat"
    )

    @property
    def cache_folder(self) -> Path:
        return local_cache(self.cache)
