"""What a rank's step is expected to hold, before there is a graph: distinct nodes and edges of every hop.

An edge leads to a node in proportion to the node's degree along its edge type, and to another rank with the probability
of the edge cut. With `sampling.time=strict` each seed has a sample of its own, of the edges before it: a share of those
that have times, as evenly distributed as seeds are over time. See docs/plan-equations.md.

Shape legend: T node types, K edge types, P places (owned by this rank, owned by others), D classes of nodes that are
alike, Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import poisson

from dist_gat.config.sections import Config
from dist_gat.graph.part import POPULARITY_EXPONENT
from dist_gat.plan.graph_shape import ITEM, USER, GraphShape, Messages, expected_messages

OWN, FOREIGN = 0, 1
QUANTILES = (np.arange(32) + 0.5) / 32
# of a seed's time, as the share of all dated edges that are before it
TIMES = (np.arange(8) + 0.5) / 8


@dataclass(frozen=True)
class Workload:
    """Expected counts of one rank and step. Hops are in order of sampling, the seeds' own neighbours first.

    seeds: seed edges of this rank. nodes: distinct nodes, the seed nodes first and then with every hop; the
    destinations of hop h are nodes[h]. With `sampling.time=strict` a node counts once for each time. foreign: those of
    them that other ranks own. edges: messages of each hop. rows, remote_rows: distinct nodes whose rows are looked up,
    and those of them that other ranks own. rows_of_type: of each node type. widths: columns of each hop's neighbour
    lists. numbers: what is told of each edge, its source among them. degrees: of a node, one along each edge type.
    candidates: distinct items that all seeds of all ranks share as negatives.
    """

    seeds: float
    nodes: list[float]
    foreign: list[float]
    edges: list[float]
    rows: float
    remote_rows: float
    rows_of_type: list[float]
    widths: list[int]
    numbers: int = 1
    degrees: int = 1
    candidates: float = 0.0


def expected_workload(config: Config, graph: GraphShape, num_workers: int) -> Workload:
    """Distinct nodes and edges that a rank samples for one step."""
    messages = expected_messages(config, graph)
    share = 1 / num_workers
    batch = min(config.train.batch_size, graph.num_edges)
    count_TPD = messages.count_TD[:, None] * np.array([share, 1 - share])[None, :, None]
    # along the interactions, which are predicted
    user_D, item_D = (_degrees(messages, kind) for kind in (USER, ITEM))

    # missed: the probability that a node is not in the sample
    items_PD = np.exp(-item_D * _per_edge(batch * share, 0.0, num_workers, graph, graph.num_edges)[:, None])
    drawn = (config.negatives.num_shared + batch * config.negatives.num_per_seed) * share
    weight_D = item_D ** (POPULARITY_EXPONENT if config.negatives.distribution == "popularity" else 0)
    chance_D = weight_D / (weight_D * messages.count_TD[ITEM]).sum()
    items_PD *= np.exp(-drawn * chance_D)
    in_batch_D = config.negatives.in_batch * batch * item_D / graph.num_edges
    distinct_D = 1 - np.exp(-config.negatives.num_shared * chance_D - in_batch_D)
    candidates = float((messages.count_TD[ITEM] * distinct_D).sum())

    def grow(users: float, items_PD: np.ndarray | None, seen: float) -> _Sample:
        """The sample of so many seeds' users, whom this rank owns, and of missed items; see `_grow`."""
        missed_TPD = np.ones_like(count_TPD)
        missed_TPD[USER, OWN] = np.exp(-user_D * users / (share * graph.num_edges))
        if items_PD is not None:
            missed_TPD[ITEM] = items_PD
        return _grow(messages, missed_TPD, count_TPD, graph, num_workers, seen)

    if config.sampling.time == "strict":
        # what is compared sees no time, and every seed has a sample of its own
        compared, own = grow(0.0, items_PD, 0.0), [grow(1.0, None, seen) for seen in TIMES]
        seeds = batch * share
        found = compared + _mean(own).times(seeds)
        together = np.mean([1 - sample.missed_TPD for sample in own], axis=0)
        reached = count_TPD * (1 - compared.missed_TPD * np.exp(-seeds * together))
    else:
        found = grow(batch * share, items_PD, 1.0)
        reached = count_TPD * (1 - found.missed_TPD)
    nodes, foreign = found.nodes_HP.sum(axis=1), found.nodes_HP[:, FOREIGN]
    return Workload(
        batch * share, nodes.tolist(), foreign.tolist(), found.edges_H.tolist(), float(reached.sum()),
        float(reached[:, FOREIGN].sum()), reached.sum(axis=(1, 2)).tolist(), [plan.width for plan in messages.plans],
        1 + max((len(plan.needs) for plan in messages.plans), default=0), max(1, *messages.schema.slots), candidates,
    )  # fmt: skip


