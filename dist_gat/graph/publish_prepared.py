"""`staged`: where `prepare` writes a data set whose place is a URL, and how it gets there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_gat.base.addresses import is_url, key_of, local_cache
from dist_gat.base.errors import ConfigError
from dist_gat.base.fetched_folder import FETCHED, UPLOADING, publish_folder
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.storage import MANIFEST
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.pseudonyms import Pseudonyms
from dist_gat.graph.hide_ids import refuse_clear_ids
from dist_gat.graph.part import FORMAT


@contextmanager
def staged(
    data: DataConfig, pseudonyms: Pseudonyms | None, cache: Path | None, progress: Callable[[str], None]
) -> Iterator[DataConfig]:
    """Yield the settings with a folder of this host for `data.prepared`, which is uploaded when the block succeeds.

    A folder here stays as it is named. Raises `ConfigError` where something else is at the URL, `StorageError`.
    """
    if not is_url(data.prepared):
        yield data
        return
    remote = RemoteFolder(data.prepared, "data.prepared")
    progress(what_is_there(remote, pseudonyms))
    staging = local_cache(cache) / FETCHED / key_of(remote.url) / "staging"
    yield data.model_copy(update={"prepared": str(staging)})
    publish_folder(staging, remote, FORMAT, cache, progress)


def what_is_there(remote: RemoteFolder, pseudonyms: Pseudonyms | None) -> str:
    """In words. Raises `ConfigError` where it is not to be replaced."""
    content = remote.read(MANIFEST)
    found = _parsed(content)
    if found.get("format") == FORMAT:
        if pseudonyms is None:
            refuse_clear_ids(remote.url, found)
        return f"{remote.url} has the data set {found.get('name')}, which is replaced at the end"
    begun = _parsed(remote.read(UPLOADING))
    names = remote.names()
    if content is None and begun.get("format") == FORMAT:
        return f"{remote.url} has {len(names) - 1:,} of {begun.get('files')} files of an upload that was cut: anew"
    if names:
        raise ConfigError(
            f"data.prepared={remote.url}: {remote.at(names[0])} was not written by `dist-gat prepare`, which would "
            "replace it; choose another folder, or remove what is there"
        )
    return f"{remote.url} is empty: a new data set"


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_prepared(name: str) -> bool:
    """Whether something is in the place of a prepared folder."""
    return RemoteFolder(name, "data.prepared").read(MANIFEST) is not None if is_url(name) else Path(name).exists()
