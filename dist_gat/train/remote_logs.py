"""`open_remote_logs`: the logs of a run at a URL, which rank 0 alone writes: fetched at its start, then sent."""

from __future__ import annotations

from dataclasses import dataclass

from dist_gat.base.addresses import is_url
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.remote_run import SentFiles, fetch_run_files, is_fetched
from dist_gat.config.sections import Config
from dist_gat.exchange.fail_together import together
from dist_gat.exchange.worker import Worker


@dataclass
class RemoteLogs:
    """sent: None where the run is in a folder, or on another rank than 0."""

    sent: SentFiles | None = None

    def send(self) -> None:
        """Upload what has changed. Raises `StorageError`."""
        if self.sent is not None:
            self.sent.send()


def open_remote_logs(config: Config, worker: Worker) -> RemoteLogs:
    """Before anything is logged: on the host of rank 0, all that earlier attempts logged anywhere. Collective."""
    found = RemoteLogs()
    if is_url(config.run):
        with together(worker.control, f"{config.run}: the logs of the run can't be fetched"):
            if worker.rank == 0:
                remote = RemoteFolder(config.run, "run")
                if not is_fetched(remote, config.run_folder):
                    fetch_run_files(remote, config.run_folder)
                found.sent = SentFiles(config.run_folder, remote)
    return found
