"""`NewNodes`: representations of nodes that training never saw, from their columns and from the nodes they know.

A new node reads the graph as training left it: the trained inputs run over its columns, and the trained layers over one
destination, whose sources are the nodes that it knows. It has no ID row. A node of the graph with the same columns and
neighbours and without an ID row has the same representation. The graph does not change: others hear of the node when it
is prepared again.

Each node is computed alone, so whoever else is asked about changes no bit.

Shape legend: m nodes that it knows, E embedding size, R representation size, W width of columns, n nodes, K edge types
that lead to one type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.errors import ConfigError
from dist_gat.checkpoints.weight_files import DENSE, load_module, load_tensors
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import FIRST_RELATION
from dist_gat.data.column_layout import Layout
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.graph.schema import Schema
from dist_gat.nn.decoder import Decoder
from dist_gat.nn.edge_terms import edge_kinds
from dist_gat.nn.encoder import Encoder, RunningCombination
from dist_gat.nn.inputs.type_inputs import TypeInputs
from dist_gat.nn.own_scores import OwnScores, build_own_scores
from dist_gat.nn.pair_head import PairDecoder, PairHead
from dist_gat.nn.recommender import untimed_type
from dist_gat.sampling.block import Block
from dist_gat.sampling.edge_columns import padded_columns, read_columns
from dist_gat.sampling.hop_plan import silent_types
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.serve.id_index import IdIndex, open_ids
from dist_gat.serve.nearest_known import NearestKnown, open_nearest
from dist_gat.serve.new_columns import NewColumns, open_columns
from dist_gat.serve.saved_model import DEPTH, RANKING_ROWS, SavedModel
from dist_gat.tasks.task_heads import PREFIX

# by edge type: the nodes that a node knows along it
Neighbors = Mapping[int, History]


@dataclass(frozen=True)
class NewNodes:
    """A saved model that is ready for new nodes. inputs, columns: of the types that the predicted relation joins; of
    these, inputs has those with columns. rows: of a name and part, degrees: of a part, ids: of a type, nearest: of
    columns and a number; each is read once."""

    model: SavedModel
    config: Config
    schema: Schema
    inputs: Mapping[str, TypeInputs]
    columns: Mapping[str, NewColumns]
    encoder: Encoder
    decoder: Decoder
    own_scores: OwnScores
    head: PairHead | None
    rows: Callable[[str, int], Tensor]
    degrees: Callable[[int], np.ndarray]
    ids: Callable[[str], IdIndex]
    nearest: Callable[[tuple[str, ...], int], NearestKnown]

    def load(self) -> None:
        """Open all files that answers read."""
        for part in range(self.model.ranges.num_parts):
            self.degrees(part)
            for name in self.model.row_sizes:
                self.rows(name, part)
        for kind in self.schema.node_types:
            self.ids(kind)
        for relation in self.config.data.relations.values():
            if relation.nearest is not None:
                with suppress(ConfigError):  # no neighbours of new items
                    self.nearest(tuple(relation.nearest.columns), relation.nearest.k)

    @torch.no_grad()
    def representation(self, kind: str, columns_W: np.ndarray | None, neighbors: Neighbors) -> Tensor:
        """[1, R] without own scores and biases, of a node of one type. columns_W: None where nothing is known."""
        untimed = kind == untimed_type(self.config.sampling, self.model.relation)
        heard = {
            number: self.messages(number, neighbors[number])
            for number in self.schema.into(kind)
            if number in neighbors and not (untimed and self.schema.has_time[number])
        }
        own_1E = torch.zeros(1, self.config.model.embedding_size)
        if kind in self.inputs:
            row_W = self.columns[kind].missing() if columns_W is None else columns_W
            own_1E = self.inputs[kind](own_1E, None, torch.from_numpy(row_W)[None])
        nodes, block = self._block(heard)
        combination = RunningCombination(self.encoder)
        combination.add(own_1E)
        first = len(self.encoder.layers) if untimed else 0
        for number, layer in enumerate(self.encoder.layers, start=first):
            own_1E = layer(torch.cat([own_1E, self.gather(f"{DEPTH}{number}", nodes)]), block).rows_DO
            combination.add(own_1E)
        assert combination.rows is not None, "there is an input"
        return combination.rows

    def messages(self, edge_type: int, history: History) -> History:
        """Those that carry messages, in the order of the graph: the newest first if they have times, then by node."""
        least, kept = self.config.data.min_message_weight, np.arange(len(history.items))
        of_interactions = self.schema.edge_types[edge_type].relation.name == FIRST_RELATION
        if least is not None and history.weights is not None and of_interactions:
            kept = np.flatnonzero(history.weights >= least)
        has_time = self.schema.has_time[edge_type]
        by_time = -history.moments[kept] if has_time else np.zeros(len(kept), np.int64)
        of_equals = np.zeros(len(kept), np.int64) if history.categories is None else history.categories[kept]
        return history.part(kept[np.lexsort((of_equals, history.items[kept], by_time))])

    def _block(self, heard: Neighbors) -> tuple[np.ndarray, Block]:
        """The sources without the new node itself, int64, and the block of it, source 0, and these."""
        kinds = np.repeat(np.array([*heard], np.int64), [len(one.items) for one in heard.values()])
        every = np.concatenate([np.zeros(0, np.int64), *(one.items for one in heard.values())])
        num_nodes, count = self.model.ranges.num_nodes, np.array([len(every)])
        relabeller = Relabeller(1 + len(every), num_nodes + 1)
        relabeller.add(np.array([num_nodes]))
        near_1F = torch.from_numpy(relabeller.add(every[None]))
        nodes = relabeller.nodes[1:]
        num = len(every)
        stored: dict[str, np.ndarray] = {
            "kind": kinds, "time": np.zeros(num, np.int64), "weight": np.zeros(num, np.float32),
            "category": np.zeros(num, np.int64),
        }  # fmt: skip
        for number, one in heard.items():
            relation, at = self.schema.edge_types[number].relation, kinds == number
            if "time" in relation.columns:
                stored["time"][at] = one.moments
            if one.categories is not None:
                stored["category"][at] = one.categories
            if "weight" in relation.columns:
                mean = self.model.manifest["new_users"]["weights"][relation.name]["mean"]
                stored["weight"][at] = np.float32(mean) if one.weights is None else one.weights
        edges = padded_columns(read_columns(stored, count, self.schema, self.encoder.edge_columns), count)
        degree_SK = None
        if self.encoder.needs_degree:
            own = np.zeros((1, self.degrees(0).shape[1]), np.int64)
            for number, one in heard.items():
                own[0, self.schema.slot_of[number]] = len(one.items)
            degree_SK = torch.from_numpy(np.concatenate([own, self.degrees_of(nodes)]))
        return nodes, Block(near_1F, torch.from_numpy(count), 1 + len(nodes), degree_SK, edges=edges)

    @torch.no_grad()
    def ranking_row(self, rows_1R: Tensor, degree: int | None = None) -> Tensor:
        """[1, …]: of a representation, as the saved ranking rows are. degree: of a target; None: it is a source."""
        is_target = torch.tensor([degree is not None])
        if self.head is not None:
            return PairDecoder(self.decoder, [self.head]).rows(rows_1R, ~is_target, is_target)
        rows_1R = self.decoder.ranking_rows(rows_1R)
        if not self.own_scores:
            return rows_1R
        own_1 = torch.ones(1)
        if degree is not None:
            own_1 = self.own_scores(torch.tensor([degree])) * self.decoder.temperature
        return torch.cat([rows_1R, own_1[:, None]], dim=1)

    def degrees_of(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n, K]"""
        found = np.zeros((len(nodes), self.degrees(0).shape[1]), np.int64)
        for part, mine, at in self._by_part(nodes):
            found[mine] = self.degrees(part)[at]
        return found

    def gather(self, name: str, nodes: np.ndarray) -> Tensor:
        """[n, columns]: saved rows of nodes."""
        rows = torch.empty(len(nodes), self.model.row_sizes[name])
        for part, mine, at in self._by_part(nodes):
            rows[torch.from_numpy(mine)] = self.rows(name, part)[torch.from_numpy(at)]
        return rows

    def _by_part(self, nodes: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Each part of some nodes, their places among these, and in the part."""
        part_of = self.model.ranges.part_of(nodes)
        found = []
        for part in np.unique(part_of).tolist():
            mine = np.flatnonzero(part_of == part)
            found.append((part, mine, nodes[mine] - int(self.model.ranges.starts[part])))
        return found


def open_new_nodes(model: SavedModel) -> NewNodes:
    """Raises `ConfigError` for a model that has no answer for new nodes, `StorageError` for a damaged one."""
    model.check_new_nodes()
    config, schema = model.config, model.schema
    dense, num_layers = load_tensors(model.folder / DENSE), len(config.sampling.fanouts)
    kinds = edge_kinds(schema, model.manifest["new_users"]["weights"], silent_types(schema, config.sampling))
    encoder = Encoder(config.model, num_layers, kinds)
    load_module(encoder, dense, "encoder.", model.folder)
    own_scores = build_own_scores(config.model.decoder)
    load_module(own_scores, dense, "own_scores.", model.folder)
    columns = {kind: open_columns(model, kind) for kind in (model.relation.source, model.relation.target)}
    inputs = {kind: _inputs(one.layout, config, dense, model, kind) for kind, one in columns.items() if one.layout}
    scored = [name for name, saved in model.manifest["pairs"].items() if saved["rows"] == RANKING_ROWS]
    head = None
    if scored:
        if any(name.startswith("head.experts.") for name in dense):
            raise ConfigError(f"{model.folder}: heads=experts has no answer for new nodes yet; take heads=alone")
        head = PairHead(encoder.representation_size)
        load_module(head, dense, f"head.pairs.{PREFIX}{scored[0]}.", model.folder)
    return NewNodes(
        model, config, schema, inputs, columns, encoder.eval(), Decoder(config.model.decoder), own_scores, head,
        cache(lambda name, part: model.rows(part, name)), cache(model.degrees), cache(partial(open_ids, model)),
        cache(partial(open_nearest, model)),
    )  # fmt: skip


def way_to_users(new: NewNodes) -> int:
    """The edge type along which users attend to what they have met. Raises `ConfigError` where there is none."""
    model = new.model
    ways = [n for n, one in enumerate(new.schema.edge_types) if one.relation == model.relation and one.backward]
    if not ways:
        raise ConfigError(
            f"{model.folder}: {model.relation.name} carries no messages, so that nothing is known of a new user; set "
            "messages=true, prepare and train again"
        )
    return ways[0]


def _inputs(layout: Layout, config: Config, dense: dict[str, Tensor], model: SavedModel, kind: str) -> TypeInputs:
    inputs = TypeInputs(layout, config.model.embedding_size, config.model.inputs, config.model.init_std)
    load_module(inputs, dense, f"inputs.types.type_{kind}.", model.folder)
    return inputs
