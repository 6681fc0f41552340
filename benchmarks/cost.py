"""Fit the constants of `dist-gat plan` on this machine: `python -m benchmarks.cost --write FILE`.

Each piece of a training step is timed by itself on one thread, in processor seconds, which other work on the machine
hardly changes. The exchange between two local workers and the gain of a second sampling stream are timed by the wall
clock, because they include waiting. Each constant is a median, because `plan` predicts the median step; on a shared
machine the fastest call is too optimistic.

`--device cuda` fits the constants of one GPU: the kernel time of each piece, and the rest of a small step, which is
mostly kernel launches. The constants of several GPUs and of their host are not measured: they stay at the defaults of
`plan`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import harness
from benchmarks.__main__ import host_kind
from benchmarks.graph import hashed_graph
from benchmarks.scaling import recipe
from dist_gat.config.plain_yaml import dump_yaml
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.host import cores
from dist_gat.launcher.launch import run_job
from dist_gat.launcher.local import run_processes
from dist_gat.nn.decoder import Decoder
from dist_gat.optim.optimizer import gradient_squares
from dist_gat.plan.constants import DEFAULT, Constants, read_constants
from dist_gat.plan.step_time import layer_flops
from dist_gat.plan.workload import Workload
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.loader import StepRange, load_batches
from dist_gat.sampling.row_lookup import RowLookup, plan_lookup
from dist_gat.tasks.ranking_loss import sampled_softmax_loss
from dist_gat.train.trainer import Trainer

SMALL, SCORED = 256, 1024
PRODUCT = {"cpu": 512, "cuda": 4096}  # rows and columns
EXCHANGED_ROWS = 100_000
GPU_SEEDS, GPU_THREADS = 8192, 8
STREAMED = 16  # batches that one stream, and two, sample


Timed = Callable[[Callable[[], object]], float]


def typical(step: Callable[[], object], clock: Callable[[], float], repeats: int) -> float:
    """Median seconds of `repeats` calls, after one call that is not counted."""
    found = []
    for _ in range(repeats + 1):
        started = clock()
        step()
        found.append(clock() - started)
    return statistics.median(found[1:])


@dataclass(frozen=True)
class Piece:
    """Seconds of one piece of a step, its amount of work (bytes, operations or scores), and its product operations."""

    seconds: float
    amount: float
    product_flops: float = 0.0

    def per_unit(self, product_s: float) -> float:
        return (self.seconds - self.product_flops * product_s) / self.amount


def pieces(repeats: int, config: Config, worker: Worker) -> dict[str, Any]:
    """The constants of one rank alone, on one thread or one GPU."""
    device = worker.device
    torch.zeros(1, device=device)
    held = harness.resident_bytes()
    trainer = Trainer(config, worker)
    if device.type == "cpu":
        clock = time.thread_time
        timed: Timed = partial(typical, clock=clock, repeats=repeats)
    else:
        clock, timed = gpu_clock, partial(kernel_seconds, repeats=repeats)
    steps = iter(range(10**6))

    def sample() -> Batch:
        return trainer.samplers[0].sample(trainer.store, torch.tensor([0, next(steps)]))

    large, large_s = sample(), typical(sample, time.thread_time, repeats)
    gain = stream_gain(trainer, repeats)
    for sampler in trainer.samplers:
        sampler.batch_size = SMALL
    small, small_s = sample(), typical(sample, time.thread_time, repeats)
    per_edge = (large_s - small_s) / (large.num_edges - small.num_edges)

    size = PRODUCT[device.type]
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    product_s = timed(lambda: left @ right) / (2 * size**3)
    upload_s = 0.0 if device.type == "cpu" else typical(lambda: large.to(device), clock, repeats)
    rates = {name: piece.per_unit(product_s) for name, piece in model_pieces(trainer, large, timed).items()}
    # the samplers draw small batches now; `step_s` is a whole step less its rows and scores
    batches = trainer.batches(StepRange(0, 0, repeats + 1))
    whole_s = typical(lambda: trainer.train_step(next(batches), at_end=False), clock, repeats)
    rows_and_scores_s = sum(x.seconds for x in model_pieces(trainer, small, timed).values())
    trainer.log.close()
    return {
        "process_bytes": held,
        "sample_s": max(small_s - per_edge * small.num_edges, 1e-6),
        "sample_s_per_edge": per_edge,
        "stream_gain": gain,
        "product_s_per_flop": product_s,
        **rates,
        "step_s": max(whole_s - rows_and_scores_s, 1e-3),
        "upload_s_per_byte": upload_s / (8 * sum(block.neighbors_DF.numel() for block in large.blocks)),
    }


def model_pieces(trainer: Trainer, sampled: Batch, timed: Timed) -> dict[str, Piece]:
    """The pieces of a step whose time grows with the batch, by the name of the constant."""
    device, table, layer = trainer.worker.device, trainer.model.table, trainer.model.encoder.layers[0]
    batch = sampled.to(device)
    size = table.weight.shape[1]
    num_bytes = len(batch.nodes_S) * size * table.weight.element_size()
    gradient = torch.randn(len(batch.nodes_S), size, device=device)

    def lookup() -> None:
        table.weight.grad = None
        table(batch.nodes_S, batch.lookup).backward(gradient)

    def update() -> None:
        lookup()
        gradient_squares(trainer.model)
        trainer.optimizers.rows.step()

    lookup_s = timed(lookup)
    adam_s = timed(update) - lookup_s
    rows_SE = torch.randn_like(gradient).requires_grad_()
    block = batch.blocks[0]
    attend_s = timed(lambda: layer(rows_SE, block).rows_DO.sum().backward())
    width = block.neighbors_DF.shape[1]
    one = Workload(0, [block.num_dst, block.num_src], [0, 0], [int(block.count_D.sum())], block.num_src, 0, [], [width])
    attend_flops, product_flops = layer_flops(trainer.config, one)

    user_BR = torch.randn(len(batch.seeds.user_at_B), size, device=device, requires_grad=True)
    item_NR = torch.randn(SCORED, size, device=device, requires_grad=True)
    decoder = Decoder(trainer.config.model.decoder).to(device)
    item_1N, log_weight_1N = torch.arange(SCORED, device=device)[None], torch.zeros(SCORED, device=device)
    item_B1 = torch.randint(SCORED, (len(user_BR), 1), device=device)

    def score() -> None:
        neg_BN = decoder.cross_scores(user_BR, item_NR)
        sampled_softmax_loss(neg_BN[:, 0], neg_BN, item_1N != item_B1, log_weight_1N).sum().backward()

    scores = len(user_BR) * SCORED
    return {
        "lookup_s_per_byte": Piece(lookup_s, num_bytes),
        "adam_s_per_byte": Piece(adam_s, num_bytes),
        "attend_s_per_flop": Piece(attend_s, attend_flops, product_flops),
        "score_s_per_entry": Piece(timed(score), scores, 6 * scores * size),
    }


def kernel_seconds(step: Callable[[], object], repeats: int) -> float:
    """Seconds in which the kernels of one call run on the GPU, without the waits for their launches."""
    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(repeats):
            step()
        torch.cuda.synchronize()
    kernels = (x for x in profiled.key_averages() if x.device_type == DeviceType.CUDA and not x.is_user_annotation)
    return sum(x.self_device_time_total for x in kernels) / 1e6 / repeats


def gpu_clock() -> float:
    """The wall clock in seconds, read after the GPU has finished its work."""
    torch.cuda.synchronize()
    return time.perf_counter()


def stream_gain(trainer: Trainer, repeats: int) -> float:
    """Batches that a second stream samples while the first samples one, by the wall clock; in [0, 1]."""

    def drain(num_streams: int) -> None:
        for _ in load_batches(trainer.samplers[:num_streams], StepRange(0, 0, STREAMED), torch.device("cpu")):
            pass

    one, two = (typical(partial(drain, number), time.perf_counter, repeats) for number in (1, 2))
    return min(max(one / two - 1, 0.0), 1.0)


def exchanges(repeats: int, config: Config, worker: Worker) -> dict[str, Any]:
    """Constants of the exchange: latency, and forward and backward lookups of own rows or the other rank's."""
    trainer = Trainer(config, worker)
    table, trainer_log = trainer.model.table, trainer.log
    first = trainer.store.ownership.starts.tolist()
    seconds = {}
    for name, owner in (("own", worker.rank), ("other", 1 - worker.rank)):
        count = min(EXCHANGED_ROWS, *(last - start for start, last in zip(first, first[1:], strict=False)))
        nodes = torch.arange(first[owner], first[owner] + count)
        # in training the sampler makes the plan, in the background
        plan = plan_lookup(nodes.numpy(), trainer.store.ownership, worker.rows)

        def lookup(nodes: torch.Tensor = nodes, plan: RowLookup = plan) -> None:
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
    """The measured constants of one GPU; those of several GPUs and of their host are the defaults."""
    found = run_processes(partial(pieces, repeats), gpu_recipe(prepared, run))
    origin = f"one {torch.cuda.get_device_name()}, measured; what several exchange, and their host, assumed"
    return Constants(**{**read_constants(DEFAULT[True]).model_dump(), **found, "origin": origin})


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
