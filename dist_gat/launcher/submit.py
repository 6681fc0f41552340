"""Recipes as jobs of a running Ray cluster.

Only the checked recipe travels, with absolute folders: the data, the prepared shards and the run folder stay where
they are, at the same path on every host.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from dist_gat.base.addresses import is_url
from dist_gat.base.errors import ClusterError, first_line
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config

RECIPE = "recipe.yaml"


def connect(address: str) -> JobSubmissionClient:
    """The cluster's job server. Raises `ClusterError` where there is none, or where it does not let us in."""
    try:
        client = JobSubmissionClient(address)
        # connecting asks for the version, which needs no token
        client.list_jobs()
    except AuthenticationError as err:
        raise ClusterError(
            f"{address}: the cluster does not let us in: {reason(err)}; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH to a file with the token that the cluster was started with"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as err:
        raise ClusterError(
            f"{address}: no Ray job server answers there: {reason(err)}; expected the head's dashboard, for "
            "example http://127.0.0.1:8265; to reach a remote one: ssh -N -L 8265:127.0.0.1:8265 HEAD"
        ) from None
    return client


def submit_job(client: JobSubmissionClient, verb: str, config: Config) -> str:
    """Start `dist-gat VERB` of the recipe on the cluster's head; returns the ID of the job."""
    with tempfile.TemporaryDirectory(prefix="dist-gat-") as folder:
        (Path(folder) / RECIPE).write_text(dump_config(config), encoding="utf-8")
        return client.submit_job(entrypoint=entrypoint(verb), runtime_env={"working_dir": folder})


def entrypoint(verb: str) -> str:
    """What the head runs. `auto` is the cluster that started the job, which Ray names in RAY_ADDRESS."""
    return shlex.join(["dist-gat", verb, RECIPE, "launch.launcher=ray", "launch.address=auto"])


def with_folders_in(config: Config, folder: Path) -> Config:
    """The configuration with its relative folders below `folder`."""
    names = {name: at(folder, getattr(config.data, name)) for name in ("path", "prepared")}
    run = at(folder, config.run or config.run_folder)
    return config.model_copy(update={"data": config.data.model_copy(update=names), "run": run})


def at(folder: Path, name: str | Path) -> str:
    """A relative name below a folder; others as they are."""
    return str(name) if is_url(name) else str(folder / name)


def follow_job(client: JobSubmissionClient, job: str) -> int:
    """Print the log of a job until it ends; returns its exit code."""

    async def print_log() -> None:
        async for lines in client.tail_job_logs(job):
            print(lines, end="", flush=True)

    try:
        asyncio.run(print_log())
    except RuntimeError as err:
        print(f"lost the log of job {job}, still waiting for its end: {reason(err)}", file=sys.stderr)
    # the log may end a moment before the job does
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(1)
    if info.status == "SUCCEEDED":
        return 0
    print(f"job {job} {info.status}: {(info.message or '').partition(', last available logs')[0]}", file=sys.stderr)
    return info.driver_exit_code or 1


def reason(err: Exception) -> str:
    return first_line(err).rstrip(".")