@dataclass(frozen=True)
class _Sample:
    """nodes_HP: distinct nodes, the seeds' first and then with every hop. edges_H: of every hop. missed_TPD: the
    probability that a node is not in it."""

    nodes_HP: np.ndarray
    edges_H: np.ndarray
    missed_TPD: np.ndarray

    def times(self, factor: float) -> _Sample:
        return _Sample(factor * self.nodes_HP, factor * self.edges_H, self.missed_TPD)

    def __add__(self, other: _Sample) -> _Sample:
        return _Sample(self.nodes_HP + other.nodes_HP, self.edges_H + other.edges_H, self.missed_TPD)


def _mean(samples: list[_Sample]) -> _Sample:
    nodes_HP, edges_H, missed_TPD = (
        np.mean([getattr(one, name) for one in samples], axis=0) for name in ("nodes_HP", "edges_H", "missed_TPD")
    )
    return _Sample(nodes_HP, edges_H, missed_TPD)


def _grow(
    messages: Messages, missed_TPD: np.ndarray, count_TPD: np.ndarray, graph: GraphShape, num_workers: int, seen: float
) -> _Sample:
    """All hops from the seeds. seen: the share of dated edges that the sample sees."""
    types, reverse = messages.schema.edge_types, messages.reverse
    target = [messages.type_of(one.target) for one in types]
    source = [messages.type_of(one.source) for one in types]
    seen_K = np.where(messages.schema.has_time, seen, 1.0)
    free_KDQ = np.asarray(poisson.ppf(QUANTILES, (messages.in_KD * seen_K[:, None])[..., None]))
    joined = [(1 - missed_TPD, np.zeros((len(types), *missed_TPD.shape[1:])))]
    nodes, edges = [_count(count_TPD, missed_TPD)], []
    for hop, plan in enumerate(messages.plans):
        sampled, rate_TPD = 0.0, np.zeros_like(missed_TPD)
        rate_KPD = np.zeros((len(types), *missed_TPD.shape[1:]))
        for number, fan_out in enumerate(plan.fan_outs):
            # nothing is left of dated edges before all others
            if not fan_out or not seen_K[number]:
                continue
            kind, back = target[number], reverse[number]
            fan_outs = [messages.plans[before].fan_outs[number] for before in range(hop + 1)]
            drawn_D, one_more_D = (np.minimum(free_KDQ[number] + more, fan_out).mean(axis=1) for more in (0, 1))
            new_P = np.zeros(2)
            for age, (joined_TPD, along_KPD) in enumerate(joined):
                sampled += float((count_TPD[kind] * joined_TPD[kind] * drawn_D).sum())
                if back is not None:
                    # a node that was reached by an edge has that edge too, except the seeds, whose edge is hidden
                    sampled += float((count_TPD[kind] * along_KPD[back] * (one_more_D - drawn_D)).sum())
                fresh_D = fresh_draws(free_KDQ[number], fan_outs[age:])
                new_P += (count_TPD[kind] * joined_TPD[kind] * fresh_D).sum(axis=1)
            per_edge_P = _per_edge(
                float(new_P[OWN]), float(new_P[FOREIGN]), num_workers, graph, messages.num_edges[number]
            )
            rate_KPD[number] = messages.out_KD[number] * per_edge_P[:, None]
            rate_TPD[source[number]] += rate_KPD[number]
        before_TPD = missed_TPD
        missed_TPD = before_TPD * np.exp(-rate_TPD)
        new_TPD = before_TPD - missed_TPD
        joined.append((new_TPD, new_TPD[source] * rate_KPD / np.maximum(rate_TPD[source], 1e-300)))
        nodes.append(_count(count_TPD, missed_TPD))
        edges.append(sampled)
    return _Sample(np.array(nodes), np.array(edges), missed_TPD)


def fresh_draws(free_DQ: np.ndarray, fanouts: list[int]) -> np.ndarray:
    """[D]: the neighbours of a node that its last draw brings and its earlier draws did not."""
    left_DQ = np.ones_like(free_DQ)
    for fan_out in fanouts[:-1]:
        left_DQ *= 1 - np.minimum(fan_out / np.maximum(free_DQ, 1), 1)
    return (np.minimum(free_DQ, fanouts[-1]) * left_DQ).mean(axis=1)


def _degrees(messages: Messages, kind: int) -> np.ndarray:
    """[D]: interactions of users or items."""
    return messages.in_KD[0 if kind == USER else 1]


def _per_edge(own: float, foreign: float, num_workers: int, graph: GraphShape, num_edges: int) -> np.ndarray:
    """[P]: draws for each edge end in a place, given the numbers of draws by own and by foreign destinations."""
    if num_workers == 1:
        return np.array([own / num_edges, 0.0])
    stay = graph.stay(num_workers)
    come = own * stay + foreign * (1 - stay) / (num_workers - 1)
    return np.array([come, (own + foreign - come) / (num_workers - 1)]) * num_workers / num_edges


def _count(count_TPD: np.ndarray, missed_TPD: np.ndarray) -> np.ndarray:
    """[P]: distinct nodes by place."""
    return (count_TPD * (1 - missed_TPD)).sum(axis=(0, 2))
