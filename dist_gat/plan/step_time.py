"""Seconds of a step, from a rank's workload, its traffic and the constants of a machine: docs/plan-equations.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dist_gat.config.sections import Config
from dist_gat.plan.constants import Constants
from dist_gat.plan.traffic import Traffic, row_size, value_bytes
from dist_gat.plan.workload import Workload
from dist_gat.sampling.loader import count_streams

FORWARD_AND_BACKWARD = 3  # matrix products: one forward, two backward


@dataclass(frozen=True)
class StepTime:
    """Seconds of one rank. sampling (with the upload to the device) and sampling_exchange are of one batch; with
    `sampling.prefetch` they run beside the rest, in streams. step is the whole, at least cores: what the cores of a
    host need for all its ranks."""

    sampling: float
    sampling_exchange: float
    gather: float
    exchange: float
    compute: float
    adam: float
    all_reduce: float
    cores: float
    step: float

    def summary(self) -> dict[str, float]:
        return asdict(self)


def expected_step(
    config: Config,
    workload: Workload,
    traffic: Traffic,
    constants: Constants,
    num_workers: int,
    threads: int,
    workers_per_host: int,
    cores: int,
    bandwidth: float | None,
) -> StepTime:
    """bandwidth: bytes a second that a rank can send, or None where that is no limit."""
    c, num_threads = constants, threads if constants.device == "cpu" else 1
    row_bytes = workload.rows * config.model.embedding_size * value_bytes(config)
    per_byte = max(c.exchange_s_per_byte, 0 if bandwidth is None else 1 / bandwidth)
    attend, products = layer_flops(config, workload)
    scores = workload.seeds * (workload.candidates + config.negatives.num_per_seed)
    products += 2 * FORWARD_AND_BACKWARD * scores * row_size(config)
    compute = attend * c.attend_s_per_flop + products * c.product_s_per_flop + scores * c.score_s_per_entry

    numbers = workload.numbers * sum(n * width for n, width in zip(workload.nodes, workload.widths, strict=False))
    upload = 8 * numbers * c.upload_s_per_byte
    sampling = c.sample_s + sum(workload.edges) * c.sample_s_per_edge + upload
    gather = row_bytes * c.lookup_s_per_byte / num_threads
    compute = c.step_s + compute / num_threads
    adam = row_bytes * c.adam_s_per_byte / num_threads
    routed = 2 * row_bytes * c.route_s_per_byte * bool(traffic.rounds_model)
    through_memory = num_workers <= workers_per_host and config.sampling.access == "auto"
    per_row_byte = c.memory_s_per_byte if through_memory and c.memory_s_per_byte is not None else per_byte
    exchange = routed + traffic.model * per_row_byte + traffic.rounds_model * c.collective_s
    sampling_exchange = traffic.sampling * per_byte + traffic.rounds_sampling * c.collective_s
    all_reduce = traffic.dense * per_byte

    model, background = gather + exchange + compute + adam + all_reduce, sampling + sampling_exchange
    # core seconds; beside a GPU, only the work outside of its kernels keeps a core busy
    busy = model * num_threads if c.device == "cpu" else c.step_s
    on_cores = (busy + background) * workers_per_host / cores
    streams = min(count_streams(config.sampling), max(1, cores // workers_per_host))
    at_once = 1 + c.stream_gain * (streams - 1)
    step = max(max(model, background / at_once) if config.sampling.prefetch else model + background, on_cores)
    return StepTime(sampling, sampling_exchange, gather, exchange, compute, adam, all_reduce, on_cores, step)


def layer_flops(config: Config, workload: Workload) -> tuple[float, float]:
    """Operations of the attention kernels, and of matrix products, in all layers of a step, forward and backward.

    A kernel multiplies and adds each neighbour's row with heads: forward to score it (H) and to sum it (G), backward
    once for the gradient of the weights (G), once for that of the queries (H) and twice for that of the row (G + H).
    """
    model = config.model
    size, heads = model.embedding_size, model.num_heads
    scored, sums = {
        "dot": (heads, 1), "dot_exp": (heads, 1), "additive": (heads, heads), "additive_v2": (0, heads),
        "uniform": (0, 1), "degree": (0, 1), "degree_dot": (heads, 1),
    }[model.scoring]  # fmt: skip
    of_weights = model.scoring not in ("uniform", "degree")
    attend = 2 * sum(workload.edges) * size * (3 * scored + (2 + of_weights) * sums)
    products = 0.0
    for rows, sources, edges in zip(workload.nodes, workload.nodes[1:], workload.edges, strict=False):
        square = rows * size * size
        if model.scoring in ("dot", "dot_exp"):
            products += heads * square + 2 * square * (model.transform == "mlp")
        elif model.scoring == "additive":
            products += square
        elif model.scoring == "additive_v2":
            # every source and destination is projected, and every edge's sum is multiplied with the heads
            products += 2 * square + sources * size * size + edges * size * heads
    return attend, 2 * FORWARD_AND_BACKWARD * products
