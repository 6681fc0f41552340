"""Fit the constants of `dist-gat plan` on this machine: `python -m benchmarks.cost --write FILE`.

Each piece of a training step by itself, on one thread, in seconds of the processor, so that other work on the machine
counts little; by the clock what is waiting as much as work: the exchange between two local workers, and what a second
stream of sampling adds. Medians, as the steps are that they predict: on a shared machine the best of some calls
promises what it seldom gives.

`--device cuda` fits those of one GPU, whose work is timed until it has ended; what GPUs exchange, and what a host of
several has, stays as it is in the constants that `plan` has for them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from benchmarks.__main__ import host_kind
from benchmarks.graph import hashed_graph
from benchmarks.scaling import recipe
from dist_gat.config import Config
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.host import cores
from dist_gat.launcher.launch import run_job
from dist_gat.launcher.local import run_processes
from dist_gat.nn.decoder import Decoder
from dist_gat.nn.loss import sampled_softmax_loss
from dist_gat.plan.constants import DEFAULT, Constants, read_constants
from dist_gat.plan.step_time import layer_flops
from dist_gat.plan.workload import Workload
from dist_gat.recipe import dump_yaml
from dist_gat.sampling.loader import StepRange, load_batches
from dist_gat.sampling.lookup import Lookup, plan_lookup
from dist_gat.train.optimizer import gradient_squares
from dist_gat.train.trainer import Trainer

SMALL, SCORES = 256, (2048, 1024)
PRODUCT = {"cpu": 512, "cuda": 4096}  # rows and columns
EXCHANGED_ROWS = 100_000
GPU_SEEDS, GPU_THREADS = 8192, 8
STREAMED = 16  # batches that one stream, and two, sample


def typical(step: Callable[[], object], clock: Callable[[], float], repeats: int) -> float:
    """The median of the seconds of some calls, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        started = clock()
        step()
        found.append(clock() - started)
    return statistics.median(found[1:])


def pieces(repeats: int, config: Config, worker: Worker) -> dict[str, Any]:
    """The constants of one rank alone, on one thread or one GPU."""
    device = worker.device
    torch.zeros(1, device=device)
    held = harness.resident_bytes()
    trainer = Trainer(config, worker)
    clock = time.thread_time if device.type == "cpu" else gpu_clock
    steps = iter(range(10**6))

    def sample() -> Any:
        return trainer.sampler.sample(trainer.store, torch.tensor([0, next(steps)]))

    sampled = sample()
    large_s, large_edges = typical(sample, time.thread_time, repeats), sampled.num_edges
    upload_s = 0.0 if device.type == "cpu" else typical(lambda: sampled.to(device), clock, repeats)
    batch = sampled.to(device)
    gain = stream_gain(trainer, repeats)
    for sampler in trainer.samplers:
        sampler.batch_size = SMALL
    small_s, small = typical(sample, time.thread_time, repeats), sample()
    small_edges = small.num_edges
    per_edge = (large_s - small_s) / (large_edges - small_edges)

    table, layer = trainer.model.table, trainer.model.encoder.layers[0]
    num_bytes = len(batch.nodes_S) * table.weight.shape[1] * table.weight.element_size()
    gradient = torch.randn(len(batch.nodes_S), table.weight.shape[1], device=device)

    def lookup() -> None:
        table.weight.grad = None
        table(batch.nodes_S, batch.lookup).backward(gradient)

    lookup_s = typical(lookup, clock, repeats)

    def update() -> None:
        lookup()
        gradient_squares(trainer.model)
        trainer.optimizers.rows.step()

    adam_s = typical(update, clock, repeats) - lookup_s
    rows_SE = torch.randn_like(gradient).requires_grad_()
    block = batch.blocks[0]
    attend_s = typical(lambda: layer(rows_SE, block).rows_DO.sum().backward(), clock, repeats)
    one = Workload(0, [block.num_dst, block.num_src], [0, 0], [int(block.count_D.sum())])
    attend_flops, product_flops = layer_flops(config, one)
    size = PRODUCT[device.type]
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    product_s = typical(lambda: left @ right, clock, repeats) / (2 * size**3)

    user_BR, item_NR = (torch.randn(n, table.weight.shape[1], device=device, requires_grad=True) for n in SCORES)
    decoder, item_1N, log_weight_1N = (
        Decoder(config.model.decoder).to(device),
        torch.arange(SCORES[1], device=device)[None],
        torch.zeros(SCORES[1], device=device),
    )
    item_B1 = torch.randint(SCORES[1], (SCORES[0], 1), device=device)

    def score() -> None:
        neg_BN = decoder.cross_scores(user_BR, item_NR)
        sampled_softmax_loss(neg_BN[:, 0], neg_BN, item_1N != item_B1, log_weight_1N).sum().backward()

    score_s = typical(score, clock, repeats) - 6 * SCORES[0] * SCORES[1] * table.weight.shape[1] * product_s
    # the samplers draw small batches now: a whole step less what its rows and scores take
    batches = trainer.batches(StepRange(0, 0, repeats + 1))
    whole_s = typical(lambda: trainer.train_step(next(batches), at_end=False), clock, repeats)
    trainer.log.close()
    scores_s = SMALL * len(small.candidates.item_C) / (SCORES[0] * SCORES[1]) * score_s
    rows_s = small_edges / large_edges * (lookup_s + adam_s + attend_s)
    return {
        "process_bytes": held,
        "sample_s": max(small_s - per_edge * small_edges, 1e-6),
        "sample_s_per_edge": per_edge,
        "stream_gain": gain,
        "lookup_s_per_byte": lookup_s / num_bytes,
        "attend_s_per_flop": (attend_s - product_flops * product_s) / attend_flops,
        "product_s_per_flop": product_s,
        "score_s_per_entry": score_s / (SCORES[0] * SCORES[1]),
        "adam_s_per_byte": adam_s / num_bytes,
        "step_s": max(whole_s - rows_s - scores_s, 1e-3),
        "upload_s_per_byte": upload_s / (8 * sum(block.neighbors_DF.numel() for block in batch.blocks)),
    }


