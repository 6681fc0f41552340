"""`ServerSettings`: how a run is served. They belong to a deployment and not to the run, so no recipe has them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

LOCAL_NAME = "localhost"


class ServerSettings(BaseModel):
    """model: a model folder, and run: the run folder around it, or None, which explanations need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    run: Path | None = None
    host: str = "127.0.0.1"
    token: str | None = None
    replicas: PositiveInt = 1
    # of each replica
    threads: PositiveInt = 1
    # users of requests that wait for the search; further ones are told to come again
    max_waiting: PositiveInt = 256
    # users who are searched for at once
    max_batch: PositiveInt = 128
    max_body_bytes: PositiveInt = 1 << 20
    # for a request to arrive, its head and its body, and for the next one on a connection
    receive_s: PositiveFloat = 10.0
    # for answers that are under way when the server stops
    drain_s: PositiveInt = 30
    # lists of an index that a search looks into; None: exact search
    index_probes: PositiveInt | None = None
    # how often the model folder is looked at for another model; None: only `POST /reload` replaces it
    watch_s: PositiveFloat | None = 2.0


def is_loopback(host: str) -> bool:
    """Whether a name or address is reached from this machine alone."""
    try:
        return host == LOCAL_NAME or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
