"""`export_run`: a saved model as files that other tools read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from dist_gat.base.errors import ConfigError
from dist_gat.base.storage import atomic_folder, refuse_foreign_folder, write_manifest
from dist_gat.export.hub_folder import write_hub_folder
from dist_gat.export.projector import write_projector
from dist_gat.export.publishable import write_publishable
from dist_gat.export.scoring_onnx import write_scoring
from dist_gat.export.tower_onnx import write_tower
from dist_gat.export.vectors import all_vectors, check_inner_products, write_vectors
from dist_gat.serve.item_index import build_index, save_index
from dist_gat.serve.ranker import open_ranker
from dist_gat.serve.saved_model import SavedModel, model_digest
from dist_gat.workflows.result_files import EVALUATION_FILE

Kind = Literal["vectors", "onnx", "tower", "index", "projector", "hub", "publishable"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMAT, VERSION = "dist_gat.export", 1
# lists of an index that a search looks into, unless its user says otherwise (nprobe)
PROBES = 32


def export_run(
    model: SavedModel, output: Path, kinds: Sequence[str] = ("vectors",), license: str = "",
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:  # fmt: skip
    """Write a folder with what `kinds` name; it appears whole or not at all, and replaces an earlier export alone.

    vectors:   users.parquet and items.parquet, named after the types: IDs, titles, `vector`. Inner products are scores.
    onnx:      scoring.onnx, see `scoring_onnx`. tower: user_tower.onnx, see `tower_onnx`. With items.parquet, whose
               rows are what both number, as the index does.
    index:     items.faiss, see `ItemIndex`. projector: a folder, see `projector`.
    hub:       a folder, see `hub_folder`; needs `license`.
    publishable: of a private run, what its promise covers, see `publishable`; stands alone.

    Returns what was written, and what was measured of it. Raises `ConfigError` for unknown kinds and what can't be.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigError(f"export: {', '.join(unknown) or 'nothing'}: expected some of {', '.join(KINDS)}")
    if "hub" in kinds and not license.strip():
        raise ConfigError("export hub: needs --license, that of the model, such as mit, cc-by-nc-4.0 or other")
    if "hub" in kinds and model.manifest.get("privacy") is not None:
        raise ConfigError(
            "export hub: the model of a private run has rows, known items and counts of its users beside the private "
            "rows of items; publish what `--to publishable` writes"
        )
    if "publishable" in kinds and len(kinds) > 1:
        raise ConfigError("export publishable: the other kinds have rows of users; give it a folder of its own")
    refuse_foreign_folder(output, FORMAT, "--output", "dist-gat export")
    found: dict[str, Any] = {"output": str(output), "left_out": check_inner_products(model)}
    source, target = model.relation.source, model.relation.target
    with atomic_folder(output) as folder:
        if {"vectors", "onnx", "tower", "index"} & {*kinds}:
            progress(f"writing vectors of {source}s and {target}s")
            # rows of the others are numbers of rows in these
            files = {kind: folder / f"{kind}s.parquet" for kind in (source, target)}
            found["vectors"] = {kind: write_vectors(model, kind, path) for kind, path in files.items()}
        if "onnx" in kinds:
            progress("writing and checking scoring.onnx")
            items_MD, users_ND = (all_vectors(model, kind)[1] for kind in (target, source))
            found["onnx"] = {"difference_to_torch": write_scoring(folder / "scoring.onnx", items_MD, users_ND)}
        if "index" in kinds:
            progress("building and measuring the index of items")
            index = build_index(open_ranker(model), PROBES)
            save_index(index, folder / f"{target}s.faiss")
            found["index"] = {"recall@20_of_exact": index.recall}
        if "tower" in kinds:
            progress("writing and checking user_tower.onnx")
            found["tower"] = {"difference_to_torch": write_tower(model, folder / f"{source}_tower.onnx")}
        if "projector" in kinds:
            found["projector"] = {"shown": write_projector(model, folder / "projector")}
        if "hub" in kinds:
            evaluation = evaluation_of(model)
            found["hub"] = {"metrics": write_hub_folder(model, evaluation, folder / "hub", license)}
        if "publishable" in kinds:
            progress(f"writing private {target}s alone")
            found["publishable"] = write_publishable(model, folder)
        # where it lies is nobody's business
        write_manifest(folder, FORMAT, VERSION, {key: value for key, value in found.items() if key != "output"})
    return found


def evaluation_of(model: SavedModel) -> dict[str, Any]:
    """What `evaluate` wrote of this very model; empty where it has not run since."""
    run = model.folder.parent
    try:
        found = json.loads((run / EVALUATION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_own = isinstance(found, dict) and found.get("model_sha256") == model_digest(run)
    return found if is_own else {}
