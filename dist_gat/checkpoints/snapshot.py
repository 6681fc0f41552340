"""Checkpoints: the whole state of a run at a step, in safetensors and JSON.

manifest.json                  format, progress, configuration, fingerprint of the data set, SHA-256 of every file
dense.safetensors              dense weights: inputs, layers, own scores
dense_optimizer.safetensors    Adam's state, `parameter number.name`; where there are dense weights
losses.safetensors             float64 [step]: the loss of every step so far
parts/0000.safetensors         embedding, exp_avg, exp_avg_sq of each node

Embedding and optimiser rows are stored by part, not by rank, so another world size can load them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_gat.base.errors import StorageError
from dist_gat.base.storage import read_manifest, verify_files
from dist_gat.checkpoints.checkpoint_store import CheckpointStore
from dist_gat.checkpoints.run_progress import RunProgress
from dist_gat.checkpoints.weight_files import (
    DENSE,
    load_dense,
    load_rows,
    load_tensors,
    load_weights,
    part_file,
    part_name,
    part_rows,
    save_tensors,
)
from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import together
from dist_gat.nn.recommender import Recommender
from dist_gat.optim.optimizer import Optimizers, dense_parameters
from dist_gat.sampling.graph_store import GraphStore

FORMAT, VERSION = "dist_gat.checkpoint", 3
DENSE_OPTIMIZER, LOSSES = "dense_optimizer.safetensors", "losses.safetensors"
REMEDY = (
    "add checkpoint.resume=previous to go on from the checkpoint before it, or checkpoint.resume=restart to start anew"
)


@dataclass(frozen=True)
class Snapshot:
    """This rank's share of the state of a run. Tensors are views: write them before the next step.

    parts: tensors by part. common: tensors by file name; rank 0 writes them.
    """

    parts: dict[int, dict[str, Tensor]]
    common: dict[str, dict[str, Tensor]]
    content: dict[str, Any]


def take_snapshot(
    config: Config, model: Recommender, optimizers: Optimizers, store: GraphStore, progress: RunProgress
) -> Snapshot:
    moments = optimizers.row_moments(model)
    common = {DENSE: model.dense.state_dict(), LOSSES: {"losses": torch.tensor(progress.losses, dtype=torch.float64)}}
    if optimizers.dense is not None:
        common[DENSE_OPTIMIZER] = dense_state(optimizers.dense)
    content = {
        "step": progress.step,
        "best": progress.best,
        "history": list(progress.history),
        "base": progress.base,
        "world_size": store.channel.world_size,
        "row_optimizer_steps": optimizers.row_steps(model),
        "data_fingerprint": store.prepared.fingerprint,
        "config": config.model_dump(mode="json"),
    }
    parts = {part: part_rows(model, store, part, moments) for part in store.own_parts}
    return Snapshot(parts, common if store.channel.rank == 0 else {}, content)


def begin_checkpoint(checkpoints: CheckpointStore, snapshot: Snapshot, channel: Channel) -> ExitStack:
    """Write the files of a checkpoint. Closing what this returns commits them: it is there whole, or not at all.

    Closing may take place in another thread, while training goes on. Both are collective and raise `StorageError`.
    """
    step = snapshot.content["step"]
    with ExitStack() as stack:
        folder = stack.enter_context(checkpoints.writing(step, channel, FORMAT, VERSION, snapshot.content))
        with together(channel, f"{checkpoints.name(step)}: can't be written, no checkpoint was added"):
            for part, tensors in snapshot.parts.items():
                save_tensors(part_file(folder, part), tensors)
            for name, tensors in snapshot.common.items():
                save_tensors(folder / name, tensors)
        return stack.pop_all()


def read_checkpoint(folder: Path, only: Sequence[str] | None = None) -> dict[str, Any]:
    """The manifest of a checkpoint, after checking all files, or `only` those named, by size. Raises `StorageError`."""
    return read_manifest(folder, FORMAT, VERSION, REMEDY, only)


def look_at_checkpoint(checkpoints: CheckpointStore, step: int) -> dict[str, Any]:
    """The manifest of a checkpoint, after checking the sizes of all files that are on this host."""
    with checkpoints.reading(step, ()) as folder:
        return read_checkpoint(folder, None if checkpoints.is_local else ())


def load_checkpoint(
    checkpoints: CheckpointStore, step: int, model: Recommender, optimizers: Optimizers, store: GraphStore
) -> RunProgress:
    """Put the state of a run back, on any world size, after checking the SHA-256 of what is read.

    Raises `StorageError`; nothing is changed where a file is damaged.
    """
    with checkpoints.reading(step, files_of(store)) as folder:
        manifest = checked(folder, store)
        load_dense(folder, model)
        if optimizers.dense is not None:
            load_dense_state(folder / DENSE_OPTIMIZER, optimizers.dense)
        moments = optimizers.start_rows(model, manifest["row_optimizer_steps"])
        for part in store.own_parts:
            load_rows(part_file(folder, part), part_rows(model, store, part, moments))
        losses = load_tensors(folder / LOSSES)["losses"].tolist()
    # an older checkpoint is of a run that began anew
    return RunProgress(manifest["step"], manifest["best"], manifest["history"], losses, manifest.get("base"))


def load_best(checkpoints: CheckpointStore, step: int, model: Recommender, store: GraphStore) -> None:
    """Put the weights of a checkpoint into the model, and nothing else. Raises `StorageError`."""
    with checkpoints.reading(step, files_of(store)) as folder:
        checked(folder, store)
        load_weights(folder, model, store)


def files_of(store: GraphStore) -> list[str]:
    """What this rank reads of a checkpoint."""
    return [DENSE, LOSSES, DENSE_OPTIMIZER, *(part_name(part) for part in store.own_parts)]


def checked(folder: Path, store: GraphStore) -> dict[str, Any]:
    """The manifest, after checking the SHA-256 of what this rank reads. Raises `StorageError`."""
    names = files_of(store)
    manifest = read_checkpoint(folder, names)
    wanted = {name: entry for name, entry in manifest["files"].items() if name in names}
    verify_files(folder, {"files": wanted}, REMEDY)
    return manifest


def dense_state(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """The optimiser's tensors as `parameter number.name`."""
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, parameter in enumerate(dense_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def load_dense_state(path: Path, optimizer: torch.optim.Adam) -> None:
    """The inverse of `dense_state`. Raises `StorageError` where the file does not fit the parameters."""
    parameters = dense_parameters(optimizer)
    for key, value in load_tensors(path).items():
        number, _, name = key.partition(".")
        is_count = name == "step"
        if int(number) >= len(parameters) or not (is_count or value.shape == parameters[int(number)].shape):
            raise StorageError(f"{path}: {key} belongs to no parameter of this model; {REMEDY}")
        parameter = parameters[int(number)]
        # Adam keeps its count of steps on the CPU
        optimizer.state[parameter][name] = value if is_count else value.to(parameter.device)
