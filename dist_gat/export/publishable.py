"""The part of a private model that its promise covers, as a saved model of its own, without any users.

What stays out: rows, numbers, known items and IDs of users, in-degrees, means over interactions, the fingerprint of the
data, parts (which count users), and all that lies beside the model. Items stand in the order of their IDs. Numbers are
rounded to float16, because the noise of private rows is made of float64 and not of real numbers.

`recommend --new-users` works from the folder: a new user is attention over items. So does `--new-items` where columns
say what a new item is: their encoders, scales and categories are public or have noise.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dist_gat.base.errors import ConfigError
from dist_gat.base.storage import save_array, write_manifest
from dist_gat.checkpoints.weight_files import DENSE, load_tensors, part_file, save_tensors
from dist_gat.config.files import dump_config
from dist_gat.serve.saved_model import DEPTH, FORMAT, RANKING_ROWS, VERSION, SavedModel

ROWS = ("embedding", RANKING_ROWS, f"{DEPTH}0", f"{DEPTH}1")
# of the promise and its price, all of which are functions of the recipe
TOLD = (
    "unit", "epsilon", "delta", "clip", "sampling_rate", "steps", "noise_multiplier", "counts_noise", "pairs_noise",
    "steps_done", "runs", "epsilon_spent", "rdp_epsilon_spent",
)  # fmt: skip


def write_publishable(model: SavedModel, folder: Path) -> dict[str, Any]:
    """Write `folder/model` and `folder/PRIVACY.md`. Returns how many items, and the ε and δ that they keep.

    Raises `ConfigError` for a model without a promise, and one of a folder whose runs have spent more than it.
    """
    privacy = model.manifest.get("privacy")
    if privacy is None:
        raise ConfigError(
            "export publishable: this model keeps no promise of privacy; train it with a section privacy, see "
            "docs/privacy.md"
        )
    if privacy["epsilon_spent"] > privacy["epsilon"]:
        raise ConfigError(
            f"export publishable: the runs of this folder have spent ε = {privacy['epsilon_spent']:.3f} of "
            f"{privacy['epsilon']:g} together; train in a new folder, and publish one run alone"
        )
    source, target, own = model.relation.source, model.relation.target, folder / "model"
    ids = model.ids(target).sort("external_id")
    nodes = np.array(ids["node_id"])
    count = len(nodes)
    dense = {name: rounded(value) for name, value in load_tensors(model.folder / DENSE).items()}
    write_rows(model, nodes, own, dense.get("encoder.layers.0.scoring.bias"))
    save_tensors(own / DENSE, dense)
    (own / "ids").mkdir()
    ids.with_columns(node_id=pl.int_range(count, dtype=pl.Int64)).write_parquet(own / "ids" / f"{target}.parquet")
    model.ids(source).clear().select("external_id", "node_id").write_parquet(own / "ids" / f"{source}.parquet")
    save_array(own / "known" / "0000.indptr.npy", np.zeros(1, np.int64))
    save_array(own / "known" / "0000.items.npy", np.zeros(0, np.int64))
    for name in ("categories", "reductions"):
        if (model.folder / name / target).is_dir():
            shutil.copytree(model.folder / name / target, own / name / target)
    (own / "config.yaml").write_text(dump_config(model.config), encoding="utf-8")
    told = {key: privacy[key] for key in TOLD if key in privacy}
    is_target = [kind == target for kind in model.schema.node_types]
    kept = {key: model.manifest[key] for key in ("name", "schema", "relation", "representation_size", "blend")}
    content = kept | {
        "bounds": [np.concatenate([[0], np.cumsum(np.where(is_target, count, 0))]).tolist()],
        "spectral_rank": 0, "half_life": None, "data_fingerprint": "", "pairs": {}, "privacy": told,
        "row_sizes": {name: size for name, size in model.manifest["row_sizes"].items() if name in ROWS},
        "new_users": {"weights": {}, "spectral_columns": 0}, "pseudonyms": None,
        "columns": {target: model.manifest["columns"][target]} if target in model.manifest["columns"] else {},
    }  # fmt: skip
    write_manifest(own, FORMAT, VERSION, content)
    (folder / "PRIVACY.md").write_text(in_words(told, source, target), encoding="utf-8")
    return {"items": count, "epsilon": told["epsilon"], "delta": told["delta"]}


def write_rows(model: SavedModel, nodes: np.ndarray, folder: Path, bias_E: Tensor | None) -> None:
    """Of items, in one part. nodes: int64, theirs in the model, in the order in which they are written. bias_E: of the
    layer, which is the representation of a user without items."""
    part_at = np.searchsorted(model.ranges.starts, nodes, side="right") - 1
    parts = [load_tensors(part_file(model.folder, part)) for part in range(model.ranges.num_parts)]
    rows: dict[str, Tensor] = {}
    for name in ROWS:
        if name in parts[0]:
            whole = torch.cat([part[name] for part in parts])
            rows[name] = rounded(whole[torch.from_numpy(nodes)])
    # what the format has room for, and this model nothing in it
    rows["spectral"] = torch.zeros(len(nodes), 0)
    num_slots = parts[int(part_at[0])]["degree"].shape[1] if len(nodes) else 1
    rows["degree"] = torch.zeros(len(nodes), num_slots, dtype=torch.int64)
    if bias_E is not None:
        # not how many users met an item, but its place by these scores: users without items get the last ones
        rows["degree"][:, 0] = (rows[RANKING_ROWS] @ bias_E).argsort().argsort()
    save_tensors(part_file(folder, 0), rows)


def rounded(values: Tensor) -> Tensor:
    """float32, in steps of float16."""
    return values.half().float()


def in_words(told: dict[str, Any], source: str, target: str) -> str:
    return f"""# What these weights promise

They are ({told["epsilon"]:g}, {told["delta"]:.3g})-differentially private for each {source}, with all interactions:
whoever has this folder, and knows everybody else, learns hardly more about one {source} than without that {source} in
the data. Two data sets are neighbours when one has a {source} more. ε spent: {told["epsilon_spent"]:.3f}.

Public are the recipe, which {target}s exist, and their titles. The promise is of this folder alone: other runs on the
same {source}s add up, and so do settings that were chosen by measuring these {source}s.

`dist-gat recommend FOLDER --new-users FILE` recommends to those whose {target}s you give.
"""
