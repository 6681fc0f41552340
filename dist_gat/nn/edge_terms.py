"""`EdgeTerms`: what an edge carries, as learned terms of its attention logit.

Each term is a number a head, and all of them start at 0, so that training starts where attention without them is:

    b_ui = relation[k] + category[k, c] + weight_k(w) + age_k(log2(1 + seconds)) + rank_k(log2(1 + newer edges))
           - degree · log(d_i) / 2

k is the edge type, c its category, w its standardised weight. weight_k, age_k and rank_k are curves: a number at each
of a few knots, linear between them. Seconds count from the newest edge that the destination sees, and an edge's rank is
how many it sees that are newer: a recommendation is asked for after the last of them.

Shape legend: D destinations, F fan-out, H heads, K edge types, C categories of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.base.errors import DataError
from dist_gat.config.model_sections import AttentionConfig
from dist_gat.config.sections import SamplingConfig
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import INTERACTIONS, Schema
from dist_gat.kernels.edge_terms_numba import CURVES, EdgeColumns, TablePlaces
from dist_gat.nn.edge_terms_cpu import sum_terms
from dist_gat.sampling.block import Block
from dist_gat.sampling.hop_plan import EDGE_COLUMNS, FLOATS, silent_types


@dataclass(frozen=True)
class EdgeKinds:
    """What a layer must know of the edge types of a graph, by their numbers.

    slot: the place among those that lead to the same type. reverse_slot: that of the same relation the other way, among
    those that lead to the source's type; None where nothing goes there. num_categories, and mean and deviation of the
    weights, and of the logarithms of 1 + them; 0 and 1 where there are none. has_time: whether edges have times.
    silent: by layer too, whether nobody attends along it there; () where somebody does along all.
    """

    names: tuple[str, ...]
    slot: tuple[int, ...]
    reverse_slot: tuple[int | None, ...]
    num_categories: tuple[int, ...]
    weight_mean: tuple[float, ...]
    weight_deviation: tuple[float, ...]
    log_weight_mean: tuple[float, ...]
    log_weight_deviation: tuple[float, ...]
    has_time: tuple[bool, ...]
    silent: tuple[tuple[bool, ...], ...] = ()

    @property
    def are_several(self) -> bool:
        """Whether several edge types lead to one node type."""
        return max(self.slot) > 0


def edge_kinds(
    schema: Schema, weights: Mapping[str, Any], silent: tuple[tuple[bool, ...], ...] = ()
) -> EdgeKinds:  # fmt: skip
    """weights: by relation that has weights, their `mean`, `deviation`, `log_mean` and `log_deviation`, as the manifest
    has them. silent: as `silent_types` gives.
    """
    types = schema.edge_types
    slot = schema.slot_of
    reverse: list[int | None] = []
    for one in types:
        back = [
            slot[number]
            for number, other in enumerate(types)
            if other.relation.name == one.relation.name and (other.source, other.target) == (one.target, one.source)
        ]
        reverse.append(back[0] if back and not one.relation.directed else None)
    found = [weights.get(one.relation.name, {}) for one in types]
    return EdgeKinds(
        tuple(one.name for one in types),
        slot,
        tuple(reverse),
        tuple(len(one.relation.categories) * (2 if one.is_symmetric else 1) for one in types),
        tuple(float(one.get("mean", 0.0)) for one in found),
        tuple(float(one.get("deviation", 0.0)) or 1.0 for one in found),
        tuple(float(one.get("log_mean", 0.0)) for one in found),
        tuple(float(one.get("log_deviation", 0.0)) or 1.0 for one in found),
        schema.has_time,
        silent,
    )


def prepared_kinds(prepared: PreparedGraph, sampling: SamplingConfig) -> EdgeKinds:
    """Those of a data set, where neighbours are drawn so."""
    return edge_kinds(
        prepared.schema, prepared.manifest.get("weights", {}), silent_types(prepared.schema, sampling)
    )  # fmt: skip


def check_edges(config: AttentionConfig, prepared: PreparedGraph) -> None:
    """Raise `DataError` where no edge carries what the layers are to read."""
    found, reads = prepared.schema.edge_columns, {*config.terms, *config.keys}
    for name, (column, setting) in READ_FROM.items():
        if name in reads and column not in found:
            setting_of_model = f"model.{'terms' if name in config.terms else 'keys'}"
            raise DataError(
                f"{prepared.folder}: {setting_of_model} names {name}, and no edges have a {column}: name its column in "
                f"{setting} and prepare again, or leave {name} out"
            )
    weights = prepared.manifest.get("weights", {}).values()
    if config.weight_scale == "log" and any("log_mean" not in one for one in weights):
        raise DataError(
            f"{prepared.folder}: written before model.weight_scale=log, so that it lacks the mean logarithm of the "
            "weights; run `dist-gat prepare` again"
        )


# of a graph of interactions without times and weights
PLAIN_KINDS = edge_kinds(INTERACTIONS, {})


class Knots(NamedTuple):
    """Where a curve has its numbers: `first`, `first + step` and so on."""

    first: float
    step: float
    number: int


# by term or key: the column of an edge that it reads, and the setting that names that column
READ_FROM = {
    "category": ("category", "data.relations.NAME.columns.category"),
    "weight": ("weight", "data.columns.weight"),
    "age": ("time", "data.columns.datetime"),
    "rank": ("time", "data.columns.datetime"),
}
TABLES = ("relation", "category", "weight", "age", "rank")
KERNEL_TYPES = (torch.float32, torch.float64)
FLAT = {torch.float32: np.float32, torch.int64: np.int64}
# weights in deviations from their mean; ages up to a century; ranks up to 65,535
KNOTS = {"weight": Knots(-3.0, 0.5, 13), "age": Knots(0.0, 1.0, 33), "rank": Knots(0.0, 1.0, 17)}


class EdgeTerms(nn.Module):
    """b_DFH of the edges of a block. terms: which, of `relation`, `category`, `weight`, `age`, `rank` and `degree`.

    log_weights: the curve is of log(1 + weight), for counts, of which few are large.
    """

    def __init__(self, terms: Sequence[str], num_heads: int, kinds: EdgeKinds, log_weights: bool = False) -> None:
        super().__init__()
        self.terms, self.kinds, num_kinds = tuple(terms), kinds, len(kinds.slot)
        self.log_weights = log_weights
        self.weight_mean, self.weight_deviation = kinds.weight_mean, kinds.weight_deviation
        if log_weights:
            self.weight_mean, self.weight_deviation = kinds.log_weight_mean, kinds.log_weight_deviation
        self.relation_KH = _zeros(num_kinds, num_heads) if "relation" in terms else None
        self.category_CH = _zeros(max(sum(kinds.num_categories), 1), num_heads) if "category" in terms else None
        self.curves = nn.ParameterDict(
            {name: _zeros(num_kinds * knots.number, num_heads) for name, knots in KNOTS.items() if name in terms}
        )
        self.degree_H = _zeros(num_heads) if "degree" in terms else None
        starts = torch.tensor((0, *kinds.num_categories[:-1])).cumsum(0)
        self.first_category: Tensor
        self.has_category: Tensor
        self.has_time: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        for name, table in (
            ("first_category", starts), ("has_category", torch.tensor(kinds.num_categories) > 0),
            ("has_time", torch.tensor(kinds.has_time)), ("mean", torch.tensor(self.weight_mean)),
            ("deviation", torch.tensor(self.weight_deviation)),
        ):  # fmt: skip
            self.register_buffer(name, table, persistent=False)

    def forward(self, block: Block) -> Tensor:
        found = [self._sum_on_cpu(block)] if self._has_kernel(block) else self._each(block)
        if self.degree_H is not None:
            _, degree_DF = degrees_of_ends(block, self.kinds)
            found.append(-0.5 * degree_DF.to(self.degree_H.dtype).log()[:, :, None] * self.degree_H)
        return torch.stack(found).sum(dim=0) if len(found) > 1 else found[0]

    @property
    def tables(self) -> dict[str, nn.Parameter]:
        """By term, the rows that it reads of: [rows, H]."""
        found = {"relation": self.relation_KH, "category": self.category_CH, **self.curves}
        return {name: table for name, table in found.items() if table is not None}

    def _has_kernel(self, block: Block) -> bool:
        tables = self.tables.values()
        on_cpu = block.count_D.device.type == "cpu" and not torch.compiler.is_compiling()
        return bool(tables) and on_cpu and all(table.dtype in KERNEL_TYPES for table in tables)

    def _sum_on_cpu(self, block: Block) -> Tensor:
        """All terms but that of degrees."""
        kind = self._column(block, "kind", "kind" in block.edges)
        columns = EdgeColumns(kind, *(self._column(block, name, name in self.terms) for name in TABLES[1:]))
        table_RH, num_edges = torch.cat(list(self.tables.values())), block.neighbors_DF.numel()
        out_EH = sum_terms(table_RH, columns, self._places, np.array(self.kinds.num_categories), num_edges)
        return out_EH.view(*block.neighbors_DF.shape, table_RH.shape[1])

    @cached_property
    def _places(self) -> TablePlaces:
        """Where `_sum_on_cpu` reads the tables, one below the other."""
        lengths = [len(table) for table in self.tables.values()]
        first = dict(zip(self.tables, np.cumsum([0, *lengths]).tolist(), strict=False))
        num_categories, number = np.array(self.kinds.num_categories), np.arange(len(self.kinds.slot))
        nowhere, knots = np.full_like(number, -1), [KNOTS[name] for name in CURVES]
        curve = np.stack([first[name] + number * KNOTS[name].number if name in first else nowhere for name in CURVES])
        has_curve = np.stack([np.array([name == "weight" or x for x in self.kinds.has_time]) for name in CURVES])
        mean, scale = np.zeros(curve.shape), np.ones(curve.shape)
        mean[0], scale[0] = self.weight_mean, 1 / np.array(self.weight_deviation)
        category = num_categories.cumsum() - num_categories + first.get("category", 0)
        return TablePlaces(
            relation=first["relation"] + number if "relation" in first else nowhere,
            category=np.where(num_categories > 0, category, -1) if "category" in first else nowhere,
            curve=np.where(has_curve, curve, -1),
            mean=mean.astype(np.float32),
            scale=(scale / [[x.step] for x in knots]).astype(np.float32),
            offset=np.array([-x.first / x.step for x in knots], np.float32),
            last=np.array([x.number - 1 for x in knots], np.float32),
        )

    def _column(self, block: Block, name: str, is_read: bool) -> np.ndarray:
        """Flat: float32 for weight and age, else int64; empty where nothing reads it."""
        kind = torch.float32 if name in FLOATS else torch.int64
        return self._values(block, name).to(kind).contiguous().view(-1).numpy() if is_read else np.zeros(0, FLAT[kind])

    def _values(self, block: Block, name: str) -> Tensor:
        """[D, F], as the curves have them."""
        values_DF = block.edges[name]
        return values_DF.clamp(min=0).log1p() if name == "weight" and self.log_weights else values_DF

    def _each(self, block: Block) -> list[Tensor]:
        """Each term but that of degrees, in plain torch operations; a test holds `_sum_on_cpu` equal to their sum."""
        edges = block.edges
        kind_DF = block.kind_DF()
        found: list[Tensor] = []
        if self.relation_KH is not None:
            found.append(functional.embedding(kind_DF, self.relation_KH))
        if self.category_CH is not None:
            at_DF = (self.first_category[kind_DF] + edges["category"]).clamp(max=len(self.category_CH) - 1)
            found.append(self._where(functional.embedding(at_DF, self.category_CH), self.has_category, kind_DF))
        for name, values in self.curves.items():
            read = self._curve(values, KNOTS[name], kind_DF, self._position(name, self._values(block, name), kind_DF))
            found.append(read if name == "weight" else self._where(read, self.has_time, kind_DF))
        return found

    def _position(self, name: str, values_DF: Tensor, kind_DF: Tensor) -> Tensor:
        """Where a value is on its curve, in knots."""
        if name == "rank":
            values_DF = (1.0 + values_DF).log2()
        elif name == "weight":
            values_DF = (values_DF - self.mean[kind_DF]) / self.deviation[kind_DF]
        knots = KNOTS[name]
        return ((values_DF - knots.first) / knots.step).clamp(0, knots.number - 1)

    def _curve(self, values: Tensor, knots: Knots, kind_DF: Tensor, position_DF: Tensor) -> Tensor:
        below_DF = position_DF.floor().clamp(max=knots.number - 2)
        share_DF1 = (position_DF - below_DF).to(values.dtype)[:, :, None]
        at_DF = kind_DF * knots.number + below_DF.long()
        return (
            functional.embedding(at_DF, values) * (1 - share_DF1) + functional.embedding(at_DF + 1, values) * share_DF1
        )

    def _where(self, values_DFH: Tensor, of_kind: Tensor, kind_DF: Tensor) -> Tensor:
        return values_DFH if bool(of_kind.all()) else values_DFH * of_kind[kind_DF][:, :, None]


def columns_read(config: AttentionConfig, reads_degree: bool, kinds: EdgeKinds) -> tuple[str, ...]:
    """What a layer needs of each edge. reads_degree: whether its scoring does."""
    carried: set[str] = {*config.terms, *config.keys}
    wanted = carried & set(EDGE_COLUMNS)
    # a projection has a matrix for each way along a relation, also where one leads to each node type
    by_type = bool(carried) or config.projection == "relation" or bool(kinds.silent)
    by_slot = kinds.are_several and (reads_degree or config.softmax == "relation")
    if len(kinds.slot) > 1 and (by_type or by_slot):
        wanted.add("kind")
    return tuple(name for name in EDGE_COLUMNS if name in wanted)


def degrees_of_ends(block: Block, kinds: EdgeKinds) -> tuple[Tensor, Tensor]:
    """int64 [D, F] each: degrees of the destination and the source of an edge along its relation, at least 1."""
    assert block.degree_SK is not None, "blocks with degrees"
    degree_DK = block.own_rows(block.degree_SK)
    if not kinds.are_several:
        own_DF = degree_DK[:, :1].expand(block.neighbors_DF.shape)
        return own_DF.clamp(min=1), block.degree_SK[:, 0][block.neighbors_DF].clamp(min=1)
    kind_DF = block.edges["kind"]
    slot = torch.tensor(kinds.slot, device=kind_DF.device)
    back = torch.tensor([-1 if one is None else one for one in kinds.reverse_slot], device=kind_DF.device)[kind_DF]
    own_DF = degree_DK.gather(1, slot[kind_DF])
    width = block.degree_SK.shape[1]
    near_DF = block.degree_SK.flatten()[block.neighbors_DF * width + back.clamp(min=0)]
    return own_DF.clamp(min=1), torch.where(back >= 0, near_DF, 1).clamp(min=1)


def edges_alike(block: Block, kinds: EdgeKinds) -> Tensor:
    """int64 [D, F]: how many edges of the same type a destination has in the block."""
    if not kinds.are_several:
        return block.count_D.clamp(min=1)[:, None].expand(block.neighbors_DF.shape)
    kind_DF = block.edges["kind"].masked_fill(~block.mask_DF(), len(kinds.slot))
    count_DK = functional.one_hot(kind_DF, len(kinds.slot) + 1).sum(dim=1)
    return count_DK.gather(1, kind_DF).clamp(min=1)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))
