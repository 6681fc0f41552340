"""Stopping in what is not a step: inference, ranking, blend, saved model. The next attempt has the same bits."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import Command, checkpoints_of, events_of, hashes_of, state_of
from helpers import Ranks
from processes import AskedAt
from recipes import recipe
from safetensors.torch import load_file

from dist_gat import api
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange import long_work
from dist_gat.exchange.worker import join_workers
from dist_gat.jobs.training import train_worker

SECTIONS: dict[str, Any] = {
    "sampling": {"fanouts": [4, 4]},
    "negatives": {"num_shared": 16},
    "train": {"num_epochs": 2, "batch_size": 256, "metric": "ndcg@5"},
    "evaluate": {"ks": [5], "edge_chunk": 400, "user_chunk": 20},
    "blend": {"spectral_rank": 4, "linear": True, "linear_deflation": 2},
}
NUM_STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    write_synthetic(folder / "raw", 80, 60, 4, 12, 0.1, seed=3)
    api.prepare(recipe(folder, base=SECTIONS))
    return folder


def attempt(config: Config, stop_at: int, rank_asked: int = 0) -> tuple[dict[str, Any], int]:
    """What one attempt returns, and how often it looked for requests. One of the ranks is asked to stop."""
    config.run_folder.mkdir(parents=True, exist_ok=True)
    alone = not torch.distributed.is_initialized()
    asked = AskedAt(stop_at if alone or torch.distributed.get_rank() == rank_asked else 0)
    # after each step of a long work
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(long_work, "LOOK_EVERY_S", 0.0)
        result = train_worker(config, join_workers(torch.device("cpu"), 1, 30, asked))
    return {key: value for key, value in result.items() if key != "peak_memory_bytes"}, asked.looks


def model_of(config: Config) -> dict[str, str]:
    root = config.run_folder / "model"
    return hashes_of({str(path.relative_to(root)): load_file(path) for path in sorted(root.rglob("*.safetensors"))})


def assert_same_run(config: Config, result: dict[str, Any], whole: Config, expected: dict[str, Any]) -> None:
    assert result == expected
    assert state_of(config) == state_of(whole)
    assert model_of(config) == model_of(whole)
    assert not list(config.run_folder.rglob(".*"))


def test_a_stop_at_any_look_loses_nothing(folder: Path) -> None:
    whole = recipe(folder, "whole", base=SECTIONS)
    expected, looks = attempt(whole, 0)
    assert expected["steps"] == NUM_STEPS
    assert len(expected["history"]) == 2
    assert looks > 100, "validations and what follows are looked at"
    in_validation = 0
    for stop_at in range(2, looks + 1, looks // 8):
        config = recipe(folder, f"stopped-{stop_at}", base=SECTIONS)
        stopped, looked = attempt(config, stop_at)
        assert stopped["stopped"]
        assert looked == stop_at
        assert not (config.run_folder / "model").exists()
        in_validation += stopped["steps"] in (3, 6) and len(stopped["history"]) < stopped["steps"] // 3
        assert checkpoints_of(config).steps()[0] == stopped["steps"]
        result, _ = attempt(config, 0)
        assert_same_run(config, result, whole, expected)
    assert in_validation > 2


def test_two_stops_in_one_validation_lose_nothing(folder: Path) -> None:
    whole, config = recipe(folder, "whole-2", base=SECTIONS), recipe(folder, "twice", base=SECTIONS)
    expected, _ = attempt(whole, 0)
    for stop_at in (6, 3):
        stopped, _ = attempt(config, stop_at)
        assert (stopped["stopped"], stopped["steps"], stopped["history"]) == (True, 3, [])
    result, _ = attempt(config, 0)
    assert_same_run(config, result, whole, expected)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_all_ranks_stop_where_one_is_asked(ranks: Ranks, folder: Path, share: float) -> None:
    launch = {"launch": {"num_workers": 2}}
    whole = recipe(folder, f"ranks-whole-{share}", base=SECTIONS, **launch)
    config = recipe(folder, f"ranks-{share}", base=SECTIONS, **launch)
    (expected, looks), _ = ranks.run(2, attempt, whole, 0)
    stop_at = int(share * looks)
    found = ranks.run(2, attempt, config, stop_at, 1)
    assert [(result["stopped"], looked) for result, looked in found] == [(True, stop_at)] * 2
    (result, _), _ = ranks.run(2, attempt, config, 0)
    assert_same_run(config, result, whole, expected)


def test_a_signal_in_a_validation_of_minutes_stops_within_seconds(tmp_path: Path) -> None:
    """A process of its own, two workers; one node a chunk makes the validation long."""
    write_synthetic(tmp_path / "raw", 30_000, 400, 4, 5, 0.1, seed=3)
    sections: dict[str, Any] = {
        "sampling": {"fanouts": [4, 4]},
        "train": {"num_epochs": 1, "max_steps": 3, "batch_size": 256},
        "launch": {"num_workers": 2},
    }
    whole, config = recipe(tmp_path, "whole", **sections), recipe(tmp_path, **sections)
    api.prepare(whole)
    api.train(whole)
    command = Command(config, "evaluate.edge_chunk=1")
    # a start takes a minute and more where the host is busy with other work
    command.wait_for(lambda: bool(events_of(config, "start")), 180)
    # the few hundred items come first: a slow host tells of them, a fast one is through before it tells
    command.wait_for(lambda: any(work["total"] > 10_000 for work in events_of(config, "work")))
    asked = time.monotonic()
    command.process.send_signal(signal.SIGTERM)
    code, output = command.end()
    assert code == 143, output
    assert time.monotonic() - asked < 10, "the validation takes minutes"
    work = events_of(config, "work")[-1]
    assert work["what"].startswith("inference, layer 1 of 2")
    assert work["done"] < work["total"] / 2
    assert "inference, layer 1 of 2" in output
    assert "left" in output
    assert not events_of(config, "valid")
    code, output = Command(config).end()
    assert code == 0, output
    assert state_of(config) == state_of(whole)
    assert model_of(config) == model_of(whole)
