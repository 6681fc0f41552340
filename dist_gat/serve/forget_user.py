"""A user taken out of a saved model: rows, known items, history and ID. What the others learned from the user stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from dist_gat.base.storage import MANIFEST, atomic_folder, save_array, write_manifest
from dist_gat.checkpoints.weight_files import load_tensors, part_file, save_tensors
from dist_gat.graph.forget_node import NOT_CONTENT, forget_id
from dist_gat.serve.saved_model import FORMAT, VERSION, SavedModel


def forget_in_model(model: SavedModel, node: int) -> None:
    """Replace the folder. Raises `StorageError`."""
    part = int(model.ranges.part_of(np.array([node]))[0])
    place = node - int(model.ranges.starts[part])
    user = node - model.ranges.nodes_of_type(part, model.relation.source).start
    manifest = {key: value for key, value in model.manifest.items() if key not in NOT_CONTENT}
    with atomic_folder(model.folder) as folder:
        shutil.copytree(model.folder, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        tensors = {name: rows.clone() for name, rows in load_tensors(part_file(folder, part)).items()}
        for rows in tensors.values():
            rows[place] = 0
        save_tensors(part_file(folder, part), tensors)
        for name in ("known", "history"):
            empty_row(folder / name, part, user)
        forget_id(folder, model.relation.source, node)
        write_manifest(folder, FORMAT, VERSION, manifest)


def name_data(model: SavedModel, data_fingerprint: str) -> None:
    """Say which prepared data the model belongs to."""
    manifest = {key: value for key, value in model.manifest.items() if key not in NOT_CONTENT}
    with atomic_folder(model.folder) as folder:
        shutil.copytree(model.folder, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        write_manifest(folder, FORMAT, VERSION, manifest | {"data_fingerprint": data_fingerprint})


def empty_row(folder: Path, part: int, row: int) -> None:
    """Of row pointers and what lies behind them, where there are such files."""
    pointers = folder / f"{part:04d}.indptr.npy"
    if not pointers.exists():
        return
    indptr = np.load(pointers)
    first, last = int(indptr[row]), int(indptr[row + 1])
    for path in folder.glob(f"{part:04d}.*.npy"):
        if path != pointers:
            save_array(path, np.delete(np.load(path), slice(first, last)))
    save_array(pointers, np.append(indptr[: row + 1], indptr[row + 1 :] - (last - first)))
