"""An attack on private runs that must fail, and must succeed without noise: `python -m benchmarks.privacy_audit`.

The attacker knows all users but one, the canary, and the first weights, and sees the gradient of every step after the
noise, as from checkpoints of every step. Trials train on small data, half of them with the canary, whose items nobody
else has. The score of a trial is how much its gradients bring these items towards each other. A quarter of the trials
gives the distributions of scores with and without the canary as normals (LiRA, Carlini et al. 2022), whose likelihood
ratio guesses the others. From right and wrong guesses follows a lower bound of ε that holds with 95 % confidence
(Clopper and Pearson; Jagielski et al. 2020):

    ε ≥ log((P[guess | canary] - δ) / P[guess | no canary]), with bounds of both shares

The bound must be below the stated ε, and at least 5 where the noise was taken out. There is no luck in the draw of
users: every step draws all of them, so that the attack is as strong as it gets. With `--save` both bounds go to
benchmarks/results/quality.json.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import torch
from scipy.stats import beta, norm
from torch import Tensor
from torch.nn import functional

from benchmarks.privacy import without_noise
from benchmarks.quality import Row, save_rows
from dist_gat import api
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import lone_worker
from dist_gat.nn.recommender import Recommender
from dist_gat.privacy.accountant import plan_privacy
from dist_gat.train import private_run
from dist_gat.train.private_run import planned_steps
from dist_gat.train.trainer import Trainer

USERS, ITEMS, CANARY_ITEMS = 12, 24, 4
CONFIDENCE = 0.95
STATED, BROKEN_BAR = 4.0, 5.0


def item_name(item: int) -> str:
    return f"i{item:02}"


def write_users(folder: Path, with_canary: bool) -> None:
    """Users of the first items, and perhaps the canary, who has the last ones. All items are in the test file, because
    anyone may know which there are."""
    folder.mkdir(parents=True)
    rng, common = np.random.default_rng(0), ITEMS - CANARY_ITEMS
    pairs = [(f"u{user:02}", item_name(item)) for user in range(USERS) for item in rng.permutation(common)[:6]]
    test = [pair for item in range(ITEMS) if (pair := ("u00", item_name(item))) not in pairs]
    canary = [("x", item_name(item)) for item in range(common, ITEMS)] if with_canary else []
    for name, rows in (("train", pairs + canary), ("test", test)):
        frame = pl.DataFrame(rows, schema=[("user_id", pl.String), ("item_id", pl.String)], orient="row")
        frame.write_csv(folder / f"{name}.csv")


def audited_recipe(folder: Path, epsilon: float) -> Config:
    return parse_config({
        "name": "audit",
        "run": str(folder / "run"),
        "data": {
            "path": str(folder), "train": "train.csv", "test": "test.csv", "split": {"method": "files"},
            "prepared": str(folder / "prepared"),
        },
        "parts": {"num_parts": 1, "method": "hash"},
        "sampling": {"fanouts": [8], "relations": {"interacts_reversed": {"fanouts": [0]}}},
        "negatives": {"num_shared": 48},
        "model": {"embedding_size": 4, "scoring": "uniform", "combination": "last", "inputs": {"ids": ["item"]}},
        "loss": {"log_q": False},
        "privacy": {"epsilon": epsilon, "delta": 1e-3, "num_users": USERS, "clip": 0.5, "public_items": True},
        "train": {
            "num_epochs": 4, "batch_size": USERS, "learning_rate": 0.01, "patience": 0, "log_every": 1000,
        },
        "checkpoint": {"every_minutes": None},
        "launch": {"launcher": "local", "num_workers": 1, "threads_per_worker": 1},
    })  # fmt: skip


@dataclass
class Watcher:
    """A `GradientRule` that comes after the noise, and sees what an observer sees.

    rows_KE: the first rows of the canary's items, which are at `at`. seen: how much these items were brought together.
    """

    rows_KE: Tensor
    at: Tensor
    seen: float = 0.0

    def apply(self, model: Recommender, norm: float, step: int) -> None:
        gradient = model.table.weight.grad
        assert gradient is not None, "every item has a gradient"
        own_KE = gradient.to_dense()[self.at]
        # what the others' mean adds to an item when the canary is there
        others_KE = self.rows_KE.sum(dim=0) - self.rows_KE
        self.seen -= float((own_KE * functional.normalize(others_KE, dim=1)).sum())


def trial(config: Config) -> float:
    """The score of a run that begins anew, with a secret of its own."""
    shutil.rmtree(config.run_folder, ignore_errors=True)
    trainer = Trainer(config, lone_worker())
    ids = trainer.store.prepared.ids("item")
    node_of = dict(zip(ids["external_id"].cast(pl.String), ids["node_id"], strict=True))
    first = torch.from_numpy(np.random.default_rng(1).normal(size=(ITEMS, config.model.embedding_size)))
    with torch.no_grad():
        trainer.model.table.weight[[node_of[item_name(item)] for item in range(ITEMS)]] = first.float()
    own = range(ITEMS - CANARY_ITEMS, ITEMS)
    watcher = Watcher(first[own].float(), torch.tensor([node_of[item_name(item)] for item in own]))
    trainer.gradient_rules.append(watcher)
    sampler = trainer.samplers[0]
    for step in range(trainer.total_steps):
        trainer.train_step(sampler.sample(trainer.store, torch.tensor([step, 0])), at_end=False)
    trainer.log.close()
    return watcher.seen


def scores_of(folder: Path, epsilon: float, trials: int, noisy: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """float64 [trials] each, with and without the canary."""
    found: list[list[float]] = []
    for with_canary in (True, False):
        own = folder / ("with" if with_canary else "without")
        write_users(own, with_canary)
        config = audited_recipe(own, epsilon)
        api.prepare(config)
        assert config.privacy is not None, "a private recipe"
        plan = plan_privacy(config.privacy, config.train.batch_size, planned_steps(config))
        with (
            nullcontext() if noisy else without_noise(),
            # the same for all trials, and slow to find
            patch.object(private_run, "plan_privacy", lambda *_, plan=plan: plan),
        ):
            found.append([trial(config) for _ in range(trials)])
    return np.array(found[0]), np.array(found[1])


def lower_bound(inside: np.ndarray, outside: np.ndarray, delta: float) -> float:
    """Of ε, from scores with and without the canary; the first quarter of each is to learn from."""
    known_in, known_out = len(inside) // 4, len(outside) // 4

    def ratio(scores: np.ndarray) -> np.ndarray:
        """Log-likelihood ratio of normals."""
        fits = [(part.mean(), part.std() + 1e-12) for part in (inside[:known_in], outside[:known_out])]
        return norm.logpdf(scores, *fits[0]) - norm.logpdf(scores, *fits[1])

    learned_in, learned_out = ratio(inside[:known_in]), ratio(outside[:known_out])
    # the threshold and the side that are best where it was learned
    choices = np.unique(np.concatenate([learned_in, learned_out]))
    best = max(
        ((side, at) for side in (1, -1) for at in choices),
        key=lambda choice: bound_of(*guesses(choice, learned_in, learned_out), delta),
    )
    return bound_of(*guesses(best, ratio(inside[known_in:]), ratio(outside[known_out:])), delta)


def guesses(choice: tuple[int, float], inside: np.ndarray, outside: np.ndarray) -> tuple[int, int, int, int]:
    """Right and all where there was what the side looks for, wrong and all where there was not."""
    side, at = choice
    hits_in, hits_out = int((side * inside >= side * at).sum()), int((side * outside >= side * at).sum())
    if side > 0:
        return hits_in, len(inside), hits_out, len(outside)
    return hits_out, len(outside), hits_in, len(inside)


def bound_of(right: int, of_right: int, wrong: int, of_wrong: int, delta: float) -> float:
    """Both shares are bounded at half of what may fail, so that both hold together."""
    alpha = (1 - CONFIDENCE) / 2
    least = beta.ppf(alpha, right, of_right - right + 1) if right else 0.0
    most = beta.ppf(1 - alpha, wrong + 1, of_wrong - wrong) if wrong < of_wrong else 1.0
    return max(math.log((least - delta) / most), 0.0) if least > delta else 0.0


def audit(epsilon: float, trials: int, noisy: bool = True) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        inside, outside = scores_of(Path(folder), epsilon, trials, noisy)
        delta = audited_recipe(Path(folder), epsilon).privacy.delta_value  # type: ignore[union-attr]
    return {"bound": lower_bound(inside, outside, delta), "inside": inside, "outside": outside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of each kind, with and without the canary")
    parser.add_argument("--epsilon", type=float, default=STATED)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    private = audit(arguments.epsilon, arguments.trials)["bound"]
    broken = audit(arguments.epsilon, arguments.trials, noisy=False)["bound"]
    print(f"ε ≥ {private:.3f} at 95 %, stated {arguments.epsilon:g}")
    print(f"without noise ε ≥ {broken:.3f}, expected {BROKEN_BAR:g}")
    if arguments.save:
        command, data = "python -m benchmarks.privacy_audit", f"a canary, {arguments.trials} trials of each kind"
        save_rows([
            Row("privacy-audit", data, "ε at least", private, 0.0, "stated, not above", arguments.epsilon,
                arguments.epsilon, command),
            Row("privacy-audit", data, "ε at least, without noise", broken, 0.0, "", None, BROKEN_BAR, command),
        ])  # fmt: skip
    if private > arguments.epsilon or broken < BROKEN_BAR:
        sys.exit("the audit failed")


if __name__ == "__main__":
    main()
