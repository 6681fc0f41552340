"""Which rank owns which nodes, against the parts of the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dist_gat.graph.part import PreparedGraph
from dist_gat.sampling.ownership import share_nodes


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_node_has_one_owner(synthetic: PreparedGraph, world_size: int) -> None:
    shares = [share_nodes(synthetic.ranges, world_size, rank) for rank in range(world_size)]
    nodes = np.concatenate([share.own_nodes for share in shares])
    assert nodes.tolist() == list(range(synthetic.ranges.num_nodes))
    for rank, share in enumerate(shares):
        assert (share.first_node, share.num_nodes) == (share.starts[rank], len(share.own_nodes))
        assert (shares[0].owner_of(torch.from_numpy(share.own_nodes)) == rank).all()
