"""Runs and models at a URL, for whoever only reads them: as folders of this host.

CACHE/copies/KEY/   small files of a run as they are now, and its saved model, in links to what was fetched
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from dist_gat.base.addresses import below, key_of, local_cache
from dist_gat.base.errors import StorageError
from dist_gat.base.fetched_folder import fetch_folder
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.remote_run import fetch_run_files
from dist_gat.base.run_folder import CONFIG_FILE, lock_run
from dist_gat.base.storage import MANIFEST, atomic_folder
from dist_gat.serve.saved_model import FORMAT, REMEDY, VERSION


def copy_run(url: str, cache: Path | None = None) -> Path:
    """A folder like that of the run, without its checkpoints. Raises `StorageError`."""
    remote, folder = RemoteFolder(url, "run"), local_cache(cache) / "copies" / key_of(url)
    if remote.read(CONFIG_FILE) is None:
        raise StorageError(
            f"{remote.at(CONFIG_FILE)}: not found; expected the run that `dist-gat train` wrote there with run={url}"
        )
    with lock_run(folder):
        fetch_run_files(remote, folder)
        if remote.read(f"model/{MANIFEST}") is not None:
            fetched, names = fetch_folder(below(url, "model"), FORMAT, VERSION, REMEDY, cache=cache)
            _link(fetched, names, folder / "model")
    return folder


def follow_run(url: str, folder: Path, every_s: float, done: threading.Event) -> None:
    """Until `done`, put each model that the run saves into the folder that `copy_run` gave."""
    model, cache = folder / "model", folder.parents[1]
    while not done.wait(every_s):
        with suppress(StorageError):  # an upload is under way, or the store does not answer: look again
            content = RemoteFolder(below(url, "model")).read(MANIFEST)
            if content is not None and content != (model / MANIFEST).read_bytes():
                fetched, names = fetch_folder(below(url, "model"), FORMAT, VERSION, REMEDY, cache=cache)
                _link(fetched, names, model)


def model_url(url: str) -> str:
    """Of a run, or of a model itself, at a URL."""
    return url if RemoteFolder(url).read(MANIFEST) is not None else below(url, "model")


def _link(fetched: Path, names: list[str], target: Path) -> None:
    """Make `target` the fetched folder, at once, where it is not already."""
    if (target / MANIFEST).is_file() and (target / MANIFEST).read_bytes() == (fetched / MANIFEST).read_bytes():
        return
    with atomic_folder(target) as folder:
        for name in [*names, MANIFEST]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(fetched / name, folder / name)
