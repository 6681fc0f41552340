"""Checkpoints: the whole state of a run at a step, in safetensors and JSON.

manifest.json                  format, cursor, configuration, fingerprint of the data set, SHA-256 of every file
dense.safetensors              weights of the layers
dense_optimizer.safetensors    Adam's state, `parameter number.name`; where there are dense weights
losses.safetensors             float64 [step]: the loss of every step so far
parts/0000.safetensors         embedding, exp_avg, exp_avg_sq of each node

Embedding and optimiser rows are stored by part, not by rank, so another world size can load them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_gat.config import Config
from dist_gat.errors import StorageError
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.shared_folder import shared_folder
from dist_gat.nn.recommender import Recommender
from dist_gat.nn.weights import DENSE, load_dense, load_rows, load_tensors, part_file, part_rows, save_tensors
from dist_gat.sampling.store import GraphStore
from dist_gat.storage import read_manifest, verify_files
from dist_gat.train.cursor import Cursor
from dist_gat.train.optimizer import Optimizers

FORMAT, VERSION = "dist_gat.checkpoint", 2
DENSE_OPTIMIZER, LOSSES = "dense_optimizer.safetensors", "losses.safetensors"
REMEDY = (
    "add checkpoint.resume=previous to go on from the checkpoint before it, or checkpoint.resume=restart to start anew"
)


@dataclass(frozen=True)
class Snapshot:
    """This rank's share of the state of a run, copied, so that training can go on while it is written.

    parts: tensors by part. common: tensors by file name; rank 0 writes them.
    """

    parts: dict[int, dict[str, Tensor]]
    common: dict[str, dict[str, Tensor]]
    content: dict[str, Any]


def take_snapshot(
    config: Config, model: Recommender, optimizers: Optimizers, store: GraphStore, cursor: Cursor
) -> Snapshot:
    moments = optimizers.row_moments(model)
    common = {DENSE: model.dense.state_dict(), LOSSES: {"losses": torch.tensor(cursor.losses, dtype=torch.float64)}}
    if optimizers.dense is not None:
        common[DENSE_OPTIMIZER] = dense_state(optimizers.dense)
    content = {
        "step": cursor.step,
        "best": cursor.best,
        "history": list(cursor.history),
        "world_size": store.channel.world_size,
        "row_optimizer_steps": optimizers.row_steps(model),
        "data_fingerprint": store.prepared.fingerprint,
        "config": config.model_dump(mode="json"),
    }
    parts = {part: part_rows(model, store.ranges, part, moments) for part in store.own_parts}
    return Snapshot(_copies(parts), _copies(common) if store.channel.rank == 0 else {}, content)


def _copies(files: Mapping[Any, Mapping[str, Tensor]]) -> dict[Any, dict[str, Tensor]]:
    return {key: {name: _copy(value) for name, value in tensors.items()} for key, tensors in files.items()}


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def write_snapshot(target: Path, snapshot: Snapshot, channel: Channel) -> None:
    """Commit a checkpoint named `target`: it is there whole, or not at all. Collective; raises `StorageError`."""
    with shared_folder(target, channel, FORMAT, VERSION, snapshot.content) as folder:
        for part, tensors in snapshot.parts.items():
            save_tensors(part_file(folder, part), tensors)
        for name, tensors in snapshot.common.items():
            save_tensors(folder / name, tensors)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises `StorageError`."""
    return read_manifest(folder, FORMAT, VERSION, REMEDY)


def load_checkpoint(folder: Path, model: Recommender, optimizers: Optimizers, store: GraphStore) -> Cursor:
    """Put the state of a run back, on any world size, after checking the SHA-256 of what is read.

    Raises `StorageError`; nothing is changed where a file is damaged.
    """
    manifest = read_checkpoint(folder)
    own_files = [part_file(folder, part) for part in store.own_parts]
    names = {DENSE, LOSSES, DENSE_OPTIMIZER, *(str(path.relative_to(folder)) for path in own_files)}
    verify_files(folder, {"files": {n: entry for n, entry in manifest["files"].items() if n in names}}, REMEDY)
    load_dense(folder, model)
    if optimizers.dense is not None:
        load_dense_state(folder / DENSE_OPTIMIZER, optimizers.dense)
    moments = optimizers.start_rows(model, manifest["row_optimizer_steps"])
    for part, path in zip(store.own_parts, own_files, strict=True):
        load_rows(path, part_rows(model, store.ranges, part, moments))
    losses = load_tensors(folder / LOSSES)["losses"].tolist()
    return Cursor(manifest["step"], manifest["best"], manifest["history"], losses)


def dense_state(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """The optimiser's tensors as `parameter number.name`."""
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, parameter in enumerate(optimizer.param_groups[0]["params"])
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def load_dense_state(path: Path, optimizer: torch.optim.Adam) -> None:
    """The inverse of `dense_state`. Raises `StorageError` where the parameters are others."""
    parameters = optimizer.param_groups[0]["params"]
    for key, value in load_tensors(path).items():
        number, _, name = key.partition(".")
        if int(number) >= len(parameters) or (value.dim() and value.shape != parameters[int(number)].shape):
            raise StorageError(f"{path}: {key} belongs to no parameter of this model; {REMEDY}")
        parameter = parameters[int(number)]
        # Adam keeps its step count, of no dimensions, on the CPU
        optimizer.state[parameter][name] = value.to(parameter.device) if value.dim() else value
