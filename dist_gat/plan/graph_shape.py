"""What a plan is told of a graph, and what the graph's messages are then expected to be, edge type by edge type.

The graph is a configuration model. Of n nodes of a type, the one of rank r has the expected degree d_r in proportion to
r ** -skew along each edge type, at most the number of nodes at the other end, and its degree is Poisson around it
(Chung and Lu, Annals of Combinatorics 2002). A node's rank is the same along all of them.

Shape legend: T node types, K edge types, D classes of nodes of a type that are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dist_gat.base.errors import ConfigError
from dist_gat.config.data_sections import AUTO, RelationConfig
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import FIRST_RELATION
from dist_gat.graph.schema import EdgeType, Relation, Schema
from dist_gat.nn.edge_terms import columns_read, edge_kinds
from dist_gat.nn.recommender import messages_need_degree
from dist_gat.sampling.hop_plan import HopPlan, plan_hops, silent_types

USER, ITEM = 0, 1
NUM_CLASSES = 200


@dataclass(frozen=True)
class GraphShape:
    """Sizes of a graph, enough for a plan before there is data.

    num_nodes: users and items. num_edges: training interactions, each of which is two messages, one a direction. users:
    their share of the nodes. *_skew: the degree of the node of rank r falls as r ** -skew. edge_cut: share of
    interactions that join the nodes of two ranks; None is that of a random assignment, 1 - 1 / W. relations: edges of
    further relations, by name, or by name and types as `kg-item-entity`. types: nodes of further types. columns: by
    type and name as `item.genres`, how many categories there are, or how long the vectors are.
    """

    num_nodes: int
    num_edges: int
    users: float = 0.5
    user_skew: float = 0.6
    item_skew: float = 0.8
    edge_cut: float | None = None
    relations: Mapping[str, int] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    relation_skew: float = 0.6
    columns: Mapping[str, int] = field(default_factory=dict)

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
        skews = (self.user_skew, self.item_skew, self.relation_skew)
        if not all(0 <= skew <= 2 for skew in skews):
            raise ConfigError(f"skew {', '.join(map(str, skews))}: expected 0 (all alike) to 2")
        for name, count in {**self.relations, **self.types, **self.columns}.items():
            if count < 1:
                raise ConfigError(f"{name}={count}: expected how many there are, 1 or more")
        if self.edge_cut is not None and not 0 <= self.edge_cut <= 1:
            raise ConfigError(f"edge_cut={self.edge_cut}: expected a share of the interactions, 0 to 1")

    @property
    def num_users(self) -> int:
        return round(self.users * self.num_nodes)

    @property
    def num_items(self) -> int:
        return self.num_nodes - self.num_users

    @property
    def all_nodes(self) -> int:
        return self.num_nodes + sum(self.types.values())

    def stay(self, num_workers: int) -> float:
        """The probability that an edge stays on its rank."""
        cut = 1 - 1 / num_workers if self.edge_cut is None else self.edge_cut
        return 1 - cut if num_workers > 1 else 1.0


@dataclass(frozen=True)
class Messages:
    """count_TD: nodes of each class. in_KD: the edges to a node of the edge type's target; out_KD: those from a node of
    its source; by class. num_edges: of each edge type. plans: what each hop draws, the seeds' own first."""

    schema: Schema
    num_nodes: tuple[int, ...]
    num_edges: tuple[int, ...]
    count_TD: np.ndarray
    in_KD: np.ndarray
    out_KD: np.ndarray
    plans: list[HopPlan]

    def type_of(self, name: str) -> int:
        return self.schema.node_types.index(name)

    @property
    def reverse(self) -> list[int | None]:
        """By edge type: that which has the same edges the other way; itself where each edge goes both ways."""
        found: list[int | None] = []
        for one in self.schema.edge_types:
            ends = (one.relation.name, one.target, one.source)
            back = [n for n, other in enumerate(self.schema.edge_types) if _ends(other) == ends]
            found.append(back[0] if back and not one.relation.directed else None)
        return found


def _ends(edge_type: EdgeType) -> tuple[str, str, str]:
    return edge_type.relation.name, edge_type.source, edge_type.target


