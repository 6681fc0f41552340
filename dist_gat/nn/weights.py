"""Weights on disk: `dense.safetensors`, and one file of embedding rows a part, whatever the world size was.

`extra` tensors (optimiser state, representations) of a part stand in its file beside the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dist_gat.errors import StorageError
from dist_gat.graph.ranges import NodeRanges
from dist_gat.nn.recommender import Recommender


def part_file(folder: Path, part: int) -> Path:
    return folder / "parts" / f"{part:04d}.safetensors"


def save_dense(folder: Path, model: Recommender) -> None:
    """The dense weights; rank 0 alone calls this."""
    save_file(
        {name: value.contiguous() for name, value in model.dense.state_dict().items()}, folder / "dense.safetensors"
    )


def save_parts(
    folder: Path, model: Recommender, ranges: NodeRanges, parts: range, extra: Mapping[str, Tensor] | None = None
) -> None:
    """One file for each of this rank's `parts`: `embedding` and the rows of every `extra` [O, …] tensor."""
    rows_of = {"embedding": model.table.weight.detach(), **(extra or {})}
    (folder / "parts").mkdir(exist_ok=True)
    for part in parts:
        start, stop = (int(ranges.starts[p]) - model.table.first_node for p in (part, part + 1))
        save_file(
            {name: rows[start:stop].cpu().contiguous() for name, rows in rows_of.items()}, part_file(folder, part)
        )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises `StorageError`."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as err:
        raise StorageError(f"{path}: expected a safetensors file: {err}; train again or copy the folder anew") from None


@torch.no_grad()
def load_weights(folder: Path, model: Recommender, ranges: NodeRanges, parts: range) -> None:
    """Fill the dense weights, and the embedding rows of this rank's `parts`, in place."""
    dense = load_tensors(folder / "dense.safetensors")
    expected = {name: tuple(value.shape) for name, value in model.dense.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in dense.items()}
    if expected != found:
        raise StorageError(
            f"{folder}: the saved weights {found} are not those of the configured model {expected}; "
            "use the configuration that the model was trained with (config.yaml in the run folder)"
        )
    model.dense.load_state_dict(dense)
    for part in parts:
        rows = load_tensors(part_file(folder, part))["embedding"]
        start, stop = (int(ranges.starts[p]) - model.table.first_node for p in (part, part + 1))
        expected_shape = tuple(model.table.weight[start:stop].shape)
        if rows.shape != expected_shape:
            raise StorageError(
                f"{part_file(folder, part)}: expected embedding rows of shape {expected_shape}, "
                f"found {tuple(rows.shape)}; the model belongs to another prepared data set"
            )
        model.table.weight[start:stop] = rows.to(model.table.weight)
