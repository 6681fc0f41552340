"""`dist-gat serve`: answer over HTTP for a run, until told to stop."""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dist_gat.base.extra import missing
from dist_gat.base.running_beside import running_beside
from dist_gat.cli.output import open_output
from dist_gat.cli.paths import path, place

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(
    run: Annotated[
        Path, typer.Argument(parser=place, help="a run folder, the model folder in it, or the recipe of a run")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings of the recipe as key=value")] = None,
    host: Annotated[str, typer.Option(help="the address to listen at; any but this machine's needs a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", parser=path, help="a file with the token that requests must carry")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="processes; they share the memory of the model's files")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="of a search, in each replica; default: the cores, shared out")
    ] = None,
    max_waiting: Annotated[int, typer.Option(min=1, help="users who wait; further requests get 429")] = 256,
    max_batch: Annotated[int, typer.Option(min=1, help="users who are searched for at once")] = 128,
    max_body_bytes: Annotated[int, typer.Option(min=1024, help="the largest body of a request")] = 1 << 20,
    receive_s: Annotated[
        float, typer.Option("--receive-s", min=0.1, help="seconds in which a request must have arrived")
    ] = 10.0,
    index_probes: Annotated[
        int | None,
        typer.Option("--index-probes", min=1, help="search an index (extra index), in so many lists; default: exactly"),
    ] = None,
    watch_s: Annotated[
        float, typer.Option("--watch-s", min=0, help="look for another model every so many seconds; 0: never")
    ] = 2.0,
) -> None:
    """Answer over HTTP: recommend, score, similar, explain, health and metrics; see docs/serving.md.

    A model that the run saves meanwhile takes the place of the one before, and no request fails. SIGTERM lets what is
    under way finish.
    """
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise missing(absent[0], "serve", "serve")
    from dist_gat import api
    from dist_gat.explain.trained_run import url_of
    from dist_gat.serve.fetched_run import follow_run
    from dist_gat.server.bearer_token import read_token
    from dist_gat.server.server_process import serve_model
    from dist_gat.server.server_settings import ServerSettings

    with open_output(False) as output:
        model = api.model_folder(run, overrides or [])
        settings = ServerSettings(
            model=model, run=model.parent if (model.parent / "config.yaml").is_file() else None, host=host,
            token=None if token_file is None else read_token(token_file), replicas=replicas,
            threads=threads or max(1, len(os.sched_getaffinity(0)) // replicas), max_waiting=max_waiting,
            max_batch=max_batch, max_body_bytes=max_body_bytes, receive_s=receive_s, watch_s=watch_s or None,
            index_probes=index_probes,
        )  # fmt: skip
        url = None if settings.run is None else url_of(run, overrides or [])
        follows = running_beside(partial(follow_run, url, model.parent, watch_s)) if url and watch_s else nullcontext()
        with follows:
            serve_model(settings, port, output.progress)
