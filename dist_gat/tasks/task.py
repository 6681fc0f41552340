"""`Task`: what a step of training means. The training loop knows a task by this protocol alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor, nn

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker
from dist_gat.graph.schema import Relation
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.seeds import SeedSource


class Task(Protocol):
    """relation: what is predicted. needs_degree: whether batches must have the in-degrees of their nodes.
    hidden_columns: the share of nodes whose columns a step hides, see `hide_columns`.

    metric: the name, among those of `measure`, by which the best epoch is chosen. higher_is_better: its direction.
    """

    @property
    def relation(self) -> Relation: ...

    @property
    def needs_degree(self) -> bool: ...

    @property
    def hidden_columns(self) -> float: ...

    @property
    def metric(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def build_head(self, size: int) -> nn.Module | None:
        """What the task trains beside the encoder, whose representations have this size."""

    def source(self, store: GraphStore) -> SeedSource:
        """Where a stream of sampling gets its seeds from."""

    def loss(
        self, model: Recommender, rows_NR: Tensor, embedding_SE: Tensor, batch: Batch, channel: Channel
    ) -> dict[str, Tensor]:
        """The terms whose sum, added over the ranks, is the step's loss. Collective.

        rows_NR: what the dense model made of the batch's N seed nodes. embedding_SE: the rows that the lookup returned.
        """

    def rows(self, model: Recommender, representation_NR: Tensor, nodes: np.ndarray, store: GraphStore) -> Tensor:
        """[N, R']: rows of int64 [N] nodes whose inner products rank the relation's targets for a source. Collective.

        representation_NR: what the encoder makes of them.
        """

    def measure(
        self, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker, split: str
    ) -> dict[str, float]:
        """Metrics on a split, the same on every rank. Collective.

        representation_OR: what the encoder makes of this rank's nodes, in the order of their IDs.
        """