def expected_messages(config: Config, graph: GraphShape) -> Messages:
    """The messages of a recipe on a graph. Raises `ConfigError` where the size of a relation or a type is missing."""
    schema = shape_schema(config, graph)
    num_nodes = (graph.num_users, graph.num_items, *graph.types.values())
    of_relation = {FIRST_RELATION: graph.num_edges, **graph.relations}
    types, count_TD = schema.edge_types, np.zeros((len(num_nodes), NUM_CLASSES))
    in_KD, out_KD = np.zeros((len(types), NUM_CLASSES)), np.zeros((len(types), NUM_CLASSES))
    num_edges = []
    for number, one in enumerate(types):
        num_edges.append(of_relation[one.relation.name] * (2 if one.is_symmetric else 1))
        ends = schema.node_types.index(one.target), schema.node_types.index(one.source)
        for (kind, other), degrees_KD in ((ends, in_KD), (ends[::-1], out_KD)):
            skew = graph.relation_skew
            if one.relation.name == FIRST_RELATION:
                skew = graph.user_skew if kind == USER else graph.item_skew
            degree_D, count_D = _classes(num_nodes[kind], num_nodes[other], num_edges[-1], skew)
            degrees_KD[number, : len(degree_D)], count_TD[kind, : len(count_D)] = degree_D, count_D
    kinds = edge_kinds(schema, {}, silent_types(schema, config.sampling))
    needs = columns_read(config.model, messages_need_degree(config.model), kinds)
    plans = plan_hops(schema, config.sampling, needs)
    return Messages(schema, num_nodes, tuple(num_edges), count_TD, in_KD, out_KD, plans)


def shape_schema(config: Config, graph: GraphShape) -> Schema:
    """That of the recipe's relations. Interactions and further ones of users and items carry what the recipe reads of
    edges; others what their columns name."""
    node_types = ("user", "item", *graph.types)
    read = {"time": {"age", "rank"} & set(config.model.terms), "weight": {"weight"} & set(config.model.terms)}
    strategies = {config.sampling.strategy, *(one.strategy for one in config.sampling.relations.values())}
    read["time"] |= {"strict"} & {config.sampling.time} | {"recent"} & strategies
    read["weight"] |= {"weight"} & strategies
    carried = tuple(name for name in ("weight", "time") if read[name])
    relations = [Relation(FIRST_RELATION, "user", "item", columns=carried)]
    wanted = {name for name, one in config.data.relations.items() if one.messages}
    if unknown := {name.partition("-")[0] for name in graph.relations} - set(config.data.relations):
        raise ConfigError(f"relation {', '.join(sorted(unknown))}: the recipe has no such one in data.relations")
    if missing := wanted - {name.partition("-")[0] for name in graph.relations}:
        name = min(missing)
        piece = f"{name}-item-entity" if config.data.relations[name].same_as else name
        raise ConfigError(
            f"data.relations.{name}: its size is missing; say how many edges with --relation {piece}=EDGES"
        )
    for name in graph.relations:
        one = config.data.relations[name.partition("-")[0]]
        source, target = _types_of(name, one, node_types)
        if unknown := {source, target} - set(node_types):
            raise ConfigError(
                f"relation {name}: say how many {min(unknown)}s there are with --type {min(unknown)}=NODES"
            )
        columns = ["category"] if one.columns.category else []
        if one.nearest is not None and "weight" in carried:
            columns.append("weight")
        for column, setting in (("weight", one.columns.weight), ("time", one.columns.datetime)):
            if column in carried and (one.is_behaviour if setting == AUTO else setting):
                columns.append(column)
        relations.append(
            Relation(
                name,
                source,
                target,
                one.has_pairs,
                one.messages,
                one.directed,
                tuple(columns),
                ("any",) * bool(one.columns.category),
            )
        )
    return Schema(node_types, tuple(relations))


def _types_of(name: str, config: RelationConfig, node_types: tuple[str, ...]) -> tuple[str, str]:
    """The ends of a relation, or of a piece of one such as `kg-item-entity`."""
    for source in node_types:
        for target in node_types:
            if name.endswith(f"-{source}-{target}"):
                return source, target
    return config.source, config.target


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
