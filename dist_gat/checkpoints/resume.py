"""Going on from a checkpoint: which one, and whether the run is still the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.checkpoints.checkpoint_store import Archive
from dist_gat.checkpoints.run_progress import Cursor
from dist_gat.checkpoints.snapshot import load_checkpoint, look_at_checkpoint
from dist_gat.config.files import all_keys
from dist_gat.config.sections import CheckpointConfig, Config
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import share_text, together
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.recommender import Recommender
from dist_gat.optim.optimizer import Optimizers
from dist_gat.sampling.graph_store import GraphStore

# Settings that don't change the numbers of the steps to come. The data set is compared by its fingerprint.
FREE = (
    "name", "run", "data", "parts", "launch", "checkpoint", "evaluate", "blend", "sampling.prefetch",
    "sampling.num_streams", "sampling.access", "sampling.cache_bytes", "train.stop_epoch", "train.patience",
    "train.validate_every", "train.log_every", "train.profile",
)  # fmt: skip
# These move the end of the run, and with it every decaying learning rate
LENGTH = ("train.num_epochs", "train.max_steps")


def check_resume(archive: Archive, config: Config, prepared: PreparedGraph) -> int | None:
    """The step that a run would go on from, or None; looked at before any worker starts.

    Raises `ConfigError` with the settings that differ, where the checkpoints belong to another run, and
    `StorageError` where the newest one is damaged as far as its manifest and file sizes tell.
    """
    for step in archive.steps():
        try:
            manifest = look_at_checkpoint(archive, step)
        except StorageError:
            if config.checkpoint.resume == "previous":
                continue
            raise
        changed = changed_settings(manifest["config"], config.model_dump(mode="json"))
        if manifest["data_fingerprint"] != prepared.fingerprint:
            changed.append(f"the data set in {prepared.folder} is another one")
        if changed:
            raise ConfigError(
                f"{archive.name(step)} belongs to a run with other settings: {'; '.join(changed)}. "
                "Use those settings to go on, run=FOLDER for another run, or checkpoint.resume=restart to delete this "
                "one and start anew"
            )
        return step
    return None


def changed_settings(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`key: saved VALUE, now VALUE` of every setting that would make another run of it."""
    return differing_settings(saved, now, FREE + (LENGTH if now["train"]["schedule"] == "constant" else ()))


def differing_settings(saved: dict[str, Any], now: dict[str, Any], free: Sequence[str]) -> list[str]:
    """`key: saved VALUE, now VALUE` of every setting that differs, but for those below a `free` key."""
    changed = []
    for key in all_keys():
        if any(key == name or key.startswith(name + ".") for name in free):
            continue
        before, after = _value(saved, key), _value(now, key)
        if before != after and not isinstance(after, dict):
            changed.append(f"{key}: saved {before}, now {after}")
    return changed


def _value(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def resume(
    archive: Archive,
    config: CheckpointConfig,
    model: Recommender,
    optimizers: Optimizers,
    store: GraphStore,
    channel: Channel,
) -> Cursor:
    """Load the newest checkpoint and return its cursor, or a new one where there is none. Collective.

    With `resume=previous` damaged checkpoints are set aside and the one before is taken. Raises `StorageError`
    on all ranks.
    """
    # rank 0 looks, because other hosts may see the folder later
    steps = json.loads(share_text(json.dumps(archive.steps()), channel)[0])
    for step in steps:
        try:
            with together(channel, f"{archive.name(step)}: this checkpoint can't be used"):
                return load_checkpoint(archive, step, model, optimizers, store)
        except StorageError:
            if config.resume != "previous" or step == steps[-1]:
                raise
            channel.barrier()
            if channel.rank == 0:
                archive.set_aside(step)
    return Cursor()
