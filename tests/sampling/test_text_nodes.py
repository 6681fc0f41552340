"""Whose texts a step encodes: few, of all ranks together, as a function of the step and the node."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from helpers import Ranks, same_on_all

from dist_gat.base.random import Purpose, make_key, uniform
from dist_gat.data.column_layout import Column, TrainableText
from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.sampling.hidden_columns import hide_columns
from dist_gat.sampling.text_nodes import TextNodes

COLUMN = TrainableText("item", Column("title", "text", 2, 1, 1), Column("title.tokens", "tokens", 2, 1, 3))
TEXTS = TextNodes(COLUMN, most=5)
KEY = make_key(3, Purpose.TEXTS, 1, 2)
NODES = np.random.default_rng(0).permutation(100)[:40]


def rows_of(nodes: np.ndarray) -> np.ndarray:
    """Every third node has no text."""
    tokens = np.where(nodes[:, None] % 3 == 0, -1, nodes[:, None] + np.arange(2)).astype(np.int32)
    return np.concatenate([np.ones((len(nodes), 3), np.float32), tokens.view(np.float32)], axis=1)


def chosen(nodes: np.ndarray, channel: Channel) -> list[int]:
    return sorted(nodes[TEXTS.choose(nodes, rows_of(nodes), KEY, channel)].tolist())


def test_the_lowest_draws_of_nodes_with_a_text_are_chosen() -> None:
    with_text = np.sort(NODES[NODES % 3 > 0])
    expected = sorted(with_text[np.argsort(uniform(KEY, with_text))[:5]].tolist())
    assert chosen(NODES, Channel("test")) == expected
    assert chosen(NODES[:0], Channel("test")) == []
    assert chosen(np.array([3, 4]), Channel("test")) == [4]


def test_a_node_whose_columns_are_hidden_has_no_text() -> None:
    layout = (Column("known", "known", 1, 1), COLUMN.vector, COLUMN.tokens)
    features = {"item": (torch.arange(len(NODES)), torch.from_numpy(rows_of(NODES)))}
    hide_columns(features, NODES, np.ones(len(NODES), bool), {"item": layout}, 1.0, KEY)
    assert not len(TEXTS.choose(NODES, features["item"][1].numpy(), KEY, Channel("test")))


def choose_share(world_size: int, rank: int) -> list[int]:
    """Shares overlap, and the last rank of several meets no text."""
    mine = NODES[rank :: world_size - 1] if rank < world_size - 1 else np.array([0, 3, 6])
    mine = np.union1d(mine, NODES[:5]) if rank < world_size - 1 else mine
    return chosen(mine, open_channel("texts", torch.device("cpu"), 30))


def all_of(world_size: int) -> list[int]:
    found: list[list[int]] = [[] for _ in range(world_size)]
    dist.all_gather_object(found, choose_share(world_size, dist.get_rank()))
    return sorted({node for of_rank in found for node in of_rank})


def test_ranks_choose_together(ranks: Ranks) -> None:
    expected = chosen(np.union1d(NODES, [0, 3, 6]), Channel("test"))
    for world_size in (2, 3):
        assert same_on_all(ranks.run(world_size, all_of, world_size)) == expected
