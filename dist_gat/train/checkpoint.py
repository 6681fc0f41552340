"""Checkpoints: weights, optimiser rows and the cursor of a run, in safetensors and JSON.

Embedding and optimiser rows are stored by part, not by rank, so another world size can load them. A
checkpoint folder gets its name last, after its manifest with the SHA-256 of every file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.shared_folder import shared_folder
from dist_gat.nn.recommender import Recommender
from dist_gat.nn.weights import save_dense, save_parts
from dist_gat.sampling.store import GraphStore
from dist_gat.train.optimizer import Optimizers

FORMAT, VERSION = "dist_gat.checkpoint", 1


def save_checkpoint(
    target: Path,
    model: Recommender,
    optimizers: Optimizers,
    store: GraphStore,
    channel: Channel,
    cursor: dict[str, Any],
) -> None:
    """Write a checkpoint named `target`, replacing what stands there. Collective; ranks share the file system."""
    rows_state = optimizers.rows.state.get(model.table.weight, {})
    moments = {name: value for name, value in rows_state.items() if isinstance(value, Tensor) and value.dim() == 2}
    content = {
        **cursor,
        "world_size": channel.world_size,
        "row_optimizer_steps": int(rows_state.get("step", 0)),
        "data_fingerprint": store.prepared.fingerprint,
    }
    with shared_folder(target, channel, FORMAT, VERSION, content) as folder:
        if channel.rank == 0:
            save_dense(folder, model)
            if optimizers.dense is not None:
                save_file(dense_state(optimizers.dense), folder / "dense_optimizer.safetensors")
        save_parts(folder, model, store.ranges, store.own_parts, moments)


def dense_state(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """The optimiser's tensors as `parameter number.name`."""
    state = {}
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for name, value in optimizer.state.get(parameter, {}).items():
            state[f"{number}.{name}"] = torch.as_tensor(value).contiguous()
    return state
