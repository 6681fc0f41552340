"""`rotate_key`: pseudonyms of another key, in the prepared data and the saved model of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dist_gat.base.errors import ConfigError
from dist_gat.base.run_folder import lock_run
from dist_gat.base.storage import MANIFEST, atomic_folder, write_manifest
from dist_gat.data.pseudonyms import SEALED, Pseudonyms, open_pseudonyms, require_key
from dist_gat.explain.trained_run import RunSource, locate_run, refuse_urls
from dist_gat.graph import part as prepared_format
from dist_gat.graph.forget_node import NOT_CONTENT
from dist_gat.graph.part import open_prepared
from dist_gat.serve import saved_model as model_format
from dist_gat.serve.saved_model import open_model


def rotate_key(
    run: RunSource, key: str | Path, new_key: str | Path, overrides: Sequence[str] = (),
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:  # fmt: skip
    """Give all nodes of a run pseudonyms of a new key, which is written where there is no such file.

    Weights and the numbers of nodes stay, so whoever has the old key and a list of IDs can still find them by the
    order of the numbers: prepare and train anew where the old key is known to others. Checkpoints are of the old data,
    so the run can't go on from them. A call that was stopped between data and model can be given again. Returns
    `nodes`, how many were renamed. Raises `ConfigError` for a wrong key, and where users are held out, whose IDs are
    not sealed.
    """
    config, folder = locate_run(run, overrides)
    refuse_urls("rotate-key", config, run)
    old = open_pseudonyms(Path(key))
    begun = open_pseudonyms(Path(new_key)).fingerprint if Path(new_key).exists() else None
    with lock_run(folder):
        prepared, model = open_prepared(config.data.prepared), open_model(folder / "model")
        is_half_done = begun is not None and prepared.manifest.get("pseudonyms") == begun
        for manifest, where in ((prepared.manifest, prepared.folder), (model.manifest, model.folder)):
            if not (is_half_done and manifest is prepared.manifest):
                require_key(manifest, old, str(where))
        if prepared.num_cold_users("valid") + prepared.num_cold_users("test"):
            raise ConfigError(
                f"{prepared.folder}: users are held out (data.split.cold_users), and their IDs are not sealed; prepare "
                "again with the new key"
            )
        new = open_pseudonyms(Path(new_key), progress)
        if not is_half_done:
            renew(prepared.folder, prepared.manifest, (prepared_format.FORMAT, prepared_format.VERSION), old, new)
        fingerprint = {"data_fingerprint": open_prepared(prepared.folder).fingerprint}
        renew(model.folder, {**model.manifest, **fingerprint}, (model_format.FORMAT, model_format.VERSION), old, new)
    return {"nodes": sum(prepared.ranges.count(kind) for kind in prepared.ranges.node_types)}


def renew(target: Path, manifest: dict[str, Any], kind: tuple[str, int], old: Pseudonyms, new: Pseudonyms) -> None:
    """Replace a folder by one whose IDs have other pseudonyms. kind: format and version."""
    content = {name: value for name, value in manifest.items() if name not in NOT_CONTENT}
    with atomic_folder(target) as folder:
        shutil.copytree(target, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        for path in sorted((folder / "ids").glob("*.parquet")):
            ids = pl.read_parquet(path)
            if SEALED not in ids.columns:  # of a type without nodes
                continue
            clear = pl.Series([old.unseal(path.stem, one) for one in ids[SEALED]], dtype=pl.String)
            names, sealed = new.hidden(path.stem, clear)
            renamed = ids.with_columns(names.alias("external_id"), sealed.alias(SEALED))
            renamed.sort("external_id").write_parquet(path)
        write_manifest(folder, *kind, content | {"pseudonyms": new.fingerprint})
