"""Whole private runs: budget, secret, resume, workers, and what a recipe must not say."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Ranks
from recipes import PRIVATE, private_columns, private_recipe
from safetensors.torch import load_file

from dist_gat.api import evaluate, export, fit, prepare, recommend, report, train, tune
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.random import Purpose, make_key, normal_rows
from dist_gat.checkpoints.checkpoint_writer import CheckpointWriter
from dist_gat.config.files import all_keys
from dist_gat.config.privacy_section import RULES
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.worker import join_workers, lone_worker
from dist_gat.jobs.training import train_worker
from dist_gat.optim import gaussian_noise
from dist_gat.privacy import ledger
from dist_gat.train.private_run import planned_steps
from dist_gat.train.run_log import read_curves
from dist_gat.train.trainer import Trainer
from dist_gat.workflows.compared_models import model_recipe

BROKEN: dict[str, Any] = {
    "task": {"kind": "rating"}, "data.split.method": "temporal", "data.split.cold_items": 0.1,
    "data.split.cold_users": 0.1, "data.min_item_interactions": 2,
    "data.prune": {"share": 0.1},
    "data.relations": {"wishes": {"table": "a.csv"}},
    "data.user_features": {"path": "a.csv", "id_column": "user_id", "columns": ["c0"]},
    "data.nodes": {"user": {"table": "a.csv", "columns": {"age": "numeric"}}},
    "data.known_nodes": "met", "privacy.public_columns": False, "train.max_steps": 0,
    "model.inputs.fusion": "gate",
    "parts.method": "metis", "sampling.strategy": "recent", "sampling.time": "strict",
    "sampling.exclude_targets": False, "negatives.distribution": "popularity", "negatives.in_batch": True,
    "negatives.num_per_seed": 1, "model.inputs.ids": ["user", "item"], "model.inputs.id_dropout": 0.1,
    "model.scoring": "degree", "model.terms": ["degree"], "model.keys": ["relation"], "model.softmax": "relation",
    "model.projection": "relation", "model.residual": False, "model.combination": "mean",
    "model.decoder.kind": "cosine", "model.decoder.popularity": True, "blend.spectral_rank": 4, "blend.linear": True,
    "loss.kind": "bpr", "loss.log_q": True, "loss.l2": 0.1, "train.clip_norm": 1.0, "train.patience": 2,
    "train.init_from": "other", "train.freeze": ["encoder.*"], "train.precision": "bfloat16",
    "privacy.public_items": False, "sampling.fanouts": [4, 4], "sampling.relations": {},
    "data.split": {"method": "random"},
}  # fmt: skip


# these break the promise of a recipe that has columns of items
WITH_COLUMNS = {"data.known_nodes", "privacy.public_columns", "train.max_steps"}
# what a recipe may say of these keeps the promise: a function of one user's own rows, or of no data at all
HARMLESS = {
    "data.path", "data.interactions", "data.train", "data.valid", "data.test", "data.format", "data.query",
    "data.separator", "data.header", "data.quote", "data.encoding", "data.missing", "data.columns", "data.time_unit",
    "data.min_weight", "data.min_message_weight", "data.repeated", "data.skip_bad_rows", "data.min_user_interactions",
    "data.k_core", "data.max_user_interactions", "data.item_titles", "data.vectors", "data.prepared", "data.memory_gb",
    "data.split.valid_is_part_of_train", "data.split.merge_valid", "data.split.cold_user_history",
    "parts.num_parts", "sampling.prefetch", "sampling.num_streams", "sampling.access", "sampling.cache_bytes",
    "negatives.num_shared", "model.weight_scale", "model.num_heads", "model.negative_slope", "model.embedding_size",
    "model.init_std", "model.decoder.temperature", "train.num_epochs", "train.batch_size",
    "train.max_steps", "train.stop_epoch", "train.learning_rate", "train.dense_learning_rate", "train.schedule",
    "train.warmup_steps", "train.metric", "train.until", "train.min_gain", "train.validate_every", "train.log_every",
    "train.profile",
}  # fmt: skip
# refused with others, or by what is beside the rules
WITH_OTHERS = {
    "data.nodes", "data.user_features", "data.item_features", "data.known_nodes", "data.split.valid_ratio",
    "data.split.test_ratio", "sampling.fanouts", "sampling.relations", "model.normalization", "model.transform",
    "train.adapter_from",
}  # fmt: skip
JUDGED = ("data", "parts", "sampling", "negatives", "model", "loss", "train")


def test_every_setting_was_judged() -> None:
    """A new setting fails here until somebody has thought about what it does to the promise."""
    known = HARMLESS | WITH_OTHERS | {rule.setting for rule in RULES}
    keys = all_keys()
    leaves = [key for key in keys if key.partition(".")[0] in JUDGED and not any(k.startswith(f"{key}.") for k in keys)]
    assert [key for key in leaves if not any(key == one or key.startswith(f"{one}.") for one in known)] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private_run")
    write_synthetic(folder / "raw", 80, 50, 4, 9, 0.2, seed=1)
    prepare(private_recipe(folder))
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    return train(private_recipe(folder))


def nested(key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {head: nested(rest, value) if rest else value}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    files = sorted((run / "model").rglob("*.safetensors"))
    return {f"{file.name}/{name}": rows for file in files for name, rows in load_file(file).items()}


@pytest.mark.parametrize("key", BROKEN)
def test_what_would_break_the_promise_is_refused_by_name(folder: Path, key: str) -> None:
    changes = nested(key, BROKEN[key])
    if key == "task":
        changes |= {"train": {"metric": "rmse"}}
    if key in WITH_COLUMNS:
        columns = private_columns(folder, 50)
        changes = {name: columns.get(name, {}) | changes.get(name, {}) for name in columns | changes}
    if key == "sampling.fanouts":
        changes["sampling"]["relations"] = {"interacts_reversed": {"fanouts": [0, 0]}}
    with pytest.raises(ConfigError) as refused:
        private_recipe(folder, **changes)
    named = {"data.nodes": "data.nodes.user.columns.age", "task": "task.kind", "data.split": "data.split.method"}
    assert f"{named.get(key, key)}" in str(refused.value)
    assert "set" in str(refused.value) or "leave it out" in str(refused.value)


def test_every_rule_has_a_recipe_that_breaks_it() -> None:
    named = {"task.kind": "task"}
    told = {named.get(rule.setting, rule.setting) for rule in RULES}
    assert told - BROKEN.keys() == {"task.relation", "model.adapter", "model.text", "loss.distill"}


def test_the_budget_is_spent_and_told_everywhere(folder: Path, result: dict[str, Any]) -> None:
    config, told = private_recipe(folder), result["privacy"]
    run = config.run_folder
    assert result["steps"] == told["steps"] == told["steps_done"] == 2 * 3 == planned_steps(config)
    assert 7.9 < told["epsilon_spent"] <= 8 < told["rdp_epsilon_spent"]
    assert json.loads((run / "model" / "manifest.json").read_text())["privacy"] == told
    curve = read_curves(run)["privacy/epsilon_spent"]
    assert [step for step, _ in curve] == [3, 6]
    assert curve[1][1] == pytest.approx(told["epsilon_spent"])
    assert result["valid"] == {}
    assert result["history"] == []
    assert "Privacy spent" in report(run).read_text(encoding="utf-8")
    # nothing is left: the same command takes no further step
    again = train(config)
    assert again["steps"] == 6
    assert again["privacy"] == told


def test_the_model_serves_and_is_measured(folder: Path, result: dict[str, Any]) -> None:
    config = private_recipe(folder)
    assert 0 <= evaluate(config)["test"]["ndcg@20"] <= 1
    assert recommend(config.run_folder, users=["u1"], k=3).height == 3


def test_the_first_weights_do_not_tell_whom_the_steps_draw(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashes of `dist_gat.base.random` can be undone: rows tell their seed, which must be of rows alone."""
    config = one_run(folder, tmp_path, monkeypatch, parts={"num_parts": 2})
    trainer = Trainer(config, lone_worker())
    private, table = trainer.private, trainer.model.table.weight.detach()
    assert private is not None

    def first_rows(seed: int) -> torch.Tensor:
        rows = normal_rows(make_key(seed, Purpose.EMBEDDING), 0, *table.shape, config.model.init_std)
        return torch.from_numpy(np.array(rows))

    assert torch.equal(table, first_rows(private.weights_seed))
    draws = trainer.samplers[0].source.seed
    assert draws == trainer.samplers[0].seed != private.weights_seed
    trainer.log.close()


