"""`PrivateRun`: what a private run has beside a trainer: a secret, a plan of its noise, and what is spent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from dist_gat.checkpoints.checkpoint_store import CheckpointStore
from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import share_text, together
from dist_gat.exchange.worker import Worker
from dist_gat.optim.gaussian_noise import GaussianNoise
from dist_gat.privacy.accountant import PrivacyPlan, plan_privacy, sampling_rate_of
from dist_gat.privacy.ledger import Ledger, check_steps, open_ledger
from dist_gat.privacy.noise import derived_seed
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.tasks.private_seeds import steps_of_epoch


@dataclass
class PrivateRun:
    """ledger: on rank 0, which alone writes it. is_new: whether it begins, and does not go on from a checkpoint."""

    plan: PrivacyPlan
    secret: bytes
    ledger: Ledger | None
    is_new: bool

    def with_secret_seed(self, config: Config) -> Config:
        """The recipe for what draws at random. It is not to be written anywhere."""
        return config.model_copy(update={"seed": derived_seed(self.secret, "draws")})

    @property
    def weights_seed(self) -> int:
        """Of the first weights, which the weights after a step tell; their seed can be computed from them, and must not
        tell whom the steps draw."""
        return derived_seed(self.secret, "first weights")

    def noise(self, store: GraphStore, batch_size: int) -> GaussianNoise:
        """For all items that this rank owns. batch_size: users of a step, as expected."""
        parts, first_node = store.own_parts, store.ownership.first_node
        items = np.concatenate([np.array(store.ranges.nodes_of_type(part, "item"), np.int64) for part in parts])
        std = self.plan.noise_multiplier * self.plan.clip / batch_size
        return GaussianNoise(std, first_node, items - first_node, self.secret)

    def summary(self, channel: Channel) -> dict[str, Any]:
        """What is told of the budget. Collective."""
        told = "" if self.ledger is None else json.dumps(self.ledger.summary())
        found: dict[str, Any] = json.loads(share_text(told, channel)[0])
        return found

    def saved(self, step: int) -> float | None:
        """Count the steps of a checkpoint. Returns the ε spent so far, on rank 0."""
        if self.ledger is None:
            return None
        self.ledger = self.ledger.saved(step)
        self.ledger.write()
        return float(self.ledger.summary()["epsilon_spent"])


def begin_private(config: Config, worker: Worker, checkpoints: CheckpointStore) -> PrivateRun | None:
    """None of a recipe without `privacy`. Collective. Raises `ConfigError`, `StorageError` on all ranks."""
    privacy, batch_size = config.privacy, config.train.batch_size
    if privacy is None:
        return None
    steps = planned_steps(config)
    told, ledger = "", None
    with together(worker.control, f"{config.run_folder}: this private run can't begin"):
        if worker.rank == 0:
            resumes = bool(checkpoints.steps())
            ledger = open_ledger(config.run_folder, resumes, lambda: plan_privacy(privacy, batch_size, steps))
            check_steps(ledger.plan, steps)
            told = json.dumps({
                "plan": ledger.plan.to_plain(), "secret": ledger.secret.hex(), "is_new": not resumes,
            })  # fmt: skip
    found: dict[str, Any] = json.loads(share_text(told, worker.control)[0])
    return PrivateRun(PrivacyPlan(**found["plan"]), bytes.fromhex(found["secret"]), ledger, found["is_new"])


def planned_steps(config: Config) -> int:
    """Steps of the whole run, which no data decides."""
    assert config.privacy is not None, "a private recipe"
    train = config.train
    per_epoch = steps_of_epoch(sampling_rate_of(config.privacy, train.batch_size))
    most = (train.num_epochs if train.stop_epoch is None else train.stop_epoch) * per_epoch
    return most if train.max_steps is None else min(most, train.max_steps)
