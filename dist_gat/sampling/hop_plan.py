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
from dist_gat.sampling.draws import HiddenEdges
from dist_gat.sampling.edge_draws import STRATEGIES, HiddenSlots, Slots, StoredEdges, draw_edges, hide_slots

# what the layers may read of an edge, in the order of a message
EDGE_COLUMNS = ("kind", "category", "weight", "age", "rank")
FLOATS = ("weight", "age")
# in the order of `StoredEdges`; read-only, as the files of a part are, so that the kernel is compiled once for both
KINDS = {"time": np.int64, "weight": np.float32, "category": np.uint16}
NO_COLUMNS = {name: np.frombuffer(b"", kind) for name, kind in KINDS.items()}


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
    def width(self) -> int:
        """W."""
        return max(sum(self.fan_outs[number] for number in self.schema.into(kind)) for kind in self.schema.node_types)

    @property
    def is_plain(self) -> bool:
        """Whether there is one relation, drawn uniformly and as often both ways, whose edges nobody reads."""
        alike = len(set(self.fan_outs)) == 1 and set(self.strategies) == {"uniform"}
        one = len({one.relation.name for one in self.schema.edge_types}) == 1
        return alike and one and not self.needs and all(count == 1 for count in self.schema.slots)

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The numbers of the edge types by slot: those that lead to one node type side by side."""
        return tuple(number for kind in self.schema.node_types for number in self.schema.into(kind))

    @cached_property
    def _blocks(self) -> np.ndarray:
        """int64 [5]: which block of W columns of a message has each of `EDGE_COLUMNS`, 0 for none."""
        return np.array([self.needs.index(name) + 1 if name in self.needs else 0 for name in EDGE_COLUMNS])

    def hide(self, hidden: Mapping[str, HiddenEdges], nothing_hidden: HiddenEdges) -> HiddenSlots:
        """hidden: by relation."""
        of_slot = [self.schema.edge_types[number].relation.name for number in self._order]
        names = [name for name in hidden if name in of_slot]
        several = [nothing_hidden, *(hidden[name] for name in names)]
        return hide_slots(several, [names.index(name) + 1 if name in names else 0 for name in of_slot])

    def draw(
        self, part: Part, nodes: np.ndarray, limits: np.ndarray, key: np.uint64, hidden: HiddenSlots, out: np.ndarray,
        places: np.ndarray,
    ) -> None:  # fmt: skip
        """Write what is drawn for nodes of a part to the rows `places` of `out`, [m, (1 + columns) * W].

        limits: as in `draw_edges`. hidden: of `hide`.
        """
        stored = StoredEdges(
            part.indptr, part.indices,
            *(part.edge_column(name) if name in part.edge_columns else none for name, none in NO_COLUMNS.items()),
        )  # fmt: skip
        keys = [
            make_key(int(key), Purpose.NEIGHBORS, number) if self.schema.slot_of[number] else key
            for number in self._order
        ]
        draw_edges(
            stored, self._slots(part), hidden, np.array(keys, np.uint64), nodes, limits, self._blocks, self.width, out,
            places,
        )  # fmt: skip

    def _slots(self, part: Part) -> Slots:
        carried = [self.schema.edge_types[number].relation.columns for number in self._order]
        has = {name: np.array([name in columns for columns in carried], bool) for name in NO_COLUMNS}
        return Slots(
            part.rows.bounds, part.rows.starts, np.append(0, np.cumsum(self.schema.slots)), np.array(self._order),
            np.array([self.fan_outs[number] for number in self._order]),
            np.array([STRATEGIES[self.strategies[number]] for number in self._order]),
            has["time"], has["weight"], has["category"],
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