def test_steps_are_counted_before_a_checkpoint_has_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: Any, snapshot: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(CheckpointWriter, "start", start)
    config = one_run(folder, tmp_path, monkeypatch)
    with pytest.raises(RuntimeError, match="planted"):
        train_worker(config, lone_worker())
    assert [entry.steps for entry in ledger.read_entries(tmp_path / ledger.LEDGER_FILE)] == [3]


def test_users_are_not_asked_or_shown_by_other_verbs(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    config = private_recipe(folder)
    with pytest.raises(ConfigError, match="hub: the model of a private run has rows"):
        export(config.run_folder, tmp_path / "out", ["hub"], license="mit")
    assert model_recipe("recipe", config).privacy == config.privacy
    with pytest.raises(ConfigError, match="gat: a private run on the same users more"):
        model_recipe("gat", config)


def test_a_delta_that_allows_to_publish_a_user_is_refused(folder: Path) -> None:
    for privacy in ({"delta": 0.01}, {"num_users": 1}):
        with pytest.raises(ConfigError, match=r"privacy\.delta=.*: set it below 1 / num_users"):
            private_recipe(folder, privacy=privacy)


def test_the_secret_is_in_one_file_that_its_owner_alone_reads(folder: Path, result: dict[str, Any]) -> None:
    run = private_recipe(folder).run_folder
    key = run / ledger.KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_text()
    plain = [path for path in run.rglob("*") if path.is_file() and path != key]
    told = [secret.encode(), bytes.fromhex(secret)]
    assert len(plain) > 10
    assert not any(text in path.read_bytes() for path in plain for text in told)
    assert 'seed": 0' in (run / "model" / "manifest.json").read_text() or "seed: 0" in (run / "config.yaml").read_text()


def test_a_resumed_run_repeats_its_noise_and_spends_nothing_twice(
    folder: Path, result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halved = (one_run(folder, tmp_path / name, monkeypatch) for name in ("whole", "halved"))
    assert train(whole)["privacy"]["epsilon_spent"] <= 8
    crash_at(monkeypatch, step=4)
    with pytest.raises(RuntimeError, match="planted"):
        train(halved)
    monkeypatch.undo()
    told = train(halved)["privacy"]
    assert told["runs"] == 1
    assert told["steps_done"] == 6
    assert told["epsilon_spent"] <= 8
    ours, theirs = weights_of(halved.run_folder), weights_of(whole.run_folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def one_run(folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch, **sections: dict[str, Any]) -> Config:
    """With the same secret for all such runs."""
    monkeypatch.setattr(ledger.secrets, "token_bytes", lambda size: bytes(range(size)))
    return private_recipe(folder, **sections).model_copy(update={"run": str(run)})


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    real = gaussian_noise.GaussianNoise.apply

    def apply(self: Any, model: Any, norm: float, at: int) -> None:
        if at == step:
            # the checkpoint before is committed in the background, which a crash would otherwise outrun
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join()
            raise RuntimeError("planted")
        real(self, model, norm, at)

    monkeypatch.setattr(gaussian_noise.GaussianNoise, "apply", apply)


def test_a_run_that_begins_anew_is_counted(folder: Path, tmp_path: Path) -> None:
    config = private_recipe(folder).model_copy(update={"run": str(tmp_path)})
    once = train(config)["privacy"]
    key = (tmp_path / ledger.KEY_FILE).read_text()
    again = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"resume": "restart"})})
    twice = train(again)["privacy"]
    assert twice["runs"] == 2
    assert once["epsilon_spent"] < twice["epsilon_spent"] < 2 * once["epsilon_spent"]
    assert (tmp_path / ledger.KEY_FILE).read_text() != key


