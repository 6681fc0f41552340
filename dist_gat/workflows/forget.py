"""`forget`: a user out of what a run has, and what is left said plainly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dist_gat.base.errors import ConfigError
from dist_gat.base.run_folder import lock_run, sweep_run
from dist_gat.checkpoints.checkpoint_store import open_checkpoints
from dist_gat.data.pseudonyms import open_pseudonyms, require_key
from dist_gat.data.vocabulary import parse_id
from dist_gat.explain.trained_run import RunSource, locate_run, refuse_urls
from dist_gat.graph.forget_node import forget_in_prepared
from dist_gat.graph.part import open_prepared
from dist_gat.serve.forget_user import forget_in_model, name_data
from dist_gat.serve.saved_model import open_model


def forget(run: RunSource, user: Any, overrides: Sequence[str] = (), key: str | Path | None = None) -> dict[str, Any]:
    """Take a user out of the prepared data and the saved model of a run, and delete its checkpoints, which have the
    user's rows and moments.

    key: of data with pseudonyms; `user` is the external ID then. Returns `pairs`, how many went, `checkpoints`, the
    steps of those deleted, and `remains`: what still depends on the user, in sentences. Raises `DataError` for an
    unknown user, `ConfigError` where the data is not that of the run, `StorageError`.
    """
    config, folder = locate_run(run, overrides)
    refuse_urls("forget", config, run)
    name = str(user)
    with lock_run(folder):
        prepared, model = open_prepared(config.data.prepared), open_model(folder / "model")
        if model.manifest["data_fingerprint"] != prepared.fingerprint:
            raise ConfigError(
                f"{prepared.folder} is not the data that {model.folder} was trained with; name that with "
                "data.prepared=FOLDER"
            )
        kind = model.relation.source
        if key is not None:
            pseudonyms = open_pseudonyms(Path(key))
            require_key(prepared.manifest, pseudonyms, str(prepared.folder))
            name = pseudonyms.pseudonym(kind, name)
        ids = prepared.ids(kind)
        external = parse_id(name, ids["external_id"].alias(kind))
        node = int(ids.filter(pl.col("external_id") == external)["node_id"].item())
        checkpoints = open_checkpoints(folder, config.checkpoint.url)
        steps = checkpoints.steps()
        checkpoints.clear()
        # the data last: as long as the user is there, whoever was stopped in between can ask again
        forget_in_model(model, node)
        pairs = forget_in_prepared(prepared, node)
        name_data(open_model(model.folder), open_prepared(prepared.folder).fingerprint)
        sweep_run(folder)
    return {"pairs": pairs, "checkpoints": steps, "remains": what_remains(model.manifest.get("privacy"))}


def what_remains(privacy: dict[str, Any] | None) -> list[str]:
    """In sentences. privacy: of the manifest of a private run."""
    told = "trained with this user's interactions"
    bound = f"{told}; nothing bounds how much they tell. Train anew: `dist-gat train` begins without the user"
    if privacy is not None:
        spent = f"ε = {privacy['epsilon_spent']:.3f}, δ = {privacy['delta']:.2e}"
        bound = f"{told}, and tell of them no more than {spent} allows. If that is not enough, train anew"
    return [
        f"Dense weights and the rows of all other nodes were {bound}.",
        "In-degrees of items in the saved model, filters of the blend, and metrics, curves and pages count the user.",
        "The tables that `prepare` read still have the user: delete the rows there, or the next `dist-gat prepare` "
        "brings the user back. So have other runs, those of `compare` and `tune` in the run folder too, checkpoints at "
        "other places, exports, and the kept vectors of texts in `data.vectors`.",
    ]
