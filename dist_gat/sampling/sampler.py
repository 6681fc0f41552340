"""`SeedBlockSampler`: our `BlockSampler`, from the number of a step to this rank's `Batch`.

A global step is a fixed set of seed edges, the same for any number of ranks. A seed belongs to the rank
that owns its user, so ranks have different numbers of seeds, and a rank may have none.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from dist_gat.base.pairs import sort_pairs
from dist_gat.base.random import Purpose, make_key, permute
from dist_gat.config.sections import NegativesConfig, SamplingConfig
from dist_gat.exchange.route import share_rows
from dist_gat.sampling.batch import Batch, Candidates
from dist_gat.sampling.block import Block
from dist_gat.sampling.dgl import BlockSampler
from dist_gat.sampling.draws import HiddenEdges, Relabeller, count_neighbors, hide_pairs
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.negatives import NegativeSampler
from dist_gat.sampling.row_lookup import plan_lookup

NOTHING = np.zeros((0, 2), dtype=np.int64)


class SeedBlockSampler(BlockSampler):
    """Samples what one step of link prediction needs. Every draw is a function of (seed, epoch, step, hop, node)."""

    def __init__(
        self,
        store: GraphStore,
        sampling: SamplingConfig,
        negatives: NegativesConfig,
        batch_size: int,
        seed: int,
        needs_degree: bool,
    ) -> None:
        super().__init__()
        self.store = store
        self.sampling = sampling
        self.batch_size = batch_size
        self.seed = seed
        self.needs_degree = needs_degree
        self.negatives = NegativeSampler(store, negatives, seed)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.store.prepared.num_edges("train") / self.batch_size)

    def seed_edges(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The step's seed edges over all ranks: global edge numbers int64 [n], (user, item) nodes int64 [n, 2]."""
        total = self.store.prepared.num_edges("train")
        places = np.arange(step * self.batch_size, min((step + 1) * self.batch_size, total))
        numbers = permute(make_key(self.seed, Purpose.SHUFFLE, epoch), places, total)
        return numbers, self.store.edges("train", numbers)

    def sample(self, g: GraphStore, seeds: torch.Tensor, exclude_eids: None = None) -> Batch:
        """The batch of (epoch, step) = `seeds`, an int64 [2] tensor; DGL's DataLoader calls this with its graph."""
        started, exchanged = time.perf_counter(), g.channel.traffic.seconds
        epoch, step = seeds.tolist()
        numbers, pairs = self.seed_edges(epoch, step)
        hidden = hide_pairs(pairs if self.sampling.exclude_targets else NOTHING)
        rank = g.channel.rank
        starts = g.prepared.edge_starts("train")[g.rank_starts]
        rank_of_pair = np.searchsorted(starts, numbers, side="right") - 1
        places = np.flatnonzero(rank_of_pair == rank)
        users, items = pairs[places, 0], pairs[places, 1]
        shared, rank_of_shared = self.negatives.shared(epoch, step)
        own = self.negatives.own(epoch, step, places)

        own_shared = shared[rank_of_shared == rank]
        relabeller = self.relabeller(len(users) + len(items) + len(own_shared) + own.size)
        at = [torch.from_numpy(relabeller.add(nodes)) for nodes in (users, items, own_shared, own)]
        num_seed_nodes = len(relabeller.nodes)
        key = make_key(self.seed, Purpose.NEIGHBORS, epoch, step)
        nodes, in_degree, blocks = self.sample_blocks(g, relabeller, (int(key), hidden))
        # without in-degrees the draws are uniform, and their expected count is the same for every item
        degree = in_degree if in_degree is not None else np.zeros(len(nodes), np.int64)
        in_batch = slice(None) if self.negatives.config.in_batch else slice(0)
        candidates = self.candidates(
            np.concatenate([shared, pairs[in_batch, 1]]),
            np.concatenate([rank_of_shared, rank_of_pair[in_batch]]),
            relabeller,
            degree,
            len(numbers),
        )
        log_count_BK = self.negatives.log_expected_count(degree[at[3].numpy()], len(numbers))
        features = gather_features(g, nodes)
        lookup = None
        if g.channel.group is not None:
            lookup = plan_lookup(nodes, g.ranges.starts[g.rank_starts], g.channel)
        exchange_s = g.channel.traffic.seconds - exchanged
        return Batch(
            epoch=epoch,
            step=step,
            num_global_seeds=len(numbers),
            num_edges=sum(int(block.count_D.sum()) for block in blocks),
            nodes_S=torch.from_numpy(nodes),
            blocks=blocks,
            user_at_B=at[0],
            item_at_B=at[1],
            shared_at_N=at[2],
            own_at_BK=at[3],
            item_B=torch.from_numpy(items),
            own_BK=torch.from_numpy(own),
            log_count_BK=torch.from_numpy(log_count_BK),
            candidates=candidates,
            degree_N=None if in_degree is None else torch.from_numpy(in_degree[:num_seed_nodes]),
            lookup=lookup,
            features=features,
            seconds={"sample": time.perf_counter() - started - exchange_s, "exchange": exchange_s},
        )

    def candidates(
        self, items: np.ndarray, ranks: np.ndarray, relabeller: Relabeller, degree: np.ndarray, num_global_seeds: int
    ) -> Candidates:
        """The different ones of the drawn `items`; the same on every rank. Collective.

        items, ranks: int64, with the ranks that could encode them.
        degree: of this rank's nodes, by number in the relabeller.
        """
        channel = self.store.channel
        items, ranks = sort_pairs(items, ranks)
        drawn, first, num_drawn = np.unique(items, return_index=True, return_counts=True)
        # of an item that several ranks drew the first one's row serves all: they sample the same neighbours
        rank_of_row = ranks[first]
        by_rank = np.argsort(rank_of_row, kind="stable")
        offered, rank_of_row, num_drawn = drawn[by_rank], rank_of_row[by_rank], num_drawn[by_rank]
        counts = np.bincount(rank_of_row, minlength=channel.world_size).tolist()
        offered_at = relabeller.find(offered[rank_of_row == channel.rank])
        degree_of_row = np.zeros(len(offered), np.int64)
        if self.needs_degree:
            degree_of_row = share_rows(torch.from_numpy(degree[offered_at]), channel, counts).numpy()
        log_count = self.negatives.log_expected_count(degree_of_row, num_global_seeds)
        return Candidates(
            torch.from_numpy(offered_at),
            tuple(counts),
            torch.from_numpy(offered),
            torch.from_numpy(num_drawn.astype(np.float32)),
            torch.from_numpy(log_count),
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
    """Of each node type with input features: positions among distinct `nodes`, int64 [n], and rows, float32 [n, f]."""
    return {kind: (torch.from_numpy(at), torch.from_numpy(rows)) for kind, (at, rows) in store.features(nodes).items()}
