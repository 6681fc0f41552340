"""`SeedBlockSampler`: a `BlockSampler` of DGL that makes this rank's `Batch` from the number of a step."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from dist_gat.base.random import Purpose, make_key
from dist_gat.config.sections import SamplingConfig
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.block import Block
from dist_gat.sampling.dgl import BlockSampler
from dist_gat.sampling.draws import HiddenEdges, count_neighbors, hide_pairs
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.sampling.row_lookup import plan_lookup
from dist_gat.sampling.seeds import SeedSource

NOTHING = np.zeros((0, 2), dtype=np.int64)


class SeedBlockSampler(BlockSampler):
    """Samples what one step needs around a task's seeds. Every draw is a function of (seed, epoch, step, hop, node)."""

    def __init__(
        self, store: GraphStore, sampling: SamplingConfig, source: SeedSource, seed: int, needs_degree: bool
    ) -> None:
        super().__init__()
        self.store = store
        self.sampling = sampling
        self.source = source
        self.seed = seed
        self.needs_degree = needs_degree

    def sample(self, g: GraphStore, seeds: torch.Tensor, exclude_eids: None = None) -> Batch:
        """The batch of (epoch, step) = `seeds`, an int64 [2] tensor; DGL's DataLoader calls this with its graph."""
        started, exchanged = time.perf_counter(), g.channel.traffic.seconds
        epoch, step = seeds.tolist()
        drawn = self.source.draw(epoch, step)
        hidden = hide_pairs(drawn.pairs if self.sampling.exclude_targets else NOTHING)
        seed_nodes = drawn.nodes
        relabeller = self.relabeller(sum(nodes.size for nodes in seed_nodes))
        at = [torch.from_numpy(relabeller.add(nodes)) for nodes in seed_nodes]
        num_seed_nodes = len(relabeller.nodes)
        key = make_key(self.seed, Purpose.NEIGHBORS, epoch, step)
        nodes, in_degree, blocks = self.sample_blocks(g, relabeller, (int(key), hidden))
        placed = drawn.place(at, relabeller, in_degree)
        features = gather_features(g, nodes)
        lookup = plan_lookup(nodes, g.ownership, g.channel) if g.channel.group is not None else None
        exchange_s = g.channel.traffic.seconds - exchanged
        return Batch(
            epoch=epoch,
            step=step,
            num_global_seeds=drawn.num_global,
            num_edges=sum(int(block.count_D.sum()) for block in blocks),
            seeds=placed,
            nodes_S=torch.from_numpy(nodes),
            blocks=blocks,
            degree_N=None if in_degree is None else torch.from_numpy(in_degree[:num_seed_nodes]),
            lookup=lookup,
            features=features,
            seconds={"sample": time.perf_counter() - started - exchange_s, "exchange": exchange_s},
        )

    def sample_blocks(
        self, g: GraphStore, seed_nodes: Relabeller, exclude_eids: tuple[int, HiddenEdges]
    ) -> tuple[np.ndarray, np.ndarray | None, list[Block]]:
        """Grow the hops from the relabeller's seed nodes, with (key, hidden edges) in DGL's third argument.

        Returns all node IDs int64 [S] by number, their in-degrees where something needs them, and the
        blocks, the outermost first. Destinations of a hop are all nodes of the hop before, in order.
        """
        key, hidden = exclude_eids
        hops = []
        for hop, fan_out in enumerate(self.sampling.fanouts):
            dst = seed_nodes.nodes
            neighbors = g.sample(dst, fan_out, make_key(key, Purpose.NEIGHBORS, hop), hidden, hop)
            hops.append((seed_nodes.add(neighbors), count_neighbors(neighbors), len(seed_nodes.nodes)))
        nodes = seed_nodes.nodes.copy()
        in_degree = g.in_degree(nodes) if self.needs_degree else None
        blocks = [
            Block(
                neighbors_DF=torch.from_numpy(numbers),
                count_D=torch.from_numpy(count),
                num_src=num_src,
                degree_S=None if in_degree is None else torch.from_numpy(in_degree[:num_src]),
            )
            for numbers, count, num_src in reversed(hops)
        ]
        return nodes, in_degree, blocks

    def relabeller(self, num_seed_nodes: int) -> Relabeller:
        """An empty relabeller with room for all hops from so many seed nodes."""
        growth = math.prod(1 + fan_out for fan_out in self.sampling.fanouts)
        num_nodes = self.store.ranges.num_nodes
        return Relabeller(min(num_seed_nodes * growth, num_nodes), num_nodes)


def gather_features(store: GraphStore, nodes: np.ndarray) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By node type with input features: positions among distinct `nodes`, int64 [n], and rows, float32 [n, f]."""
    return {kind: (torch.from_numpy(at), torch.from_numpy(rows)) for kind, (at, rows) in store.features(nodes).items()}
