"""What a run with an adapter trained, alone: some kilobytes beside a model that others have already.

adapter/manifest.json         the fingerprint of the base, and the settings of the adapter
adapter/adapter.safetensors   all dense weights that were trained, by name
"""

from __future__ import annotations

from pathlib import Path

import torch

from dist_gat.base.errors import ConfigError
from dist_gat.base.storage import atomic_folder, read_manifest, refuse_foreign_folder, verify_files, write_manifest
from dist_gat.checkpoints.weight_files import load_tensors, save_tensors
from dist_gat.config.model_sections import AdapterConfig
from dist_gat.nn.recommender import Recommender

FORMAT, VERSION = "dist_gat.adapter", 1
ADAPTER_FOLDER, ADAPTER_FILE = "adapter", "adapter.safetensors"
REMEDY = "copy the folder anew, or train the adapter again"


def check_adapter_folder(run_folder: Path) -> None:
    """Raise `ConfigError` where a run would replace what is no adapter."""
    refuse_foreign_folder(run_folder / ADAPTER_FOLDER, FORMAT, "run", "dist-gat train")


def save_adapter(run_folder: Path, model: Recommender, config: AdapterConfig, base: str | None) -> None:
    """Write `run_folder/adapter`; rank 0 alone calls this. base: the fingerprint of the model that is adapted."""
    trained = {name: one for name, one in model.dense.named_parameters() if one.requires_grad}
    with atomic_folder(run_folder / ADAPTER_FOLDER) as folder:
        save_tensors(folder / ADAPTER_FILE, trained)
        write_manifest(folder, FORMAT, VERSION, {"base": base, "adapter": config.model_dump(mode="json")})


@torch.no_grad()
def load_adapter(name: str, model: Recommender, base: str) -> None:
    """Fill the trained weights of an adapted model. Raises `ConfigError` where the adapter is of another base or has
    other weights, `StorageError` where it is damaged."""
    folder = Path(name)
    manifest = read_manifest(folder, FORMAT, VERSION, REMEDY)
    verify_files(folder, manifest, REMEDY)
    if manifest["base"] != base:
        raise ConfigError(
            f"train.adapter_from={name}: this adapter was trained on the model {manifest['base']}, and train.init_from "
            f"is {base}; name the run that it was trained on"
        )
    there = load_tensors(folder / ADAPTER_FILE)
    here = {key: one for key, one in model.dense.named_parameters() if one.requires_grad}
    shapes = [{key: list(one.shape) for key, one in side.items()} for side in (there, here)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"train.adapter_from={name}: this adapter has {shapes[0]}, and model.adapter makes {shapes[1]}; take "
            f"model.adapter={manifest['adapter']}, and its task"
        )
    for key, one in here.items():
        one.copy_(there[key])
