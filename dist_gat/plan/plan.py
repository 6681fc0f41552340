"""`make_plan`: memory, traffic, step time and scaling of a recipe on a graph and machines that one may not have yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import Config
from dist_gat.plan.constants import Constants
from dist_gat.plan.graph_shape import GraphShape, expected_messages
from dist_gat.plan.memory import Memory, dense_bytes, expected_memory
from dist_gat.plan.planned_columns import planned_layouts
from dist_gat.plan.step_time import StepTime, expected_step
from dist_gat.plan.traffic import Traffic, expected_traffic
from dist_gat.plan.workload import Workload, expected_workload


@dataclass(frozen=True)
class Plan:
    """What each rank is expected to need in a step. seeds_per_s: of all ranks. efficiency: seeds a second over
    num_workers times those of one worker, with the same constants and the same global step."""

    num_workers: int
    num_hosts: int
    threads: int
    cores_per_host: int
    workload: Workload
    memory: Memory
    traffic: Traffic
    time: StepTime
    seeds_per_s: float
    efficiency: float
    origin: str

    @property
    def remote_share(self) -> float:
        """The share of the embedding rows looked up by a rank that other ranks own."""
        return self.workload.remote_rows / max(self.workload.rows, 1e-9)

    def summary(self) -> dict[str, Any]:
        """Plain values; bytes and seconds."""
        return {
            **{name: getattr(self, name) for name in ("num_workers", "num_hosts", "threads", "cores_per_host")},
            "constants": self.origin,
            "workload": {**asdict(self.workload), "remote_share": self.remote_share},
            "memory_bytes": self.memory.summary(),
            "sent_bytes": self.traffic.summary(),
            "seconds": self.time.summary(),
            "seeds_per_s": self.seeds_per_s,
            "efficiency": self.efficiency,
        }


def make_plan(
    config: Config,
    graph: GraphShape,
    num_workers: int,
    constants: Constants,
    num_hosts: int | None = None,
    cores: int | None = None,
    bandwidth: float | None = None,
) -> Plan:
    """The plan of `num_workers` ranks, whatever `config.launch.num_workers` says.

    num_hosts: by default as many as the constants' workers per host ask for. cores: of a host, instead of the
    constants'. bandwidth: bytes a second that each worker can send. Raises `ConfigError` for impossible numbers.
    """
    if num_workers < 1:
        raise ConfigError(f"workers={num_workers}: expected 1 or more")
    if num_workers > config.parts.num_parts:
        raise ConfigError(
            f"workers={num_workers} exceeds parts.num_parts={config.parts.num_parts}: every worker owns at least one "
            f"part; add parts.num_parts={num_workers}"
        )
    hosts = -(-num_workers // (constants.workers_per_host or num_workers)) if num_hosts is None else num_hosts
    if not 1 <= hosts <= num_workers:
        raise ConfigError(f"hosts={hosts}: expected 1 to {num_workers}, every host has a worker")
    if cores is not None and cores < 1:
        raise ConfigError(f"cores={cores}: expected 1 or more")
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise ConfigError(f"bandwidth={bandwidth}: expected bytes a second, more than 0")
    cores = cores or constants.cores_per_host
    batch = min(config.train.batch_size, graph.num_edges)
    dense = dense_bytes(config, expected_messages(config, graph), planned_layouts(config.data, graph.columns))

    def plan(workers: int, hosts: int) -> Plan:
        workers_per_host = -(-workers // hosts)
        threads = config.launch.threads_per_worker or max(1, cores // workers_per_host)
        workload = expected_workload(config, graph, workers)
        traffic = expected_traffic(config, workload, workers, hosts, graph.all_nodes, dense)
        time = expected_step(
            config, workload, traffic, constants, workers, threads, workers_per_host, cores, bandwidth
        )  # fmt: skip
        memory = expected_memory(config, graph, workload, workers, hosts, constants)
        per_second = batch / time.step
        efficiency = 1.0 if workers == 1 else per_second / (workers * plan(1, 1).seeds_per_s)
        return Plan(
            workers, hosts, threads, cores, workload, memory, traffic, time, per_second, efficiency, constants.origin
        )  # fmt: skip

    return plan(num_workers, hosts)
