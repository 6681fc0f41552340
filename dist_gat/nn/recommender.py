"""`Recommender`: everything dense (inputs, encoder, own scores), this rank's embedding rows and the decoder.

Shape legend: S outermost sources, N seed nodes, E embedding size, R representation size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.base.random import Purpose, make_key
from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import SamplingConfig
from dist_gat.data.column_layout import Layout
from dist_gat.exchange.channel import Channel
from dist_gat.graph.schema import Relation
from dist_gat.nn.decoder import Decoder
from dist_gat.nn.edge_terms import PLAIN_KINDS, EdgeKinds
from dist_gat.nn.encoder import Encoded, Encoder
from dist_gat.nn.inputs.id_embedding import EmbeddingShard
from dist_gat.nn.inputs.node_inputs import AS_STORED, Features, NodeInputs
from dist_gat.nn.inputs.trained_text import TrainedText
from dist_gat.nn.inputs.type_inputs import Given
from dist_gat.nn.own_scores import OwnScores, build_own_scores
from dist_gat.sampling.block import Block
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.ownership import Ownership

# from the size of representations: what a task has of its own
BuildHead = Callable[[int], nn.Module | None]


def no_head(size: int) -> None:
    """Of a task that trains nothing beside the encoder."""


class DenseModel(nn.Module):
    """The part of the recommender that every rank holds whole, and that DDP keeps equal."""

    def __init__(
        self, inputs: NodeInputs, encoder: Encoder, own_scores: OwnScores, head: nn.Module | None = None
    ) -> None:
        """head: what a task has of its own, such as `TaskHeads`."""
        super().__init__()
        self.inputs = inputs
        self.encoder = encoder
        self.own_scores = own_scores
        self.head = head
        # what stands between ID rows and inputs: see `dist_gat.nn.adapters`
        self.row_adapter: nn.Module | None = None
        # the column of text whose encoder trains: see `add_trained_text`
        self.text: TrainedText | None = None

    def forward(
        self, embedding_UE: Tensor, features: Features, blocks: Sequence[Block], degree_N: Tensor | None = None,
        place_S: Tensor | None = None, has_id_U: Tensor | None = None, text_T: Tensor | None = None,
    ) -> Encoded:  # fmt: skip
        """place_S, has_id_U, text_T: see `Batch`."""
        given = AS_STORED if self.text is None or text_T is None else self.text(features, text_T)
        encoded = self.encoder(rows_at(self.input_rows(embedding_UE, features, has_id_U, given), place_S), blocks)
        return encoded._replace(rows_NR=self.with_own_scores(encoded.rows_NR, degree_N))

    def input_rows(
        self, embedding_UE: Tensor, features: Features, has_id_U: Tensor | None = None,
        given: Mapping[str, Given] = AS_STORED,
    ) -> Tensor:  # fmt: skip
        """[U, E]: what the first layer reads of nodes, from their ID rows and columns. has_id_U: see `ids_present`.
        given: see `NodeInputs`."""
        if self.row_adapter is not None:
            embedding_UE = self.row_adapter(embedding_UE)
        return self.inputs(embedding_UE, features, has_id_U, given)

    def with_own_scores(self, rows_NR: Tensor, degree_N: Tensor | None) -> Tensor:
        """[N, R], or [N, R + 1] with the nodes' own scores as the last column, as the decoder expects them."""
        if not self.own_scores:
            return rows_NR
        assert degree_N is not None, "own scores need the degrees of the nodes"
        return torch.cat([rows_NR, self.own_scores(degree_N)[:, None]], dim=1)


def rows_at(rows_UE: Tensor, place_S: Tensor | None) -> Tensor:
    """[S, E]: the rows of sources, of which several may be one node; see `Batch`."""
    return rows_UE if place_S is None else functional.embedding(place_S, rows_UE)


@dataclass(frozen=True)
class Recommender:
    """dense: the same on every rank. table: the rows of this rank's nodes. decoder: has no parameters.

    untimed: the type of nodes that are represented without messages along edges that have times, or None.
    """

    dense: DenseModel
    table: EmbeddingShard
    decoder: Decoder
    untimed: str | None = None

    @property
    def encoder(self) -> Encoder:
        return self.dense.encoder

    @torch.no_grad()
    def ranking_rows(
        self, representation_NR: Tensor, nodes: np.ndarray, store: GraphStore, relation: Relation
    ) -> Tensor:
        """Rows of int64 [N] nodes whose plain inner products order a relation's targets for a source. Collective.

        With own scores they have one more column: the own score times the temperature for targets, 1 for others.
        """
        rows_NR = self.decoder.ranking_rows(representation_NR)
        if not self.dense.own_scores:
            return rows_NR
        is_target_N = torch.from_numpy(store.ranges.is_of_type(nodes, relation.target)).to(rows_NR.device)
        own_N = sum(self.own_scores(nodes, store).values())
        return torch.cat([rows_NR, torch.where(is_target_N, own_N, 1.0)[:, None]], dim=1)

    @torch.no_grad()
    def own_scores(self, nodes: np.ndarray, store: GraphStore) -> dict[str, Tensor]:
        """The own scores [N] of int64 [N] nodes, by name, times the temperature. Collective."""
        if not self.dense.own_scores:
            return {}
        degree_N = torch.from_numpy(store.in_degree(nodes)).to(self.table.weight.device)
        return {name: term(degree_N) * self.decoder.temperature for name, term in self.dense.own_scores.items()}


def build_dense(
    config: ModelConfig, num_layers: int, layouts: Mapping[str, Layout], build_head: BuildHead = no_head,
    kinds: EdgeKinds = PLAIN_KINDS,
) -> DenseModel:  # fmt: skip
    """A dense model with initial values from torch's global generator."""
    inputs = NodeInputs(layouts, config.embedding_size, config.inputs, config.init_std)
    encoder, own_scores = Encoder(config, num_layers, kinds), build_own_scores(config.decoder)
    return DenseModel(inputs, encoder, own_scores, build_head(encoder.representation_size))


def build_recommender(
    config: ModelConfig,
    num_layers: int,
    layouts: Mapping[str, Layout],
    ownership: Ownership,
    channel: Channel,
    seed: int,
    dtype: torch.dtype = torch.float32,
    build_head: BuildHead = no_head,
    kinds: EdgeKinds = PLAIN_KINDS,
    untimed: str | None = None,
) -> Recommender:
    """A new recommender whose initial values depend on the configuration and the seed alone.

    layouts: of the columns of each node type that has some.
    build_head: of the task, see `Task.build_head`. kinds: the edge types of the graph. untimed: see `Recommender`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(make_key(seed, Purpose.WEIGHTS) >> np.uint64(1)))
        dense = build_dense(config, num_layers, layouts, build_head, kinds)
    table = EmbeddingShard(ownership, config.embedding_size, channel, seed, config.init_std, dtype)
    return Recommender(dense.to(channel.device, dtype), table, Decoder(config.decoder), untimed)


def untimed_type(sampling: SamplingConfig, relation: Relation) -> str | None:
    """The type that is compared with seeds of a time, where these see only what was before them."""
    return relation.target if sampling.time == "strict" else None


def messages_need_degree(model: ModelConfig) -> bool:
    """Whether the layers read in-degrees."""
    return model.scoring in ("degree", "degree_dot") or "degree" in model.terms
