"""Submit a recipe to a running Ray cluster, follow its log, and end with the exit code of the job.

    python launch/submit.py configs/ml-100k.yaml train.num_epochs=2 --address http://127.0.0.1:8265

The recipe is read and checked here. Only the checked recipe travels, with absolute folders: the data, the
prepared shards and the run folder stay where they are, at the same path on every host.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from dist_gat.base.errors import ClusterError, DistGatError
from dist_gat.config.files import dump_config, load_config
from dist_gat.config.sections import Config

RECIPE = "recipe.yaml"


def submit(client: JobSubmissionClient, verb: str, config: Config) -> str:
    """Start `dist-gat VERB` of the recipe on the cluster's head; returns the ID of the job."""
    with tempfile.TemporaryDirectory(prefix="dist-gat-") as folder:
        (Path(folder) / RECIPE).write_text(dump_config(config), encoding="utf-8")
        return client.submit_job(entrypoint=entrypoint(verb), runtime_env={"working_dir": folder})


def entrypoint(verb: str) -> str:
    """What the head runs. `auto` is the cluster that started the job, which Ray names in RAY_ADDRESS."""
    return shlex.join(["dist-gat", verb, RECIPE, "launch.launcher=ray", "launch.address=auto"])


def with_folders_in(config: Config, folder: Path) -> Config:
    """The configuration with its relative folders below `folder`."""
    data = config.data.model_copy(
        update={"path": str(folder / config.data.path), "prepared": str(folder / config.data.prepared)}
    )
    return config.model_copy(update={"data": data, "run": str(folder / config.run_folder)})


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print the log of a job until it ends; returns its exit code."""

    async def print_log() -> None:
        async for lines in client.tail_job_logs(job):
            print(lines, end="", flush=True)

    try:
        asyncio.run(print_log())
    except RuntimeError as err:
        print(f"lost the log of job {job}, still waiting for its end: {first_line(err)}", file=sys.stderr)
    # the log may end a moment before the job does
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(1)
    if info.status == "SUCCEEDED":
        return 0
    print(f"job {job} {info.status}: {(info.message or '').partition(', last available logs')[0]}", file=sys.stderr)
    return info.driver_exit_code or 1


def connect(address: str) -> JobSubmissionClient:
    """The cluster's job server. Raises `ClusterError` where there is none, or where it does not let us in."""
    try:
        client = JobSubmissionClient(address)
        # connecting asks for the version, which needs no token
        client.list_jobs()
    except AuthenticationError as err:
        raise ClusterError(
            f"{address}: the cluster does not let us in: {first_line(err)}; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH to a file with the token that the cluster was started with"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as err:
        raise ClusterError(
            f"{address}: no Ray job server answers there: {first_line(err)}; expected the head's dashboard, for "
            "example http://127.0.0.1:8265; to reach a remote one: ssh -N -L 8265:127.0.0.1:8265 HEAD"
        ) from None
    return client


def first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0].rstrip(".")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a recipe, for example configs/ml-100k.yaml")
    parser.add_argument("overrides", nargs="*", help="settings as key=value, for example launch.num_workers=4")
    parser.add_argument("--address", default="http://127.0.0.1:8265", help="of the head's dashboard")
    parser.add_argument("--verb", default="train", choices=["prepare", "train", "evaluate"])
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path.cwd(),
        help="folder on the cluster's hosts that the recipe's relative folders are below; default: this one",
    )
    parser.add_argument("--no-wait", action="store_true", help="print the job's ID and do not follow its log")
    options = parser.parse_intermixed_args(arguments)
    if not options.folder.is_absolute():
        parser.error(f"--folder {options.folder}: expected an absolute path, the same on every host")
    if not options.address.startswith(("http://", "https://")):
        parser.error(f"--address {options.address}: expected a URL, for example http://127.0.0.1:8265")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    logging.disable(logging.INFO)
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        config = with_folders_in(load_config(options.config, options.overrides), options.folder)
        client = connect(options.address)
        job = submit(client, options.verb, config)
    except DistGatError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    print(f"job {job}; to stop it: ray job stop {job} --address {options.address}", file=sys.stderr)
    try:
        return 0 if options.no_wait else follow(client, job)
    except KeyboardInterrupt:
        print(f"no longer following job {job}, which goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