def gpu_clock() -> float:
    """Seconds on the wall when the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def stream_gain(trainer: Trainer, repeats: int) -> float:
    """How many batches a second stream samples by the clock while the first one samples one."""

    def drain(num_streams: int) -> None:
        for _ in load_batches(trainer.samplers[:num_streams], StepRange(0, 0, STREAMED), torch.device("cpu")):
            pass

    one, two = (typical(partial(drain, number), time.perf_counter, repeats) for number in (1, 2))
    return min(max(one / two - 1, 0.0), 1.0)


def exchanges(repeats: int, config: Config, worker: Worker) -> dict[str, Any]:
    """Latency, and lookups of rows that are all the rank's own or all the other's, forward and backward."""
    trainer = Trainer(config, worker)
    table, trainer_log = trainer.model.table, trainer.log
    first = [int(start) for start in table.node_starts]
    seconds = {}
    for name, owner in (("own", worker.rank), ("other", 1 - worker.rank)):
        count = min(EXCHANGED_ROWS, *(last - start for start, last in zip(first, first[1:], strict=False)))
        nodes = torch.arange(first[owner], first[owner] + count)
        # in training the sampler makes the plan, in the background
        plan = plan_lookup(nodes.numpy(), np.array(first), worker.rows)

        def lookup(nodes: torch.Tensor = nodes, plan: Lookup = plan) -> None:
            table.weight.grad = None
            table(nodes, plan).sum().backward()

        seconds[name] = typical(lookup, time.perf_counter, repeats)
    latency = typical(lambda: worker.rows.all_to_all_counts(torch.ones(2, dtype=torch.int64)), time.perf_counter, 50)
    trainer_log.close()
    row_bytes = count * table.weight.shape[1] * table.weight.element_size()
    return {
        "own_s_per_byte": seconds["own"] / (2 * row_bytes),
        "exchange_s_per_byte": max(seconds["other"] - seconds["own"], 0) / (2 * row_bytes + 8 * count) or 1e-10,
        "collective_s": latency,
    }


def fit(prepared: PreparedGraph, run: str, repeats: int) -> Constants:
    one = recipe(prepared, run, 1)
    found: dict[str, Any] = run_processes(partial(pieces, repeats), one)
    two = recipe(prepared, run, 2)
    shared = run_job(partial(exchanges, repeats), two, quiet=True)
    apart = two.model_copy(update={"sampling": two.sampling.model_copy(update={"access": "exchange"})})
    exchanged = run_job(partial(exchanges, repeats), apart, quiet=True)
    route = max(exchanged.pop("own_s_per_byte") - found["lookup_s_per_byte"] / 2, 1e-11)
    return Constants(
        origin=f"{host_kind()}, measured", device="cpu", cores_per_host=cores(), workers_per_host=None,
        **found, **exchanged, memory_s_per_byte=shared["exchange_s_per_byte"], route_s_per_byte=route,
    )  # fmt: skip


def fit_gpu(prepared: PreparedGraph, run: str, repeats: int) -> Constants:
    """Of one GPU, beside what the constants of GPUs say about several of them and their host."""
    found = run_processes(partial(pieces, repeats), gpu_recipe(prepared, run))
    origin = f"one {torch.cuda.get_device_name()}, measured; what several exchange, and their host, assumed"
    return read_constants(DEFAULT[True]).model_copy(update={**found, "origin": origin})


def gpu_recipe(prepared: PreparedGraph, run: str) -> Config:
    """A GPU wants larger steps: with those of a core most of a step is launches."""
    config = recipe(prepared, run, 1, num_seeds=GPU_SEEDS)
    launch = config.launch.model_copy(update={"use_gpu": True, "threads_per_worker": GPU_THREADS})
    return config.model_copy(update={"launch": launch})


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=9)
    parser.add_argument("--write", type=Path, help="the constants file to write")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    with hashed_graph(arguments.nodes, arguments.interactions) as (prepared, run):
        fit_here = fit if arguments.device == "cpu" else fit_gpu
        text = dump_yaml(fit_here(prepared, run, arguments.repeats).model_dump())
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
