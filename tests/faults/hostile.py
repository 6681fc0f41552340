"""What the rows of hostile files share: a small recipe, folders as they are, and errors that must be ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.bad_inputs import FEATURES, GOOD, ITEMS, TITLES, BadInput

from dist_gat import api
from dist_gat.base.errors import DistGatError
from dist_gat.base.storage import MANIFEST, write_manifest
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config

TINY = {
    "sampling": {"fanouts": [3]},
    "negatives": {"num_shared": 8, "distribution": "popularity"},
    "model": {"embedding_size": 16},
    "train": {"num_epochs": 1, "batch_size": 16},
    "launch": {"launcher": "local", "num_workers": 1, "threads_per_worker": 1},
}


def config_of(folder: Path, data: dict[str, Any], **sections: Any) -> Config:
    return parse_config(
        {
            "name": "hostile",
            "run": str(folder / "run"),
            "data": {"prepared": str(folder / "out" / "prepared"), **data},
            "parts": {"num_parts": 2, "method": "range"},
            **sections,
        }
    )


def prepare_tiny(folder: Path, pairs: str = GOOD, held_out: float = 0.1, **sections: Any) -> Config:
    """The recipe of a prepared data set with weights, times, features and titles; `held_out` is a share."""
    split = {"split": {"valid_ratio": held_out, "test_ratio": held_out}}
    case = BadInput("", {"t.csv": pairs, "items.csv": ITEMS}, (), settings={**FEATURES, **TITLES, **split})
    data = case.write(folder / "in")
    config = config_of(folder, data, **{**TINY, **sections})
    api.prepare(config)
    return config


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(action: Callable[[], Any], kind: type[DistGatError] = DistGatError) -> str:
    """The message of the error of ours that `action` must raise."""
    try:
        action()
    except kind as err:
        return str(err)
    raise AssertionError("not refused")


def rewrite_manifest(folder: Path) -> None:
    """Make the manifest of a prepared folder, a model or a checkpoint true of the files that are there now."""
    manifest = json.loads((folder / MANIFEST).read_text())
    described = {key: value for key, value in manifest.items() if key not in ("format", "version", "files")}
    write_manifest(folder, manifest["format"], manifest["version"], described)
