"""Resuming from a checkpoint: which one, and whether it belongs to the same run."""

from __future__ import annotations

import json
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.checkpoints.checkpoint_store import CheckpointStore
from dist_gat.checkpoints.run_progress import RunProgress
from dist_gat.checkpoints.snapshot import load_checkpoint, look_at_checkpoint
from dist_gat.config.differences import differing_settings, resume_rule
from dist_gat.config.section import FREE, LENGTH
from dist_gat.config.sections import CheckpointConfig, Config
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import share_text, together
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.recommender import Recommender
from dist_gat.optim.optimizer import Optimizers
from dist_gat.sampling.graph_store import GraphStore


def check_resume(checkpoints: CheckpointStore, config: Config, prepared: PreparedGraph) -> int | None:
    """The step from which a run would resume, or None; checked before any worker starts.

    Raises `ConfigError` with the settings that differ, where the checkpoints belong to another run, and
    `StorageError` where the newest one is damaged as far as its manifest and file sizes tell.
    """
    for step in checkpoints.steps():
        try:
            manifest = look_at_checkpoint(checkpoints, step)
        except StorageError:
            if config.checkpoint.resume == "previous":
                continue
            raise
        changed = changed_settings(manifest["config"], config.model_dump(mode="json"))
        if manifest["data_fingerprint"] != prepared.fingerprint:
            changed.append(f"the data set in {prepared.folder} is another one")
        if changed:
            raise ConfigError(
                f"{checkpoints.name(step)} belongs to a run with other settings: {'; '.join(changed)}. "
                "Use those settings to go on, run=FOLDER for another run, or checkpoint.resume=restart to delete this "
                "one and start anew"
            )
        return step
    return None


def changed_settings(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`key: saved VALUE, now VALUE` of every changed setting that a resumed run may not change."""
    free = (FREE, LENGTH) if now["train"]["schedule"] == "constant" else (FREE,)
    return differing_settings(saved, now, lambda key, field: resume_rule(field) in free)


def resume(
    checkpoints: CheckpointStore,
    config: CheckpointConfig,
    model: Recommender,
    optimizers: Optimizers,
    store: GraphStore,
    channel: Channel,
) -> RunProgress:
    """Load the newest checkpoint and return its progress, or a new one where there is none. Collective.

    With `resume=previous`, damaged checkpoints are set aside and the one before them is loaded. Raises `StorageError`
    on all ranks.
    """
    # rank 0 looks, because other hosts may see the folder later
    steps = json.loads(share_text(json.dumps(checkpoints.steps()), channel)[0])
    for step in steps:
        try:
            with together(channel, f"{checkpoints.name(step)}: this checkpoint can't be used"):
                return load_checkpoint(checkpoints, step, model, optimizers, store)
        except StorageError:
            if config.resume != "previous" or step == steps[-1]:
                raise
            channel.barrier()
            if channel.rank == 0:
                checkpoints.set_aside(step)
    return RunProgress()
