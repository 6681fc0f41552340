"""What `train` and `evaluate` do besides where `run` is a URL; nothing of it where that is a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dist_gat.base.addresses import is_url
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.remote_run import RUN_FILES, SentFiles, claim_run, fetch_run_files
from dist_gat.base.run_folder import CONFIG_FILE, refuse_foreign_text
from dist_gat.checkpoints.checkpoint_store import CHECKPOINTS_FOLDER
from dist_gat.config.sections import Config


@contextmanager
def claimed(config: Config, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the run at its URL, with its logs and results in `config.run_folder`, whose lock this process holds.

    Raises what `claim_run` does, and `ConfigError` where the recipe there is none that a run wrote.
    """
    if not is_url(config.run):
        yield
        return
    remote = RemoteFolder(config.run, "run")
    with claim_run(remote, config.run_folder, (*RUN_FILES, CHECKPOINTS_FOLDER, "model"), progress):
        fetch_run_files(remote, config.run_folder)
        refuse_foreign_text(config.run_folder / CONFIG_FILE, "a run of `dist-gat train`")
        yield


def clear_remote(config: Config, patterns: Sequence[str]) -> None:
    """Delete at the URL what an earlier run left, by the first part of patterns of names."""
    if is_url(config.run):
        remote, first = RemoteFolder(config.run, "run"), {pattern.partition("/")[0] for pattern in patterns}
        # without its manifest the model is none, so that goes first
        for name in sorted(remote.names(), key=lambda name: not name.endswith("manifest.json")):
            if name.partition("/")[0] in first:
                remote.remove(name)


def fetch_result(config: Config, name: str) -> None:
    """The file of a result as it is at the URL, in the run's folder of this host."""
    if is_url(config.run):
        fetch_run_files(RemoteFolder(config.run, "run"), config.run_folder, [name])


def send_results(config: Config, *names: str) -> None:
    """Files and folders of results from the run's folder to the URL."""
    if is_url(config.run):
        SentFiles(config.run_folder, RemoteFolder(config.run, "run"), names).send()
