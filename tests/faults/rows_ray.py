"""Rows that need Ray: lost workers, lost nodes, and who may reach what."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from faults.board import row
from faults.runs import NUM_STEPS, Command, RayCommand, assert_nothing_lost, events_of, points_of, small_run
from ray_head import Head, running_head

from dist_gat.config.files import dump_config
from dist_gat.launcher.ray import QUIET, loopback_allowed

LOOPBACK = {"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"}


@row(15, "Ray worker killed, max_failures=1", "resumes by itself; nothing lost")
def kill_ray_worker(folder: Path) -> str:
    config = small_run(folder, checkpoint={"every_steps": 4}, launch={"launcher": "ray", "max_failures": 1})
    command = RayCommand(config)
    command.wait_for_step(6)
    os.kill(command.workers()[-1], signal.SIGKILL)
    code, output = command.end(180)
    assert code == 0, output
    return resumed(config)


def resumed(config: Any) -> str:
    starts = [event["step"] for event in events_of(config, "start")]
    assert len(starts) == 2, f"started at {starts}"
    assert 0 < starts[1] < NUM_STEPS
    assert_nothing_lost(config)
    return f"one command; the second attempt went on from step {starts[1]}"


@row(16, "Ray node lost in a two-node local cluster", "resumes by itself; nothing lost")
def lose_ray_node(folder: Path) -> str:
    with two_nodes() as (cluster, nodes):
        launch = {"launcher": "ray", "max_failures": 1, "address": cluster.address}
        config = small_run(folder, checkpoint={"every_steps": 4}, launch=launch)
        command = RayCommand(config)
        command.wait_for_step(6)
        lost = node_of_a_worker(command, nodes)
        cluster.remove_node(lost, allow_graceful=False)
        code, output = command.end(240)
        assert code == 0, output
    return resumed(config)


@row(22, "pre-emption notice for a Ray node", "a checkpoint is saved first; goes on from it on the other node")
def drain_ray_node(folder: Path) -> str:
    with two_nodes() as (cluster, nodes):
        launch = {"launcher": "ray", "max_failures": 0, "address": cluster.address}
        # No checkpoint comes by itself: an epoch is longer than the row. Ray takes some seconds to hand the notice on.
        num_steps = 1300
        train = {"batch_size": 2, "max_steps": num_steps, "num_epochs": 3, "log_every": 1}
        config = small_run(folder, train=train, launch=launch)
        command = RayCommand(config)
        command.wait_for_step(3)
        going = node_of_a_worker(command, nodes)
        drain(cluster.address, going.node_id, deadline_s=10)
        code, output = command.end(240)
        assert code == 0, output
    starts = [event["step"] for event in events_of(config, "start")]
    saves = [event["step"] for event in events_of(config, "save")]
    assert len(starts) == 2, f"started at {starts}"
    assert 0 < starts[1] == saves[0] < num_steps, f"started at {starts}, saved at {saves}"
    assert points_of(config) == list(range(1, num_steps + 1))
    return f"saved at step {saves[0]}, went on from there on the other node, and not as a failure"


def node_of_a_worker(command: RayCommand, nodes: list[Any]) -> Any:
    """A node that a rank runs on. What a rank forks bears its name for a moment, but has no raylet for a parent."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
    parents = [psutil.Process(pid).ppid() for pid in command.workers()]
    return next(raylets[pid] for pid in parents if pid in raylets)


def drain(address: str, node_id: str, deadline_s: float) -> None:
    """What a cluster manager does before it takes a node away."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + deadline_s) * 1000)
    accepted, message = GcsClient(address=address).drain_node(node_id, reason, "a test", deadline_ms)
    assert accepted, message


@contextmanager
def two_nodes() -> Iterator[tuple[Any, list[Any]]]:
    """A head without processors, and two nodes with two each, on loopback."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    from ray.cluster_utils import Cluster

    with loopback_allowed():
        common = {"node_ip_address": "127.0.0.1", "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={**common, "num_cpus": 0})
        try:
            nodes = [cluster.add_node(**common, num_cpus=2) for _ in range(2)]
            cluster.wait_for_nodes()
            yield cluster, nodes
        finally:
            cluster.shutdown()


@row(18, "ports during a run; job submission without a token", "loopback only; refused")
def ports_and_tokens(folder: Path) -> str:
    local = Command(small_run(folder, "local"))
    seen = {"local": watch_ports(local.process.pid, lambda: local.process.poll() is None)}
    assert local.end()[0] == 0
    config = small_run(folder, "ray", launch={"launcher": "ray"})
    (folder / "recipe.yaml").write_text(dump_config(config))
    with running_head() as head:
        refused = [stranger_of(head, folder, RAY_AUTH_MODE="disabled"), stranger_of(head, folder, RAY_AUTH_TOKEN="no")]
        job = head.submit(folder)
        seen["ray"] = watch_ports(head.process.pid, lambda: job.poll() is None)
        output, _ = job.communicate()
        assert job.returncode == 0, output
    for name, addresses in seen.items():
        assert addresses, f"{name}: saw no port"
        assert addresses <= LOOPBACK, f"{name}: listens on {addresses}"
    assert all("does not let us in" in output for output in refused), refused
    return f"local {sorted(seen['local'])}, Ray {sorted(seen['ray'])}; without and with a wrong token: refused"


def stranger_of(head: Head, folder: Path, **environment: str) -> str:
    stranger = head.submit(folder, **environment)
    output, _ = stranger.communicate(timeout=90)
    assert stranger.returncode == 1, output
    return output


def watch_ports(root: int, is_running: Any) -> set[str]:
    """Addresses at which a process and its descendants listen, while something runs, as `ss` tells."""
    found: set[str] = set()
    while is_running():
        try:
            family = {root, *(child.pid for child in psutil.Process(root).children(recursive=True))}
        except psutil.NoSuchProcess:
            break
        listing = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            if any(f"pid={pid}," in line for pid in family):
                found.add(line.split()[3].rpartition(":")[0])
        time.sleep(0.2)
    return found
