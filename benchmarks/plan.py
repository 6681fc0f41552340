"""Predictions of `dist-gat plan` against runs of local workers: `python -m benchmarks.plan [--constants FILE]`.

1, 2 and 4 ranks of one thread each, parts read in place and through the exchange, on the standard graph in hashed
parts. Without a constants file they are fitted first, so that fit and runs meet the same machine. Seconds are the
median of the steps, memory is that of the largest rank, and bytes are those that all ranks sent; of each the median of
some runs. `--device cuda` compares one rank on one GPU instead, and the memory of both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from benchmarks.cost import fit, fit_gpu, gpu_recipe
from benchmarks.graph import hashed_graph
from benchmarks.scaling import recipe
from dist_gat.base.peak_memory import peak_memory, reset_peak_memory
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.host import cores
from dist_gat.launcher.launch import run_job
from dist_gat.launcher.local import run_processes
from dist_gat.plan.constants import Constants, read_constants
from dist_gat.plan.graph_shape import GraphShape
from dist_gat.plan.plan import make_plan
from dist_gat.sampling.loader import StepRange
from dist_gat.train.trainer import Trainer

WARM_UP, STEPS = 4, 20
RUNS = [(workers, access) for workers in (1, 2, 4) for access in ("auto", "exchange")]
FIT_REPEATS = 7


def measure(config: Config, worker: Worker) -> dict[str, Any]:
    """Of a step: seconds, processor seconds of all ranks, bytes sent by all ranks; the peak memory of the largest rank,
    with a checkpoint after the steps, and of rank 0's GPU."""
    reset_peak_memory()
    trainer = Trainer(config, worker)
    seconds = []
    for number, batch in enumerate(trainer.batches(StepRange(0, 0, WARM_UP + STEPS))):
        if number == WARM_UP:
            worker.control.barrier()
            sent, busy, ended = sent_bytes(trainer), time.process_time(), time.perf_counter()
        trainer.train_step(batch, at_end=False)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - ended)
            ended = time.perf_counter()
    totals = torch.tensor([time.process_time() - busy, float(sent_bytes(trainer) - sent)], dtype=torch.float64)
    busy_s, num_bytes = (worker.control.sum(totals) / STEPS).tolist()
    trainer.save()
    trainer.writer.wait()
    trainer.log.close()
    peaks = torch.zeros(worker.world_size, dtype=torch.float64)
    peaks[worker.rank] = peak_memory()
    peak = float(worker.control.sum(peaks).max())
    found = {"seconds": statistics.median(seconds), "busy": busy_s, "sent": num_bytes, "memory": peak}
    if worker.device.type == "cuda":
        found["GPU memory"] = float(torch.cuda.max_memory_allocated())
    return found


def sent_bytes(trainer: Trainer) -> int:
    return sum(channel.traffic.sent_bytes for channel in trainer.channels)


def predicted(config: Config, prepared: PreparedGraph, constants: Constants) -> dict[str, float]:
    graph = GraphShape(prepared.ranges.num_nodes, prepared.num_pairs(prepared.schema.relations[0], "train"))
    workers = config.launch.num_workers
    plan = make_plan(config, graph, workers, constants, cores=cores())
    found = {
        "seconds": plan.time.step,
        "busy": plan.time.cores * plan.cores_per_host,
        "sent": workers * plan.traffic.counted,
    }
    if config.launch.use_gpu:
        return {**found, "memory": plan.memory.host, "GPU memory": plan.memory.device}
    return {**found, "memory": plan.memory.host + plan.memory.device}


def check(configs: dict[tuple[int, str], Config], prepared: PreparedGraph, constants: Constants, repeats: int) -> None:
    runs: dict[tuple[int, str], list[dict[str, Any]]] = {way: [] for way in configs}
    for _ in range(repeats):
        # in turn, so that a busy minute of the machine is not all of one way
        for way, config in configs.items():
            start = run_processes if config.launch.num_workers == 1 else run_job
            runs[way].append(start(measure, config.model_copy(update={"run": tempfile.mkdtemp(dir=config.run)})))
    print(f"{'ranks':>5} {'parts':10} {'what':10} {'predicted':>12} {'measured':>12} {'ratio':>6}")
    for (workers, access), config in configs.items():
        for what, expected in predicted(config, prepared, constants).items():
            found = statistics.median(one[what] for one in runs[workers, access])
            ratio = f"{expected / found:6.2f}" if found else "     -"
            print(f"{workers:5} {access:10} {what:10} {expected:12.4g} {found:12.4g} {ratio}", flush=True)


def way_config(prepared: PreparedGraph, run: str, workers: int, access: str) -> Config:
    config = recipe(prepared, run, workers)
    return config.model_copy(update={"sampling": config.sampling.model_copy(update={"access": access})})


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=3)
    parser.add_argument("--constants", type=Path, help="default: fitted on this machine first")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    with hashed_graph(arguments.nodes, arguments.interactions) as (prepared, run):
        if arguments.device == "cpu":
            fit_here, configs = fit, {way: way_config(prepared, run, *way) for way in RUNS}
        else:
            fit_here, configs = fit_gpu, {(1, "auto"): gpu_recipe(prepared, run)}
        if arguments.constants:
            constants = read_constants(arguments.constants)
        else:
            constants = fit_here(prepared, run, FIT_REPEATS)
        check(configs, prepared, constants, arguments.repeats)


if __name__ == "__main__":
    main()
