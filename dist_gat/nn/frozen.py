"""Which parameters of a recommender are trained."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch

from dist_gat.base.errors import ConfigError
from dist_gat.exchange.channel import Channel
from dist_gat.nn.recommender import Recommender

EMBEDDINGS = "embeddings"


class TrainedShare(NamedTuple):
    """How many parameters there are, and how many of them are trained. rows: of ID embeddings, over all ranks."""

    dense: int
    trained_dense: int
    rows: int
    trained_rows: int

    @property
    def is_whole(self) -> bool:
        return (self.dense, self.rows) == (self.trained_dense, self.trained_rows)

    def in_words(self) -> str:
        whole, trained = self.dense + self.rows, self.trained_dense + self.trained_rows
        parts = [
            f"{done:,} of {total:,} {what}"
            for what, done, total in (
                ("dense", self.trained_dense, self.dense), ("of ID embeddings", self.trained_rows, self.rows)
            )
            if total
        ]  # fmt: skip
        return f"trains {trained:,} of {whole:,} parameters, {trained / max(whole, 1):.2%}: {', '.join(parts)}"


def freeze(model: Recommender, patterns: Sequence[str]) -> None:
    """Train no dense parameter whose name matches one of the glob patterns, and no ID row with `embeddings`.

    Raises `ConfigError` for a pattern that matches nothing.
    """
    parameters = dict(model.dense.named_parameters())
    for name in frozen_names(list(parameters), patterns):
        frozen = model.table.weight if name == EMBEDDINGS else parameters[name]
        frozen.requires_grad_(False)


def frozen_names(dense: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """What the patterns match of `embeddings` and the names of dense parameters. Raises `ConfigError` as `freeze`."""
    names, frozen = [EMBEDDINGS, *dense], set()
    for pattern in patterns:
        # globs are of dense parameters alone
        found = {name for name in names if name == pattern or (name != EMBEDDINGS and fnmatchcase(name, pattern))}
        if not found:
            raise ConfigError(f"train.freeze: {pattern} matches no parameter; this model has {', '.join(names)}")
        frozen |= found
    return frozen


def trained_share(model: Recommender, channel: Channel) -> TrainedShare:
    """Collective. Raises `ConfigError` where nothing is trained."""
    dense = list(model.dense.parameters())
    rows = model.table.weight
    num_dense, num_trained = (
        sum(one.numel() for one in found) for found in (dense, [one for one in dense if one.requires_grad])
    )
    num_rows = int(channel.sum(torch.tensor([rows.numel()])))
    share = TrainedShare(num_dense, num_trained, num_rows, num_rows if rows.requires_grad else 0)
    if not share.trained_dense + share.trained_rows:
        raise ConfigError("train.freeze: all parameters are frozen, so there is nothing to train; leave some out")
    return share