def test_a_run_without_its_secret_or_with_other_steps_does_not_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = private_recipe(folder).model_copy(update={"run": str(tmp_path)})
    crash_at(monkeypatch, step=4)
    with pytest.raises(RuntimeError, match="planted"):
        train(config)
    monkeypatch.undo()
    with pytest.raises(Exception, match="has noise for 6 steps, and the recipe asks for 15"):
        train(private_recipe(folder, train={"num_epochs": 5}).model_copy(update={"run": str(tmp_path)}))
    (tmp_path / ledger.KEY_FILE).unlink()
    with pytest.raises(StorageError, match=r"privacy\.key: expected a secret"):
        train(config)


def train_on_rank(config: Config) -> None:
    """With a known secret."""
    ledger.secrets.token_bytes = lambda size: bytes(range(size))
    train_worker(config, join_workers(torch.device("cpu"), 1, 60.0))


@pytest.mark.parametrize("start", [None, {"counts": 0.2, "pairs": 0.3, "head_items": 20}])
@pytest.mark.parametrize("has_columns", [False, True])
def test_two_workers_train_the_same_model(
    folder: Path, tmp_path: Path, ranks: Ranks, start: dict[str, Any] | None, has_columns: bool
) -> None:
    sections: dict[str, Any] = {"train": {"precision": "float64"}, "privacy": {**PRIVATE["privacy"], "start": start}}
    if has_columns:
        columns = private_columns(folder, 50)
        sections["data"] = columns["data"] | {"prepared": str(tmp_path / "prepared")}
        sections["privacy"] |= columns["privacy"] | {"start": start}
        prepare(private_recipe(folder, **sections))
    one, two = (
        private_recipe(folder, **sections).model_copy(update={"run": str(tmp_path / name)}) for name in ("one", "two")
    )
    ranks.run(1, train_on_rank, one)
    ranks.run(2, train_on_rank, two)
    ours, theirs = weights_of(two.run_folder), weights_of(one.run_folder)
    assert ours.keys() == theirs.keys()
    for name, rows in theirs.items():
        assert torch.allclose(ours[name], rows, rtol=0, atol=1e-6), name


def test_settings_are_not_chosen_by_data_of_users(folder: Path) -> None:
    config = private_recipe(folder)
    with pytest.raises(ConfigError, match="`dist-gat fit` chooses settings by validation pairs"):
        fit(config)
    with pytest.raises(ConfigError, match="`dist-gat tune` chooses settings by validation pairs"):
        tune(config, folder / "space.yaml")
