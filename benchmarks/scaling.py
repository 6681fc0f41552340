"""Workers of one machine: speed, memory a rank, and time to the first step: `python -m benchmarks.scaling`.

Speed: seeds a second of 2 local workers against 1, in turn, over whole training steps on the standard graph. Each
worker keeps all its threads (also those that sample ahead) on a core of its own; otherwise the single worker would use
both cores. One line keeps the seeds of a worker, as a script with DistributedDataParallel does; the other keeps the
seeds of a step, so that two workers have half of them each. The ceiling is two independent trainings at the same time,
each with one rank's seeds: what both cores give at once.

Memory: embedding rows, optimiser rows and graph bytes of a rank, for 1, 2 and 4 ranks on the same 4 parts.

Start: seconds from the launcher's call to the first update, with the local launcher and with Ray. Ray's ceiling is its
trainer with as many workers that do nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from benchmarks.graph import hashed_graph
from benchmarks.harness import OURS, Line
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.launch import run_job
from dist_gat.launcher.local import run_processes, start_workers
from dist_gat.launcher.lost_workers import first_error, wait_for_workers
from dist_gat.launcher.ray import QUIET, ray_cluster, set_defaults, torch_trainer
from dist_gat.sampling.loader import StepRange
from dist_gat.train.trainer import Trainer

WARM_UP, STEPS = 5, 25
SEEDS = 4096
WORKERS_BAR, MEMORY_BAR = 1.8, 0.9
START_BARS = {"local": 3.0, "ray": 25.0}


def recipe(
    prepared: PreparedGraph, run: str, num_workers: int, launcher: str = "local", num_seeds: int = SEEDS
) -> Config:
    return parse_config(
        {
            "name": "scaling",
            "run": run,
            "data": {"interactions": "none", "prepared": str(prepared.folder)},
            "parts": {"num_parts": prepared.ranges.num_parts},
            "sampling": {"fanouts": [10, 10]},
            "model": {"embedding_size": 64, "scoring": "additive", "num_heads": 4},
            "train": {"batch_size": num_seeds, "num_epochs": 1, "patience": 0},
            "launch": {"launcher": launcher, "num_workers": num_workers, "threads_per_worker": 1},
        }
    )


def stay_on_core(number: int) -> None:
    """Pin all threads of this process, present and future, to one core."""
    core = sorted(os.sched_getaffinity(0))[number]
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def steps_per_second(config: Config, worker: Worker, first_core: int = 0) -> dict[str, Any]:
    stay_on_core(first_core + worker.rank)
    trainer = Trainer(config, worker)
    for number, batch in enumerate(trainer.batches(StepRange(0, 0, WARM_UP + STEPS))):
        if number == WARM_UP:
            worker.control.barrier()
            started = time.perf_counter()
        trainer.train_step(batch, at_end=False)
    worker.control.barrier()
    trainer.log.close()
    return {"value": STEPS / (time.perf_counter() - started)}


def rate(config: Config) -> float:
    """Steps a second. A single worker has a process of its own too, because it pins its process to one core."""
    return float(run_processes(steps_per_second, config)["value"])


def rate_beside(config: Config) -> float:
    """Steps a second of the slower of two independent trainings at once, each with its own worker, core and seed."""
    with tempfile.TemporaryDirectory() as folder:
        meetings = [Path(folder) / "0", Path(folder) / "1"]
        workers: list[BaseProcess] = []
        for core, meeting in enumerate(meetings):
            meeting.mkdir()
            own = config.model_copy(update={"run": f"{config.run}-{core}", "seed": config.seed + core})
            workers += start_workers(partial(steps_per_second, first_core=core), own, str(meeting))
        for meeting, exit_code in zip(meetings, wait_for_workers(workers), strict=True):
            # None: this worker was ended because the other failed
            if exit_code:
                raise first_error(meeting, [exit_code])
        return min(float(json.loads((meeting / "result.json").read_text())["value"]) for meeting in meetings)


def rank_bytes(config: Config, worker: Worker) -> dict[str, Any]:
    """Bytes that the largest rank holds: weights with two moments, and the arrays of its parts."""
    trainer = Trainer(config, worker)
    trainer.log.close()
    folders = [trainer.store.prepared.parts[part].folder for part in trainer.store.own_parts]
    graph = sum(path.stat().st_size for folder in folders for path in folder.rglob("*.npy"))
    table = 3 * trainer.model.table.weight.numel() * trainer.model.table.weight.element_size()
    held = torch.zeros(worker.world_size, dtype=torch.float64)
    held[worker.rank] = graph + table
    return {"value": float(worker.control.sum(held).max())}


def first_step(config: Config, worker: Worker) -> dict[str, Any]:
    """The wall clock after the first update."""
    trainer = Trainer(config, worker)
    for batch in trainer.batches(StepRange(0, 0, 1)):
        trainer.train_step(batch, at_end=False)
    trainer.log.close()
    return {"value": time.time()}


def value(job: Any, config: Config) -> float:
    return float(run_job(job, config, quiet=True)["value"])


def bare_ray_start(config: Config) -> float:
    """Seconds until workers that do nothing have begun, with Ray's torch trainer and a cluster as a run has them."""
    set_defaults(QUIET)
    from ray import train

    # nested, so that it is sent as it is and a worker does not import this module
    def begin() -> float:
        return time.time()

    started = time.time()
    with tempfile.TemporaryDirectory() as folder, ray_cluster(config.launch) as is_own:
        trainer = torch_trainer(is_own)(
            begin,
            scaling_config=train.ScalingConfig(num_workers=config.launch.num_workers),
            run_config=train.RunConfig(name="bare", storage_path=folder),
        )
        return trainer.fit().return_value - started


