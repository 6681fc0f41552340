"""`Recommender`: everything dense (encoder and decoder) and this rank's embedding rows, put together.

Shape legend: S outermost sources, N seed nodes, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dist_gat.config import LossConfig, ModelConfig, NegativesConfig
from dist_gat.exchange.channel import Channel
from dist_gat.nn.decoder import Decoder
from dist_gat.nn.embedding import EmbeddingShard
from dist_gat.nn.encoder import Encoded, Encoder
from dist_gat.random import Purpose, make_key
from dist_gat.sampling.block import Block

Features = dict[str, tuple[Tensor, Tensor]]


class DenseModel(nn.Module):
    """The part of the recommender that every rank holds whole, and that DDP keeps equal."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, embedding_SE: Tensor, features: Features, blocks: Sequence[Block]) -> Encoded:
        return self.encoder(self.encoder.input_rows(embedding_SE, features), blocks)


@dataclass(frozen=True)
class Recommender:
    """dense: the same on every rank. table: the rows of this rank's nodes. decoder: has no parameters."""

    dense: DenseModel
    table: EmbeddingShard
    decoder: Decoder

    @property
    def encoder(self) -> Encoder:
        return self.dense.encoder


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
    table = EmbeddingShard(node_starts, config.embedding_size, channel, seed, config.init_std, dtype)
    return Recommender(DenseModel(encoder.to(channel.device, dtype)), table, Decoder(config.decoder))


def messages_need_degree(model: ModelConfig) -> bool:
    """Whether the layers read in-degrees."""
    return model.scoring == "degree"


def loss_needs_degree(loss: LossConfig, negatives: NegativesConfig) -> bool:
    """Whether the log-Q correction reads in-degrees."""
    skewed = negatives.in_batch or negatives.distribution == "popularity"
    return loss.kind == "softmax" and loss.log_q and skewed
