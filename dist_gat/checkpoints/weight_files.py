"""Weights on disk: `dense.safetensors`, and one file of embedding rows a part, whatever the world size was.

`extra` tensors (optimiser state, representations) of a part stand in its file beside the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dist_gat.base.errors import StorageError
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.graph_store import GraphStore

DENSE = "dense.safetensors"


def part_name(part: int) -> str:
    return f"parts/{part:04d}.safetensors"


def part_file(folder: Path, part: int) -> Path:
    return folder / part_name(part)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # through Python's own file, whose errors name it
    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def save_dense(folder: Path, model: Recommender) -> None:
    """The dense weights; rank 0 alone calls this."""
    save_tensors(folder / DENSE, model.dense.state_dict())


def part_rows(
    model: Recommender, store: GraphStore, part: int, extra: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The rows of one of this rank's parts, as views: `embedding` and those of every `extra` [O, …] tensor."""
    rows = slice(*(int(store.ranges.starts[p]) - store.ownership.first_node for p in (part, part + 1)))
    return {name: value.detach()[rows] for name, value in {"embedding": model.table.weight, **(extra or {})}.items()}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises `StorageError`."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as err:
        raise StorageError(f"{path}: expected a safetensors file: {err}; train again or copy the folder anew") from None


def load_weights(folder: Path, model: Recommender, store: GraphStore) -> None:
    """Fill the dense weights, and the embedding rows of this rank's parts, in place. Raises `StorageError`."""
    load_dense(folder, model)
    for part in store.own_parts:
        load_rows(part_file(folder, part), part_rows(model, store, part))


def load_dense(folder: Path, model: Recommender) -> None:
    dense = load_tensors(folder / DENSE)
    expected = {name: tuple(value.shape) for name, value in model.dense.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in dense.items()}
    if expected != found:
        raise StorageError(
            f"{folder}: the saved weights {found} are not those of the configured model {expected}; "
            "use the configuration that the model was trained with (config.yaml in the run folder)"
        )
    model.dense.load_state_dict(dense)


@torch.no_grad()
def load_rows(path: Path, into: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a part's file into the views of `into`, which has some or all of their names."""
    saved = load_tensors(path)
    for name, rows in into.items():
        found = tuple(saved[name].shape) if name in saved else None
        if found != tuple(rows.shape):
            raise StorageError(
                f"{path}: expected {name} rows of shape {tuple(rows.shape)}, found {found}; "
                "the model belongs to another prepared data set"
            )
        rows.copy_(saved[name])
