"""What a prepared folder was made from, in its manifest: settings, seed and source files; and what a recipe says now.

{"seed": 0, "settings": {"data": {…}, "parts": {…}}, "files": {NAME: {"bytes": …, "ends_sha256": …}},
 "encoders": {NAME: …}}

Names of files are relative to `data.path`, so that hosts may keep their tables at different places. `encoders` has the
SHA-256 of the files of each pre-trained encoder of texts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from pydantic.fields import FieldInfo

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import MANIFEST, ends_of
from dist_gat.config.differences import differing_settings
from dist_gat.config.sections import Config, DataConfig, PartsConfig
from dist_gat.data.source_files import source_files
from dist_gat.graph.part import MADE_FROM, REMEDY, PreparedGraph, open_prepared
from dist_gat.text.model_files import find_model, fingerprint

SECTIONS = ("data", "parts")
# keys of file names, in the section `data` and below it
FILE_KEYS = ("interactions", "train", "valid", "test", "path", "table", "ids", "cold_items", "cold_users", "encoder")
# where the data are; and with bad rows there is either the same folder or none
LEFT_OUT = {"path", "prepared", "vectors", "skip_bad_rows", "memory_gb"}
RATIOS = ("data.split.valid_ratio", "data.split.test_ratio")
GIVEN = ("data.train", "data.valid", "data.test", "data.split.valid_is_part_of_train")
# settings that a split does not read
UNREAD = {
    "files": ("data.interactions", *RATIOS),
    "leave_last_out": (*GIVEN, *RATIOS),
    "temporal": GIVEN,
    "random": GIVEN,
}


def made_from(data: DataConfig, parts: PartsConfig, seed: int) -> dict[str, Any]:
    """The record for the manifest. Files and encoders that can't be read are left out of it."""
    tree = {"data": data.model_dump(mode="json", exclude=LEFT_OUT), "parts": parts.model_dump(mode="json")}
    return {
        "seed": seed, "settings": _with_plain_names(tree, data.path), "files": _described(data),
        "encoders": encoders_of(data),
    }  # fmt: skip


def encoders_of(data: DataConfig) -> dict[str, str]:
    """What each encoder of texts is known by that is on this machine, by its plain name."""
    found = {}
    for encoder in data.encoders:
        with suppress(ConfigError):  # `prepare` says so itself; who only trains needs neither model nor libraries
            if folder := find_model(encoder):
                found[_plain_name(os.path.join(data.path, encoder), data.path)] = fingerprint(folder)
    return found


def recorded_encoder(prepared: PreparedGraph, data: DataConfig, encoder: str) -> str:
    """What the files of an encoder were known by when the folder was prepared."""
    name = _plain_name(os.path.join(data.path, encoder), data.path)
    return str(record_of(prepared).get("encoders", {}).get(name, ""))


def open_made(
    config: Config, verify: bool = False, progress: Callable[[str], None] = lambda message: None,
    has_model: bool = False, parts: Collection[int] | None = None,
) -> PreparedGraph:  # fmt: skip
    """`open_prepared` of a recipe, after a look at what the folder was made from. parts: what is fetched from a URL.

    Raises `ConfigError` with all that differs from the recipe. has_model: a saved model of this folder is there, which
    outlives its table, so that a file that has changed since is only told. The seed may differ: then the split is that
    of the seed that prepared, which is told too.
    """
    prepared = open_prepared(config.data.prepared, verify, progress, parts, config.launch.cache_folder)
    record = record_of(prepared)
    settings, files = differing_from(record, config.data, config.parts)
    if settings or (files and not has_model):
        raise ConfigError(
            f"data.prepared={config.data.prepared} was made from other settings or files than this recipe's: "
            f"{'; '.join([*settings, *files])}; make it anew with `dist-gat prepare RECIPE` and the same settings, or "
            "set data.prepared=FOLDER to one of its own"
        )
    if files:
        progress(f"the data set is as it was when {prepared.folder} was prepared; since then: {'; '.join(files)}")
    if record["seed"] != config.seed and config.data.split.method == "random":
        progress(f"the random split is that of seed {record['seed']}, with which {prepared.folder} was prepared")
    return prepared


def record_of(prepared: PreparedGraph) -> dict[str, Any]:
    """What `made_from` gave. Raises `StorageError` where the manifest has no such record."""
    record: Any = prepared.manifest.get(MADE_FROM)
    try:
        fits = isinstance(record["seed"], int) and all(isinstance(record["settings"][key], dict) for key in SECTIONS)
        fits = fits and all({"bytes", "ends_sha256"} <= file.keys() for file in record["files"].values())
    except (TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise StorageError(f"{prepared.folder / MANIFEST}: expected {MADE_FROM}, with seed, settings, files; {REMEDY}")
    return dict(record)


def differing_from(record: Mapping[str, Any], data: DataConfig, parts: PartsConfig) -> tuple[list[str], list[str]]:
    """What differs from a record, for people: settings, and files. What is not there any more does not."""
    now = made_from(data, parts, record["seed"])

    def plays_no_part(key: str, field: FieldInfo) -> bool:
        return key in UNREAD[data.split.method]

    settings = differing_settings(record["settings"], now["settings"], plays_no_part)
    before = record["files"]
    files = [_told(name, before.get(name), found) for name, found in now["files"].items() if before.get(name) != found]
    files += [
        f"encoder {name}: its files are others now, so texts would get other vectors"
        for name, found in now["encoders"].items()
        if record.get("encoders", {}).get(name, found) != found
    ]
    return settings, files


def _told(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    if before is None:
        return f"{name}: was not among the files"
    if before["bytes"] != now["bytes"]:
        return f"{name}: saved {before['bytes']} bytes, now {now['bytes']}"
    return f"{name}: other content of the same size"


def _described(data: DataConfig) -> dict[str, dict[str, Any]]:
    """Size and digest of the ends of each source file that can be read, by its plain name."""
    found: dict[str, dict[str, Any]] = {}
    for file in source_files(data):
        name = _plain_name(file.name, data.path) if file.is_local else file.name
        try:
            ends = ends_of(file.path) if file.is_local else ""
        except OSError:
            continue  # `prepare` says so itself; for others it is gone
        description = {"bytes": file.size, "ends_sha256": ends}
        found[name if name not in found else f"{name} ({file.path.parent})"] = description
    return found


def _with_plain_names(tree: dict[str, Any], folder: str) -> dict[str, Any]:
    """The tree with names of files as `_plain_name` gives them."""

    def plain(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _with_plain_names(value, folder)
        if isinstance(value, list):
            return [plain(key, one) for one in value]
        is_name = key in FILE_KEYS and isinstance(value, str) and "://" not in value
        return _plain_name(os.path.join(folder, value), folder) if is_name else value

    return {key: plain(key, value) for key, value in tree.items()}


def _plain_name(path: str, folder: str) -> str:
    """A file's name relative to `data.path`; of one that is not below it the last part, since hosts differ there."""
    parent, last = os.path.split(os.path.abspath(path))
    for resolved in (os.path.abspath, os.path.realpath):
        name = os.path.relpath(os.path.join(resolved(parent), last), resolved(folder))
        if not name.startswith(os.pardir):
            return name
    return last
