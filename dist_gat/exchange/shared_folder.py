"""`shared_folder`: a folder that all ranks write into, and that gets its name only when all of them are done.

At a URL, where there is no rename, it gets its manifest then: `shared_upload`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_gat.base.fetched_folder import begin_upload, end_upload
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.storage import MANIFEST, describe_file, flush_file, flush_folder, replace_folder, write_manifest
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import share_text, together
from dist_gat.exchange.long_work import Steps, padded, plain_steps


@contextmanager
def shared_folder(
    target: Path | str, channel: Channel, kind: str, version: int, content: dict[str, Any], steps: Steps = plain_steps
) -> Iterator[Path]:
    """Yield an empty folder to each rank; then what all ranks wrote there becomes `target`, under one manifest.

    Every rank flushes its files to the disk and describes them; rank 0 joins the descriptions and renames the folder.
    What stood at `target` is replaced. Where any rank fails, all raise `StorageError` with that rank's error, `target`
    is as it was and the temporary folder is gone; so it is where `steps`, of a worker, raises `Stopped`. Collective;
    the ranks share the file system, and write different files.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.tmp")
    own = temporary / f".rank-{channel.rank}"
    what = f"{target}: can't be written, nothing was changed"
    files: dict[str, Any] = {}
    try:
        with together(channel, what):
            if channel.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
        with together(channel, what):
            own.mkdir()
            yield own
        written = padded(sorted(path for path in own.rglob("*") if path.is_file()), None, channel)
        for path in steps(f"flushing the {target.name}", written, len(written)):
            with together(channel, what):
                if path is not None:
                    flush_file(path)
                    name = path.relative_to(own).as_posix()
                    files[name] = describe_file(path)
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    path.rename(temporary / name)
        with together(channel, what):
            shutil.rmtree(own)
        files = join_descriptions(files, channel)
        with together(channel, what):
            if channel.rank == 0:
                write_manifest(temporary, kind, version, content, files)
                flush_folder(temporary)
                replace_folder(temporary, target)
    finally:
        if channel.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def shared_upload(
    url: str, channel: Channel, kind: str, version: int, content: dict[str, Any], steps: Steps = plain_steps
) -> Iterator[Path]:
    """The same at a URL, for ranks that share no file system: yield an empty folder of its own to each.

    What was there goes first, so whoever reads meanwhile, or after a failure, finds no manifest.
    """
    remote, what = RemoteFolder(url), f"{url}: can't be written, it has no manifest"
    files: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dist-gat-") as staging:
        own = Path(staging)
        with together(channel, what):
            yield own
        with together(channel, what):
            if channel.rank == 0:
                begin_upload(remote, kind)
        written = padded(sorted(path for path in own.rglob("*") if path.is_file()), None, channel)
        for path in steps(f"uploading to {url}", written, len(written)):
            with together(channel, what):
                if path is not None:
                    name = path.relative_to(own).as_posix()
                    files[name] = describe_file(path)
                    remote.put(path, name)
        files = join_descriptions(files, channel)
        with together(channel, what):
            if channel.rank == 0:
                write_manifest(own, kind, version, content, files)
                end_upload(remote, (own / MANIFEST).read_bytes())


def join_descriptions(files: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """The descriptions of the files of all ranks, sorted by name, on every rank. Collective."""
    described = [json.loads(text) for text in share_text(json.dumps(files), channel)]
    joined = {name: entry for files in described for name, entry in files.items()}
    assert len(joined) == sum(map(len, described)), "two ranks wrote the same file"
    return dict(sorted(joined.items()))
