"""`dist-gat submit`: a recipe to a running Ray cluster."""

from __future__ import annotations

import logging
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.paths import path
from dist_gat.config.files import load_config


class Verb(str, Enum):
    """The choices of --verb."""

    prepare = "prepare"
    train = "train"
    evaluate = "evaluate"


def url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{text}: expected a URL, for example http://127.0.0.1:8265")
    return text


def absolute_path(text: str | Path) -> Path:
    folder = path(text)
    if not folder.is_absolute():
        raise typer.BadParameter(f"{folder}: expected an absolute path, the same on every host")
    return folder


def submit(
    config: Annotated[Path, typer.Argument(parser=path, help="a recipe, for example configs/ml-100k.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings as key=value, for example launch.num_workers=4")
    ] = None,
    address: Annotated[str, typer.Option(parser=url, help="of the head's dashboard")] = "http://127.0.0.1:8265",
    verb: Annotated[Verb, typer.Option(help="what the cluster does with the recipe")] = Verb.train,
    folder: Annotated[
        Path | None,
        typer.Option(
            parser=absolute_path,
            help="folder on the cluster's hosts that the recipe's relative folders are below; default: this one",
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="do not follow the job's log")] = False,
) -> None:
    """Submit a recipe to a running Ray cluster, follow its log, and end with the exit code of the job.

    The recipe is read and checked here. Only the checked recipe travels, with absolute folders: the data, the prepared
    shards and the run folder stay where they are, at the same path on every host.
    """
    logging.disable(logging.INFO)  # Ray's own
    settings = load_config(config, overrides or [])

    from dist_gat.launcher.submit import connect, follow_job, submit_job, with_folders_in

    client = connect(address)
    job = submit_job(client, verb.value, with_folders_in(settings, folder or Path.cwd()))
    print(f"job {job}; to stop it: ray job stop {job} --address {address}", file=sys.stderr)
    if no_wait:
        return
    try:
        code = follow_job(client, job)
    except KeyboardInterrupt:
        print(f"no longer following job {job}, which goes on", file=sys.stderr)
        code = 130
    raise typer.Exit(code)
