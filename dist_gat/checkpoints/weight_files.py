"""Weights on disk: `dense.safetensors`, and one file of embedding rows a part, whatever the world size was.

`extra` tensors (optimiser state, representations) of a part stand in its file beside the embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dist_gat.base.errors import StorageError
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.graph_store import GraphStore

DENSE = "dense.safetensors"
ROWS_AT_ONCE = 1 << 14
# names of types in safetensors files
TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def part_name(part: int) -> str:
    return f"parts/{part:04d}.safetensors"


def part_file(folder: Path, part: int) -> Path:
    return folder / part_name(part)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file; folders on the way are made.

    Written some rows at a time: the library would make two copies of everything in memory first. The format is a header
    in JSON, padded to 8 bytes and after its length, and then the bytes of all tensors, the widest numbers first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name, value in sorted(tensors.items(), key=lambda entry: (-entry[1].element_size(), entry[0])):
        start, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": TYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            value = tensors[name].detach()
            for rows in (value if value.dim() else value.reshape(1)).split(ROWS_AT_ONCE):
                file.write(memoryview(rows.cpu().flatten().view(torch.uint8).numpy()))


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


def load_module(module: torch.nn.Module, dense: Mapping[str, Tensor], start: str, folder: Path) -> None:
    """Fill a part of the dense model, whose names begin with `start`. Raises `StorageError`."""
    own = {name.removeprefix(start): value for name, value in dense.items() if name.startswith(start)}
    try:
        module.load_state_dict(own)
    except RuntimeError as err:
        raise StorageError(
            f"{folder / DENSE}: not the weights of its recipe: {err}; run `dist-gat train` to write the model anew"
        ) from None


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
