"""What a private run begins with: two sums over users, their bounds, their noise, and what they cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import private_columns, private_recipe
from scipy.sparse import csr_array

from dist_gat.api import prepare, recommend, train
from dist_gat.base.errors import ConfigError
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.worker import lone_worker
from dist_gat.privacy import ledger
from dist_gat.serve.ranker import Ranker
from dist_gat.train import private_start
from dist_gat.train.private_start import noisy_counts, noisy_pairs, rows_of_pairs
from dist_gat.train.trainer import Trainer

KEY = bytes(range(32))
START = {"counts": 0.2, "pairs": 0.3, "head_items": 30, "strength": 10.0}
PRIVACY = {"epsilon": 8.0, "num_users": 100, "max_interactions": 4, "public_items": True}


def alone(values: np.ndarray) -> np.ndarray:
    return values


def users_of(seed: int, users: int = 40, items: int = 25) -> csr_array:
    """int64 [U, I]; the first user met nothing, the second one item, the third all."""
    met = np.random.default_rng(seed).random((users, items)) < np.linspace(0.05, 0.9, users)[:, None]
    met[0], met[1], met[2] = False, np.arange(items) == 3, True
    return csr_array(met.astype(np.int64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private_start")
    write_synthetic(folder / "raw", 80, 50, 4, 9, 0.2, seed=1)
    prepare(private_recipe(folder))
    return folder


def started(folder: Path, run: Path, start: dict[str, Any] = START, **sections: dict[str, Any]) -> Any:
    config = private_recipe(folder, privacy=PRIVACY | {"start": start}, **sections)
    return config.model_copy(update={"run": str(run)})


def test_one_user_changes_each_sum_by_no_more_than_one() -> None:
    met_UI = users_of(0)
    for release in (noisy_counts, noisy_pairs):
        whole = release(met_UI, 0.0, KEY, alone)
        changes = []
        for user in range(met_UI.shape[0]):
            rest = release(met_UI[np.arange(met_UI.shape[0]) != user], 0.0, KEY, alone)
            change = whole - rest
            # each pair is released once, √2 times as large as it is used
            if release is noisy_pairs:
                change = np.triu(change, 1) * math.sqrt(2)
            changes.append(np.linalg.norm(change))
        assert max(changes) <= 1 + 1e-9, release
        assert max(changes) > 0.95, release


def test_each_number_that_is_released_has_noise_of_its_own() -> None:
    met_UI, noise = users_of(1, items=200), 3.0
    counts = noisy_counts(met_UI, noise, KEY, alone) - noisy_counts(met_UI, 0.0, KEY, alone)
    assert counts.std() == pytest.approx(noise, rel=0.15)
    pairs = noisy_pairs(met_UI, noise, KEY, alone) - noisy_pairs(met_UI, 0.0, KEY, alone)
    assert np.array_equal(pairs, pairs.T)
    upper = pairs[np.triu_indices(200, 1)]
    assert upper.std() * math.sqrt(2) == pytest.approx(noise, rel=0.02)
    assert len(np.unique(upper)) == len(upper)
    other = noisy_pairs(met_UI, noise, bytes(32), alone) - noisy_pairs(met_UI, 0.0, KEY, alone)
    assert abs(np.corrcoef(upper, other[np.triu_indices(200, 1)])[0, 1]) < 0.05


def test_rows_of_pairs_are_the_nearest_products_of_few_numbers() -> None:
    rng = np.random.default_rng(2)
    factor = rng.normal(size=(20, 3))
    rows = rows_of_pairs(factor @ factor.T, np.ones(20), 3, strength=5.0)
    expected = factor @ factor.T / np.linalg.eigvalsh(factor @ factor.T)[-1] * 5.0 * 20
    assert np.allclose(rows @ rows.T, expected)
    # directions of noise alone don't count
    assert not rows_of_pairs(-np.eye(20), np.ones(20), 3, strength=5.0).any()
    assert not rows_of_pairs(factor @ factor.T, np.ones(20), 10, strength=5.0)[:, 3:].round(6).any()


def test_a_run_begins_with_the_noised_sums(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(started(folder, tmp_path), lone_worker())
    store, private = trainer.store, trainer.private
    assert private is not None
    items = np.concatenate([np.array(store.ranges.nodes_of_type(part, "item")) for part in store.own_parts])
    met_UI = private_start.own_met(store, trainer.task.relation, items)
    assert met_UI.sum() == store.prepared.num_pairs(trainer.task.relation, "train")
    key = private_start.derived_key(private.secret, "noise of counts")
    count_I = noisy_counts(met_UI, private.plan.counts_noise, key, alone)
    table = trainer.model.table.weight.detach().numpy()[items - store.ownership.first_node]
    assert np.allclose(table[:, 0], np.log(np.maximum(count_I, max(1, 2 * private.plan.counts_noise))))
    assert (np.abs(table[:, 1:]).sum(axis=1) > 0).sum() == 30
    # a user's scores: the counts, and the products of the other numbers
    trained = trainer.model.encoder.layers[0].scoring
    own = torch.from_numpy(table[:5])
    user = own.mean(dim=0) @ trained.value.weight.T + trained.bias
    assert np.allclose(
        (user @ torch.from_numpy(table).T).detach(), table[:, 0] + own[:, 1:].mean(dim=0).numpy() @ table[:, 1:].T
    )
    trainer.log.close()


def test_a_run_without_steps_is_paid_once(folder: Path, tmp_path: Path) -> None:
    whole = {"counts": 0.25, "pairs": 0.75, "head_items": 30}
    config = started(folder, tmp_path, whole, train={"max_steps": 0, "patience": 0, "batch_size": 40})
    told = train(config)["privacy"]
    assert told["steps_done"] == 0
    assert 7.9 < told["epsilon_spent"] <= 8
    assert recommend(tmp_path, users=["u1"], k=3).height == 3
    again = train(config)["privacy"]
    assert again == told
    anew = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"resume": "restart"})})
    twice = train(anew)["privacy"]
    assert twice["runs"] == 2
    assert twice["epsilon_spent"] > 8


def test_steps_go_on_from_the_start_and_a_resumed_run_does_not_begin_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger.secrets, "token_bytes", lambda size: bytes(range(size)))
    once = train(started(folder, tmp_path))
    assert once["steps"] == 6
    assert 7.9 < once["privacy"]["epsilon_spent"] <= 8
    begun: list[Any] = []
    monkeypatch.setattr("dist_gat.train.trainer.start_private", lambda *_: begun.append(1))
    assert train(started(folder, tmp_path))["privacy"] == once["privacy"]
    assert begun == []


def test_a_run_that_crashed_in_its_first_step_is_not_paid_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = started(folder, tmp_path)
    with monkeypatch.context() as patch:

        def crash(self: Trainer, *arguments: Any, **more: Any) -> None:
            self.writer.wait()
            raise RuntimeError("planted")

        patch.setattr(Trainer, "train_step", crash)
        with pytest.raises(RuntimeError, match="planted"):
            train(config)
    told = train(config)["privacy"]
    assert told["runs"] == 1
    assert told["epsilon_spent"] <= 8


def test_who_met_nothing_is_told_no_count_without_noise(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(started(folder, tmp_path))
    monkeypatch.setattr(Ranker, "popularity", None)
    found = recommend(tmp_path, new_users=[{"user": "nobody", "items": []}], k=5)
    assert found["score"].is_sorted(descending=True)
    assert found["score"].n_unique() == 5, "noise in each"


@pytest.mark.parametrize(
    ("start", "sections", "message"),
    [
        ({"counts": 0.5, "pairs": 0.6}, {}, "privacy.start: counts and pairs share 1.1 of the budget"),
        ({"counts": 0.5, "pairs": 0.5}, {}, "with train.max_steps=0"),
        (START, {"model": {"scoring": "uniform", "num_heads": 1}}, "model.scoring=uniform: set it to additive"),
        (START, {"model": {"embedding_size": 1, "num_heads": 1}}, "model.embedding_size=1: set it to 2"),
    ],
)
def test_a_start_that_can_not_be_is_refused(
    folder: Path, start: dict[str, Any], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        private_recipe(folder, privacy=PRIVACY | {"start": start}, **sections)


def test_columns_add_nothing_to_the_start_and_learn_from_the_first_step(folder: Path, tmp_path: Path) -> None:
    columns = private_columns(folder, 50)
    columns["data"]["prepared"] = str(tmp_path / "prepared")
    columns["privacy"] |= {"start": START}
    config = private_recipe(folder, **columns).model_copy(update={"run": str(tmp_path / "run")})
    prepare(config)
    trainer = Trainer(config, lone_worker())
    batch = trainer.samplers[0].sample(trainer.store, torch.tensor([0, 0]))
    rows = trainer.model.table(batch.nodes_U)
    items = batch.features["item"][0]
    assert len(items) > 20
    assert torch.equal(trainer.model.dense.input_rows(rows, batch.features, batch.has_id_U)[items], rows[items])
    trainer.gradient_rules.clear()
    trainer.train_step(batch, at_end=True)
    assert all((weight != 0).any() for weight in trainer.model.dense.inputs.parameters())
    trainer.log.close()
