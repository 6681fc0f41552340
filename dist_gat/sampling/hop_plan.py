"""`HopPlan`: what one hop of sampling draws along each edge type, and where its columns stand.

Shape legend: n nodes, W columns of a hop (the fan-outs of all edge types that lead to one type, at most).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dist_gat.base.errors import ConfigError
from dist_gat.base.random import Purpose, make_key
from dist_gat.config.sections import SamplingConfig
from dist_gat.graph.part import Part
from dist_gat.graph.schema import Schema
from dist_gat.sampling.draws import NO_TIMES, HiddenEdges
from dist_gat.sampling.edge_draws import clear_edges, draw_edges, put_edges

# what the layers may read of an edge, in the order of a message
EDGE_COLUMNS = ("kind", "category", "weight", "age", "rank")
FLOATS = ("weight", "age")
NO_WEIGHTS, NO_CATEGORIES = np.zeros(0, np.float32), np.zeros(0, np.uint16)


class SampledEdges(NamedTuple):
    """sources: int64 [n, W], -1 behind the last of a row. columns: by name in `EDGE_COLUMNS`, [n, W], where asked for:
    int64, or float32 for `FLOATS`."""

    sources: np.ndarray
    columns: dict[str, np.ndarray]


@dataclass(frozen=True)
class HopPlan:
    """fan_outs, strategies: by number of the edge type. needs: what the layers read of an edge."""

    schema: Schema
    fan_outs: tuple[int, ...]
    strategies: tuple[str, ...]
    needs: tuple[str, ...]

    @cached_property
    def first_columns(self) -> tuple[int, ...]:
        """By edge type: its first column. Those that lead to one type stand side by side."""
        return tuple(
            sum(self.fan_outs[before] for before in self.schema.into(one.target) if before < number)
            for number, one in enumerate(self.schema.edge_types)
        )

    @cached_property
    def width(self) -> int:
        """W."""
        return max(sum(self.fan_outs[number] for number in self.schema.into(kind)) for kind in self.schema.node_types)

    @property
    def is_plain(self) -> bool:
        """Whether there is one relation, drawn uniformly and as often both ways, whose edges nobody reads."""
        alike = len(set(self.fan_outs)) == 1 and set(self.strategies) == {"uniform"}
        one = len({one.relation.name for one in self.schema.edge_types}) == 1
        return alike and one and not self.needs and all(count == 1 for count in self.schema.slots)

    @property
    def has_gaps(self) -> bool:
        """Whether there may be gaps between the columns of several edge types."""
        return self.width > 0 and any(count > 1 for count in self.schema.slots)

    def draw(
        self, part: Part, nodes: np.ndarray, limits: np.ndarray, key: np.uint64, hidden: Mapping[str, HiddenEdges],
        nothing_hidden: HiddenEdges, out: np.ndarray, places: np.ndarray,
    ) -> None:  # fmt: skip
        """Write what is drawn for nodes of a part to the rows `places` of `out`, [m, (1 + columns) * W].

        limits: as in `draw_edges`. hidden: by relation.
        """
        kind_of_node, row_of_node = part.rows.type_of(nodes), part.rows.of(nodes)
        clear_edges(out, places, self.width)
        for number, one in enumerate(self.schema.edge_types):
            fan_out, relation = self.fan_outs[number], one.relation
            mine = np.flatnonzero(kind_of_node == self.schema.node_types.index(one.target))
            if not fan_out or not len(mine):
                continue
            slot = self.schema.slot_of[number]
            strategy = self.strategies[number]
            reads_weight = "weight" in relation.columns and "weight" in (strategy, *self.needs)
            found = draw_edges(
                part.indptr, part.indices, part.edge_column("time") if "time" in relation.columns else NO_TIMES,
                part.edge_column("weight") if reads_weight else NO_WEIGHTS, row_of_node[mine] + slot,
                nodes[mine], fan_out, key if slot == 0 else make_key(int(key), Purpose.NEIGHBORS, number),
                hidden.get(relation.name, nothing_hidden), limits[mine] if len(limits) else limits, strategy,
            )  # fmt: skip
            has = {"kind", "age", "rank", *relation.columns}
            begins = [self.needs.index(name) + 1 if name in self.needs and name in has else 0 for name in EDGE_COLUMNS]
            put_edges(
                out, places[mine], self.width, self.first_columns[number], np.array(begins), number, *found,
                part.edge_column("category") if "category" in relation.columns else NO_CATEGORIES,
            )  # fmt: skip

    def read(self, out: np.ndarray) -> SampledEdges:
        """What `draw` wrote, as int64 [n, (1 + columns) * W]."""
        several = out.reshape(len(out), 1 + len(self.needs), self.width)
        columns = {}
        for at, name in enumerate(self.needs, start=1):
            values = several[:, at]
            columns[name] = values.astype(np.int32).view(np.float32) if name in FLOATS else values.copy()
        return SampledEdges(np.ascontiguousarray(several[:, 0]), columns)


def plan_hops(schema: Schema, sampling: SamplingConfig, needs: Sequence[str]) -> list[HopPlan]:
    """Of every hop, the seeds' own first. Raises `ConfigError` for what the graph's edges don't have."""
    known = {name for one in schema.edge_types for name in one.settings}
    if unknown := set(sampling.relations) - known:
        raise ConfigError(
            f"sampling.relations names {', '.join(sorted(unknown))}; the prepared data set has messages along "
            f"{', '.join(sorted(known))}"
        )
    plans = []
    for hop, default in enumerate(sampling.fanouts):
        fan_outs, strategies = [], []
        for one in schema.edge_types:
            # what is said of this way alone comes last, and counts
            own = {name: sampling.relations[name] for name in one.settings if name in sampling.relations}
            given = [settings.fanouts[hop] for settings in own.values() if settings.fanouts is not None]
            fan_outs.append(given[-1] if given else default)
            chosen = [(name, settings.strategy) for name, settings in own.items() if settings.strategy is not None]
            said_of, strategy = chosen[-1] if chosen else ("", sampling.strategy)
            strategies.append(_usable(strategy, one.relation.columns))
            if chosen and strategies[-1] != strategy:
                raise ConfigError(
                    f"sampling.relations.{said_of}.strategy={strategy} needs "
                    f"{'times' if strategy == 'recent' else 'weights'}, which its edges don't have; take uniform"
                )
        plans.append(HopPlan(schema, tuple(fan_outs), tuple(strategies), tuple(needs)))
    return plans


def silent_types(schema: Schema, sampling: SamplingConfig) -> tuple[tuple[bool, ...], ...]:
    """By layer, that of the outermost hop first, and edge type: whether nothing is drawn along it, so that nobody
    attends there. () where something is drawn along each."""
    found = tuple(tuple(not count for count in plan.fan_outs) for plan in reversed(plan_hops(schema, sampling, ())))
    return found if any(map(any, found)) else ()


def _usable(strategy: str, columns: tuple[str, ...]) -> str:
    """The strategy, or `uniform` where the edges lack what it reads."""
    wanted = {"recent": "time", "weight": "weight"}.get(strategy)
    return strategy if wanted is None or wanted in columns else "uniform"