def compare_workers(prepared: PreparedGraph, run: str, repeats: int) -> list[Line]:
    """Two workers against one, and how near they come to two independent trainings."""
    ways = {
        "1 worker": (rate, 1, SEEDS, SEEDS),
        "as many seeds a worker": (rate, 2, 2 * SEEDS, 2 * SEEDS),
        "as many seeds a step": (rate, 2, SEEDS, SEEDS),
        "beside, as many seeds a worker": (rate_beside, 1, SEEDS, 2 * SEEDS),
        "beside, as many seeds a step": (rate_beside, 1, SEEDS // 2, SEEDS),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}  # per seed, over all workers
    for _ in range(repeats):
        for way, (measure, count, batch_size, seeds_of_all) in ways.items():
            steps = measure(recipe(prepared, run, count, num_seeds=batch_size))
            seconds[way].append(1 / seeds_of_all / steps)
    print({way: f"{1 / statistics.median(values):,.0f} seeds/s" for way, values in seconds.items()})
    lines = []
    for way in ("as many seeds a worker", "as many seeds a step"):
        pair = {OURS: seconds[way], "1 worker": seconds["1 worker"]}
        least = statistics.median(seconds[f"beside, {way}"])
        lines += harness.compare(f"2 workers against 1, {way}", pair, WORKERS_BAR, least)
    return lines


def compare_memory(prepared: PreparedGraph, run: str) -> list[Line]:
    held = {count: value(rank_bytes, recipe(prepared, run, count)) for count in (1, 2, 4)}
    print({f"{count} ranks": f"{size / 1e6:,.0f} MB a rank" for count, size in held.items()})
    lines = []
    for count in (2, 4):
        share = held[1] / held[count] / count
        line = f"memory a rank, {count} ranks against 1, of the ideal"
        lines.append(Line(line, "1 worker", share, MEMORY_BAR, None, (share, share)))
    return lines


def compare_starts(prepared: PreparedGraph, run: str, repeats: int) -> list[Line]:
    lines = []
    for launcher, bar in START_BARS.items():
        config = recipe(prepared, run, 2, launcher)
        took, bare = [], []
        for _ in range(repeats):
            started = time.time()
            took.append(value(first_step, config) - started)
            if launcher == "ray":
                bare.append(bare_ray_start(config))
        print(f"{launcher}: first step after {statistics.median(took):.1f} s (bar: at most {bar:.0f} s)")
        least = statistics.median(bare) if bare else None
        if least is not None:
            print(f"{launcher}: workers that do nothing begin after {least:.1f} s")
        lines += harness.compare(
            f"start to first step, {launcher}", {OURS: took, f"{bar:.0f} s": [bar] * repeats}, 1.0, least
        )
    return lines


def main() -> None:
    arguments = harness.new_parser(__doc__, repeats=5).parse_args()
    with hashed_graph(arguments.nodes, arguments.interactions) as (prepared, run):
        lines = compare_workers(prepared, run, arguments.repeats)
        lines += compare_memory(prepared, run)
        lines += compare_starts(prepared, run, arguments.repeats)
    harness.report(lines, arguments.json)


if __name__ == "__main__":
    main()
