"""Bytes that a rank sends to others in one step, as the channels count them, and in how many collectives.

The formulas follow the calls of `exchange`: a lookup sends an ID for each distinct row that another rank owns, and each
such row travels twice, as it is and as its gradient. A request to the graph store is an ID.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dist_gat.config.sections import Config
from dist_gat.nn.own_scores import has_own_scores
from dist_gat.plan.workload import Workload
from dist_gat.tasks import ranking

ID_BYTES = 8
# of a requested ID: `send_keys` leaves room for an eighth more than in the previous call
KEY_BYTES = ID_BYTES * 9 / 8


@dataclass(frozen=True)
class Traffic:
    """Bytes sent by one rank in one step. ids, rows, gradients: of the embedding lookup. negatives: shared rows, their
    IDs and gradients. sampling: requests to the owners of graph parts, and answers. dense: the all-reduce of the
    layers' weights, which the channels do not count. rounds_*: collectives of the model and of the sampler."""

    ids: float
    rows: float
    gradients: float
    negatives: float
    sampling: float
    dense: float
    rounds_model: int
    rounds_sampling: int

    @property
    def model(self) -> float:
        return self.ids + self.rows + self.gradients + self.negatives

    @property
    def counted(self) -> float:
        """What `speed/exchanged_bytes_per_step` in TensorBoard adds up over the ranks."""
        return self.model + self.sampling

    def summary(self) -> dict[str, float]:
        return {**asdict(self), "total": self.counted}


def expected_traffic(
    config: Config, workload: Workload, num_workers: int, num_hosts: int, num_nodes: int, dense_bytes: float
) -> Traffic:
    if num_workers == 1:
        return Traffic(0, 0, 0, 0, 0, 0, 0, 0)
    width, rows = value_bytes(config), workload.remote_rows
    row_bytes = rows * config.model.embedding_size * width
    offered = workload.candidates * (num_workers - 1) / num_workers
    asks = exchanges_parts(config, num_hosts)
    return Traffic(
        ids=rows * KEY_BYTES,
        rows=row_bytes,
        gradients=row_bytes,
        negatives=offered * (2 * row_size(config) * width + ID_BYTES * needs_degree(config)),
        sampling=_sampling_bytes(config, workload, num_workers, num_hosts, num_nodes) if asks else 0.0,
        dense=2 * (num_workers - 1) / num_workers * dense_bytes,
        # rows and their gradients of the lookup and of the negatives, the step vote, the all-reduce of the weights
        rounds_model=2 + 2 * bool(workload.candidates) + 1 + bool(dense_bytes),
        # of the lookup, and where parts are exchanged: the seed edges, the negatives, every hop and the degrees
        rounds_sampling=1 + needs_degree(config) + asks * 2 * (1 + len(config.sampling.fanouts) + needs_degree(config)),
    )


def _sampling_bytes(config: Config, workload: Workload, num_workers: int, num_hosts: int, num_nodes: int) -> float:
    """Bytes of requests and answers about parts that are read through the exchange and that another rank owns."""
    away = (1 - 1 / num_workers) if config.sampling.access == "exchange" else (1 - 1 / num_hosts)
    # of what other ranks own, the share that is not read in place
    asked = away / (1 - 1 / num_workers)
    batch, negatives = workload.seeds * num_workers, config.negatives
    # sent to every other rank without a request: the step's seed edges and shared negatives
    total = away * ID_BYTES * (2 * batch + negatives.num_shared)
    told_bytes = 4 if num_nodes < 2**31 else ID_BYTES
    total += away * (KEY_BYTES + told_bytes) * workload.seeds * negatives.num_per_seed
    is_strict = config.sampling.time == "strict"
    if is_strict:
        total += away * ID_BYTES * batch  # when they were
    for width, rows in zip(workload.widths, workload.foreign, strict=False):
        total += asked * rows * (KEY_BYTES + told_bytes * width * workload.numbers)
    if needs_degree(config):
        # in strict time those of the whole graph besides
        rows = workload.foreign[-1] + is_strict * workload.remote_rows
        total += asked * rows * (KEY_BYTES + ID_BYTES * workload.degrees)
    return total


def exchanges_parts(config: Config, num_hosts: int) -> bool:
    """Whether the sampler asks owners at all: forced to, or because not all parts are on the rank's host."""
    return config.sampling.access == "exchange" or num_hosts > 1


def value_bytes(config: Config) -> int:
    """Bytes of a number in the embedding table."""
    return 8 if config.train.precision == "float64" else 4


def row_size(config: Config) -> int:
    """Numbers of a row that `DenseModel` makes of a node: its representation, and its own score where it has one."""
    depths = len(config.sampling.fanouts) + 1 if config.model.combination == "concat" else 1
    return depths * config.model.embedding_size + has_own_scores(config.model.decoder)


def needs_degree(config: Config) -> bool:
    return ranking.needs_degree(config.model, config.loss, config.negatives)
