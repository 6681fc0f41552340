"""Training over several hosts, which are network namespaces here: the same losses, and what a run survives."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hosts import PORT, Hosts, can_make_hosts, fill, own_disk, running_hosts
from recipes import recipe

from dist_gat import api
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config

pytestmark = [
    pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1500),
    pytest.mark.skipif(not can_make_hosts(), reason="needs root, ip and tc"),
]  # fmt: skip


def recipe_of(folder: Path, run: str, **train: Any) -> Config:
    return recipe(
        folder, run, parts={"num_parts": 4}, sampling={"fanouts": [4], "access": "exchange"},
        train={"batch_size": 100, "num_epochs": 3, "log_every": 1, "patience": 0, **train},
        checkpoint={"every_steps": 2},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    api.write_synthetic(folder / "raw", 100, 60, 4, 8, 0.1, seed=5)
    api.prepare(recipe_of(folder, "alone"))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    """The run of one host."""
    return api.train(recipe_of(folder, "alone"))


def start(cluster: Hosts, folder: Path, name: str, workers: int = 2, **train: Any) -> Any:
    config = recipe_of(folder, name, **train)
    path = folder / f"{Path(name).name}.yaml"
    path.write_text(dump_config(config))
    return cluster.run(
        "train", str(path), "launch.launcher=ray", f"launch.address={cluster.head.address}:{PORT}",
        f"launch.num_workers={workers}", "launch.interface=eth0", "launch.timeout_s=30", "launch.max_failures=5",
    )  # fmt: skip


def losses_of(folder: Path, name: str) -> list[float]:
    """Of every step that was told, the last time that it was taken."""
    events = map(json.loads, (folder / name / "progress.jsonl").read_text().splitlines())
    found = {event["step"]: event["loss"] for event in events if event["event"] == "step"}
    return [found[step] for step in sorted(found)]


def wait_for_step(folder: Path, name: str, step: int, run: Any) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and run.poll() is None:
        path = folder / name / "progress.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.2)
    raise TimeoutError(run.communicate()[0] if run.poll() is not None else "no such step")


def test_two_hosts_train_as_one_over_a_slow_link_too(folder: Path, expected: dict[str, Any]) -> None:
    with running_hosts(2) as cluster:
        before = [cluster.sent_bytes(host) for host in cluster.hosts]
        run = start(cluster, folder, "two")
        output, _ = run.communicate(timeout=400)
        assert run.returncode == 0, output
        sent = [cluster.sent_bytes(host) - was for host, was in zip(cluster.hosts, before, strict=True)]
        assert min(sent) > 100_000, "both hosts had a part"
        assert losses_of(folder, "two") == pytest.approx(expected["losses"], rel=1e-4)
        for host in cluster.hosts:
            cluster.slow(host)
        run = start(cluster, folder, "slow")
        output, _ = run.communicate(timeout=400)
        assert run.returncode == 0, output
        assert losses_of(folder, "slow") == losses_of(folder, "two")
        assert "Traceback" not in output


@pytest.mark.parametrize("how", ["cut", "kill"])
def test_a_lost_host_is_told_and_replaced_and_the_run_goes_on(folder: Path, expected: dict[str, Any], how: str) -> None:
    with running_hosts(2) as cluster:
        run = start(cluster, folder, how)
        wait_for_step(folder, how, 3, run)
        lost = cluster.hosts[1]
        cluster.cut(lost) if how == "cut" else cluster.kill(lost)
        wait_until_told(folder, how, f"lost host {lost.address}")
        wait_until_told(folder, how, "waiting for room: 2 workers wanted, room for 1")
        other = cluster.add()
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output
        assert f"lost host {lost.address}" in output
        assert f"host {other.address} joined" in output
        assert losses_of(folder, how) == pytest.approx(expected["losses"], rel=1e-4)
        print(output)


def test_three_hosts_train_as_one_and_one_of_them_is_replaced(folder: Path, expected: dict[str, Any]) -> None:
    with running_hosts(3) as cluster:
        run = start(cluster, folder, "three", workers=3)
        wait_for_step(folder, "three", 3, run)
        lost = cluster.hosts[2]
        cluster.kill(lost)
        wait_until_told(folder, "three", "waiting for room: 3 workers wanted, room for 2")
        cluster.add()
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output
        assert losses_of(folder, "three") == pytest.approx(expected["losses"], rel=1e-4)


def test_a_clock_that_is_an_hour_ahead_changes_nothing(folder: Path, expected: dict[str, Any]) -> None:
    """The clocks since the host's start, of which Linux has one a namespace; there is one wall clock."""
    with running_hosts(1) as cluster:
        ahead = ["--time", "--monotonic", "3600", "--boottime", "3600"]
        cluster.add(within=["unshare", *ahead, "--fork", "--kill-child"])
        run = start(cluster, folder, "clock")
        output, _ = run.communicate(timeout=400)
        assert run.returncode == 0, output
        assert losses_of(folder, "clock") == pytest.approx(expected["losses"], rel=1e-4)
        assert "lost host" not in output


def test_a_full_disk_of_one_host_is_told_and_the_run_begins_when_there_is_room(
    folder: Path, expected: dict[str, Any]
) -> None:
    """Its temporary files: Ray starts no worker there, and tries without end."""
    with running_hosts(1) as cluster:
        other = cluster.add(within=own_disk(cluster.disk, "64m"))
        fill(cluster.disk_of(other))
        run = start(cluster, folder, "full-host")
        wait_until_told(folder, "full-host", "they have not begun; Ray goes on trying: look for a full disk")
        (cluster.disk_of(other) / "filler").unlink()
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output
        assert losses_of(folder, "full-host") == pytest.approx(expected["losses"], rel=1e-4)


def wait_until_told(folder: Path, name: str, words: str) -> None:
    deadline, path = time.monotonic() + 400, folder / name / "progress.jsonl"
    while time.monotonic() < deadline:
        if path.exists() and words in path.read_text():
            return
        time.sleep(0.5)
    raise TimeoutError(words)
