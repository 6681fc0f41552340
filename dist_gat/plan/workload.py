"""What a rank's step is expected to hold, before there is a graph: distinct nodes and edges of every hop.

The graph is a bipartite configuration model. Of n nodes of a type, the one of rank r has the expected degree
d_r in proportion to r ** -skew, at most the number of nodes of the other type, and its degree is Poisson around it
(Chung and Lu, Annals of Combinatorics 2002). An edge leads to a node in proportion to the node's degree, and to
another rank with the probability of the edge cut. See docs/plan-equations.md.

Shape legend: T node types (user, item), P places (owned by this rank, owned by others), D classes of equal degree,
H ages (hop in which a node came in), Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import poisson

from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import Config
from dist_gat.graph.part import POPULARITY_EXPONENT

USER, ITEM = 0, 1
OWN, FOREIGN = 0, 1
NUM_CLASSES = 200
QUANTILES = (np.arange(32) + 0.5) / 32


@dataclass(frozen=True)
class GraphShape:
    """Sizes of a graph, enough for a plan before there is data.

    num_edges: training interactions, each of which is two messages, one a direction. users: their share of the
    nodes. *_skew: the degree of the node of rank r falls as r ** -skew. edge_cut: share of interactions that join
    the nodes of two ranks; None is that of a random assignment, 1 - 1 / W.
    """

    num_nodes: int
    num_edges: int
    users: float = 0.5
    user_skew: float = 0.6
    item_skew: float = 0.8
    edge_cut: float | None = None

    def __post_init__(self) -> None:
        if self.num_nodes < 2 or self.num_edges < 1:
            raise ConfigError(
                f"nodes={self.num_nodes}, edges={self.num_edges}: a graph has two nodes and one edge, or more"
            )
        if not 0 < self.users < 1 or not 1 <= self.num_users < self.num_nodes:
            raise ConfigError(f"users={self.users}: expected their share of {self.num_nodes} nodes, between 0 and 1")
        if self.num_edges > self.num_users * self.num_items:
            raise ConfigError(
                f"edges={self.num_edges}: {self.num_users} users and {self.num_items} items have at most "
                f"{self.num_users * self.num_items} pairs; --edges counts interactions, each pair once"
            )
        if not 0 <= self.user_skew <= 2 or not 0 <= self.item_skew <= 2:
            raise ConfigError(f"skew {self.user_skew}, {self.item_skew}: expected 0 (all alike) to 2")
        if self.edge_cut is not None and not 0 <= self.edge_cut <= 1:
            raise ConfigError(f"edge_cut={self.edge_cut}: expected a share of the interactions, 0 to 1")

    @property
    def num_users(self) -> int:
        return round(self.users * self.num_nodes)

    @property
    def num_items(self) -> int:
        return self.num_nodes - self.num_users

    def stay(self, num_workers: int) -> float:
        """The probability that an edge stays on its rank."""
        cut = 1 - 1 / num_workers if self.edge_cut is None else self.edge_cut
        return 1 - cut if num_workers > 1 else 1.0


@dataclass(frozen=True)
class Workload:
    """Expected counts of one rank and step. Hops are in order of sampling, the seeds' own neighbours first.

    seeds: seed edges of this rank. nodes: distinct nodes, the seed nodes first and then with every hop; the
    destinations of hop h are nodes[h]. foreign: those of them that other ranks own. edges: messages of each hop.
    candidates: distinct items that all seeds of all ranks share as negatives.
    """

    seeds: float
    nodes: list[float]
    foreign: list[float]
    edges: list[float]
    candidates: float = 0.0


def expected_workload(config: Config, graph: GraphShape, num_workers: int) -> Workload:
    """Distinct nodes and edges that a rank samples for one step."""
    share, stay = 1 / num_workers, graph.stay(num_workers)
    batch = min(config.train.batch_size, graph.num_edges)
    degree_TD, count_TD = degree_classes(graph)
    count_TPD = count_TD[:, None] * np.array([share, 1 - share])[None, :, None]
    free_TDQ = np.asarray(poisson.ppf(QUANTILES, degree_TD[..., None]))

    # missed: the probability that a node is not in the sample; one array an age
    missed_TPD = np.exp(-degree_TD[:, None] * _per_edge(batch * share, 0.0, stay, num_workers, graph)[None, :, None])
    missed_TPD[USER, OWN] = np.exp(-degree_TD[USER] * batch / graph.num_edges)
    missed_TPD[USER, FOREIGN] = 1.0
    drawn = (config.negatives.num_shared + batch * config.negatives.num_per_seed) * share
    weight_D = degree_TD[ITEM] ** (POPULARITY_EXPONENT if config.negatives.distribution == "popularity" else 0)
    chance_D = weight_D / (weight_D * count_TD[ITEM]).sum()
    missed_TPD[ITEM] *= np.exp(-drawn * chance_D)
    in_batch_D = config.negatives.in_batch * batch * degree_TD[ITEM] / graph.num_edges
    candidates = float((count_TD[ITEM] * (1 - np.exp(-config.negatives.num_shared * chance_D - in_batch_D))).sum())
    joined_HTPD = [1 - missed_TPD]

    nodes, foreign, edges = [_count(count_TPD, missed_TPD)], [_count(count_TPD, missed_TPD, FOREIGN)], []
    fanouts = config.sampling.fanouts
    for hop, fan_out in enumerate(fanouts):
        sampled, new_TP = 0.0, np.zeros((2, 2))
        for age, joined_TPD in enumerate(joined_HTPD):
            # a node that was reached by an edge has that edge too, except the seeds, whose edge is hidden
            row_TD = np.minimum(free_TDQ + (age > 0), fan_out).mean(axis=2)
            sampled += float((count_TPD * joined_TPD * row_TD[:, None]).sum())
            fresh_TD = fresh_draws(free_TDQ, fanouts[age : hop + 1])
            new_TP += (count_TPD * joined_TPD * fresh_TD[:, None]).sum(axis=2)
        before_TPD = missed_TPD
        rate_TP = np.stack(
            [
                _per_edge(float(new_TP[kind, OWN]), float(new_TP[kind, FOREIGN]), stay, num_workers, graph)
                for kind in (ITEM, USER)
            ]
        )
        missed_TPD = before_TPD * np.exp(-degree_TD[:, None] * rate_TP[..., None])
        joined_HTPD.append(before_TPD - missed_TPD)
        nodes.append(_count(count_TPD, missed_TPD))
        foreign.append(_count(count_TPD, missed_TPD, FOREIGN))
        edges.append(sampled)
    return Workload(batch * share, nodes, foreign, edges, candidates)


def degree_classes(graph: GraphShape) -> tuple[np.ndarray, np.ndarray]:
    """Expected degree and number of nodes of the classes of both types: float64 [T, D] each."""
    found = [
        _classes(graph.num_users, graph.num_items, graph.num_edges, graph.user_skew),
        _classes(graph.num_items, graph.num_users, graph.num_edges, graph.item_skew),
    ]
    degree_TD, count_TD = np.zeros((2, NUM_CLASSES)), np.zeros((2, NUM_CLASSES))
    for kind, (degree_D, count_D) in enumerate(found):
        degree_TD[kind, : len(degree_D)], count_TD[kind, : len(count_D)] = degree_D, count_D
    return degree_TD, count_TD


def _classes(num_nodes: int, most: int, num_edges: int, skew: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean degree, at most `most`, and the size of classes of nodes, which are small where degrees are high."""
    ends = np.unique(np.geomspace(1, num_nodes, NUM_CLASSES).astype(np.int64))
    starts = np.append(0, ends[:-1])
    count_D = (ends - starts).astype(np.float64)
    # the sum of r ** -skew over a run, as an integral from half before to half behind it
    low, high = starts + 0.5, ends + 0.5
    mass = np.log(high / low) if skew == 1 else (high ** (1 - skew) - low ** (1 - skew)) / (1 - skew)
    weight_D, full_D = mass / count_D, np.zeros(len(count_D), dtype=bool)
    while True:
        # edges that the full classes cannot take go to the others
        scale = (num_edges - most * count_D[full_D].sum()) / max(mass[~full_D].sum(), 1e-300)
        over_D = ~full_D & (scale * weight_D > most)
        if not over_D.any():
            return np.where(full_D, most, scale * weight_D), count_D
        full_D |= over_D


def fresh_draws(free_TDQ: np.ndarray, fanouts: list[int]) -> np.ndarray:
    """[T, D]: the neighbours of a node that its last draw brings and its earlier draws did not."""
    left_TDQ = np.ones_like(free_TDQ)
    for fan_out in fanouts[:-1]:
        left_TDQ *= 1 - np.minimum(fan_out / np.maximum(free_TDQ, 1), 1)
    return (np.minimum(free_TDQ, fanouts[-1]) * left_TDQ).mean(axis=2)


def _per_edge(own: float, foreign: float, stay: float, num_workers: int, graph: GraphShape) -> np.ndarray:
    """[P]: draws for each edge end in a place, given the numbers of draws by own and by foreign destinations."""
    if num_workers == 1:
        return np.array([own / graph.num_edges, 0.0])
    come = own * stay + foreign * (1 - stay) / (num_workers - 1)
    return np.array([come, (own + foreign - come) / (num_workers - 1)]) * num_workers / graph.num_edges


def _count(count_TPD: np.ndarray, missed_TPD: np.ndarray, first_place: int = OWN) -> float:
    return float((count_TPD * (1 - missed_TPD))[:, first_place:].sum())
