"""`Recommender`: everything dense (encoder and decoder) and this rank's embedding rows, put together.

Shape legend: S outermost sources, N seed nodes, E embedding size, R representation size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dist_gat.base.random import Purpose, make_key
from dist_gat.config.sections import LossConfig, ModelConfig, NegativesConfig
from dist_gat.exchange.channel import Channel
from dist_gat.graph.ranges import ITEM
from dist_gat.nn.decoder import Decoder
from dist_gat.nn.encoder import Encoded, Encoder
from dist_gat.nn.inputs.id_embedding import EmbeddingShard
from dist_gat.nn.popularity import Popularity
from dist_gat.sampling.block import Block
from dist_gat.sampling.graph_store import GraphStore

Features = dict[str, tuple[Tensor, Tensor]]


class DenseModel(nn.Module):
    """The part of the recommender that every rank holds whole, and that DDP keeps equal."""

    def __init__(self, encoder: Encoder, popularity: Popularity | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.popularity = popularity

    def forward(
        self, embedding_SE: Tensor, features: Features, blocks: Sequence[Block], degree_N: Tensor | None = None
    ) -> Encoded:
        encoded = self.encoder(self.encoder.input_rows(embedding_SE, features), blocks)
        return encoded._replace(rows_NR=self.with_popularity(encoded.rows_NR, degree_N))

    def with_popularity(self, rows_NR: Tensor, degree_N: Tensor | None) -> Tensor:
        """[N, R], or [N, R + 1] with the nodes' popularity as the last column, as the decoder expects them."""
        if self.popularity is None:
            return rows_NR
        assert degree_N is not None, "popularity needs the degrees of the nodes"
        return torch.cat([rows_NR, self.popularity(degree_N)[:, None]], dim=1)


@dataclass(frozen=True)
class Recommender:
    """dense: the same on every rank. table: the rows of this rank's nodes. decoder: has no parameters."""

    dense: DenseModel
    table: EmbeddingShard
    decoder: Decoder

    @property
    def encoder(self) -> Encoder:
        return self.dense.encoder

    @torch.no_grad()
    def ranking_rows(self, representation_NR: Tensor, nodes: np.ndarray, store: GraphStore) -> Tensor:
        """Rows of int64 [N] nodes, of any type, whose plain inner product orders the items of a user. Collective.

        With popularity a column more than the representations: that of items, times the temperature, and 1.
        """
        rows_NR = self.decoder.ranking_rows(representation_NR)
        if self.dense.popularity is None:
            return rows_NR
        degree_N = torch.from_numpy(store.in_degree(nodes)).to(rows_NR.device)
        is_item_N = torch.from_numpy(store.ranges.type_of(nodes) == ITEM).to(rows_NR.device)
        last_N = torch.where(is_item_N, self.dense.popularity(degree_N) * self.decoder.temperature, 1.0)
        return torch.cat([rows_NR, last_N[:, None]], dim=1)


def build_recommender(
    config: ModelConfig,
    num_layers: int,
    feature_sizes: dict[str, int],
    node_starts: np.ndarray,
    channel: Channel,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Recommender:
    """A new recommender whose initial values depend on the configuration and the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(make_key(seed, Purpose.WEIGHTS) >> np.uint64(1)))
        encoder = Encoder(config, num_layers, feature_sizes)
    popularity = Popularity() if config.decoder.popularity else None
    table = EmbeddingShard(node_starts, config.embedding_size, channel, seed, config.init_std, dtype)
    return Recommender(DenseModel(encoder, popularity).to(channel.device, dtype), table, Decoder(config.decoder))


def messages_need_degree(model: ModelConfig) -> bool:
    """Whether the layers read in-degrees."""
    return model.scoring == "degree"


def training_needs_degree(model: ModelConfig, loss: LossConfig, negatives: NegativesConfig) -> bool:
    """Whether a batch must have the in-degrees of its nodes: for messages, popularity or the log-Q correction."""
    skewed = negatives.in_batch or negatives.distribution == "popularity"
    corrects = loss.kind == "softmax" and loss.log_q and skewed
    return messages_need_degree(model) or model.decoder.popularity or corrects
