"""`SeedBlockSampler`: a `BlockSampler` of DGL that makes this rank's `Batch` from the number of a step."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from dist_gat.base.errors import ConfigError
from dist_gat.base.random import Purpose, make_key
from dist_gat.config.model_sections import InputsConfig
from dist_gat.config.sections import SamplingConfig
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.block import Block
from dist_gat.sampling.dgl import BlockSampler
from dist_gat.sampling.draws import HiddenEdges, count_neighbors, hide_pairs
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.hidden_columns import Features, hide_columns
from dist_gat.sampling.hop_plan import plan_hops
from dist_gat.sampling.id_rows import ids_present
from dist_gat.sampling.instances import Instances, distinct, instances_of
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.sampling.row_lookup import plan_lookup
from dist_gat.sampling.seeds import DrawnSeeds, SeedSource


class SeedBlockSampler(BlockSampler):
    """Samples what one step needs around a task's seeds. Every draw is a function of (seed, epoch, step, hop, node)."""

    def __init__(
        self, store: GraphStore, sampling: SamplingConfig, source: SeedSource, seed: int, needs_degree: bool,
        edge_columns: Sequence[str] = (), inputs: InputsConfig | None = None, hidden_columns: float = 0.0,
    ) -> None:  # fmt: skip
        """edge_columns: what the layers read of an edge, of `EDGE_COLUMNS`. inputs: decides whose ID row counts.
        hidden_columns: of so large a share of nodes, see `hide_columns`."""
        super().__init__()
        self.store = store
        self.sampling = sampling
        self.plans = plan_hops(store.prepared.schema, sampling, edge_columns)
        self.source = source
        self.seed = seed
        self.needs_degree = needs_degree
        self.inputs = inputs or InputsConfig()
        self.hidden_columns = hidden_columns

    def sample(self, g: GraphStore, seeds: torch.Tensor, exclude_eids: None = None) -> Batch:
        """The batch of (epoch, step) = `seeds`, an int64 [2] tensor; DGL's DataLoader calls this with its graph."""
        started, exchanged = time.perf_counter(), g.channel.traffic.seconds
        epoch, step = seeds.tolist()
        drawn = self.source.draw(epoch, step)
        instances = self.instances(drawn)
        hides = self.sampling.exclude_targets and instances is None
        hidden = {name: hide_pairs(*pairs) for name, pairs in drawn.predicted.items()} if hides else {}
        seed_nodes = drawn.nodes
        relabeller = self.relabeller(sum(nodes.size for nodes in seed_nodes), instances)
        if instances is not None:
            times = drawn.times
            seed_nodes = [instances.at(nodes, own) for nodes, own in zip(seed_nodes, times, strict=True)]
        at = [torch.from_numpy(relabeller.add(nodes)) for nodes in seed_nodes]
        num_seed_nodes = len(relabeller.nodes)
        key = make_key(self.seed, Purpose.NEIGHBORS, epoch, step)
        found, degrees, blocks = self.sample_blocks(g, relabeller, (int(key), hidden, instances))
        nodes, place = found, None
        in_degree = None if degrees is None else degrees[:, 0]
        if instances is not None:
            nodes, place = distinct(instances.nodes(found), g.ranges.num_nodes)
            # a target's popularity is that of the whole table: it is no message
            in_degree = None if degrees is None else g.in_degree(nodes)[place]
        placed = drawn.place(at, relabeller, in_degree)
        features = gather_features(g, nodes)
        hidden_columns: Features = {}
        if self.hidden_columns:
            is_seed = np.zeros(len(nodes), bool)
            is_seed[slice(num_seed_nodes) if place is None else place[:num_seed_nodes]] = True
            hidden_columns = hide_columns(
                features, nodes, is_seed, g.prepared.layouts, self.hidden_columns,
                make_key(self.seed, Purpose.HIDDEN_COLUMNS, epoch, step),
            )  # fmt: skip
        has_id = ids_present(g.ranges, nodes, self.inputs, make_key(self.seed, Purpose.ID_DROPOUT, epoch, step))
        lookup = plan_lookup(nodes, g.ownership, g.channel) if g.channel.group is not None else None
        exchange_s = g.channel.traffic.seconds - exchanged
        return Batch(
            epoch=epoch,
            step=step,
            num_global_seeds=drawn.num_global,
            num_edges=sum(int(block.count_D.sum()) for block in blocks),
            seeds=placed,
            nodes_U=torch.from_numpy(nodes),
            place_S=None if place is None else torch.from_numpy(place),
            blocks=blocks,
            degree_N=None if in_degree is None else torch.from_numpy(in_degree[:num_seed_nodes]),
            lookup=lookup,
            features=features,
            hidden=hidden_columns,
            has_id_U=None if has_id is None else torch.from_numpy(has_id),
            seconds={"sample": time.perf_counter() - started - exchange_s, "exchange": exchange_s},
        )

    def instances(self, drawn: DrawnSeeds) -> Instances | None:
        """Those of the step's times, where a seed may see only what was before it."""
        if self.sampling.time != "strict":
            return None
        times = [pairs.times for pairs in drawn.predicted.values()]
        if any(of_relation is None for of_relation in times):
            raise ConfigError(
                "sampling.time=strict needs the times of what is predicted, and the prepared data set has none; name "
                "their column with data.columns.datetime=NAME and prepare again, or set sampling.time=any"
            )
        return instances_of(self.store.ranges.num_nodes, np.concatenate([one for one in times if one is not None]))

    def sample_blocks(
        self,
        g: GraphStore,
        seed_nodes: Relabeller,
        exclude_eids: tuple[int, dict[str, HiddenEdges], Instances | None],
    ) -> tuple[np.ndarray, np.ndarray | None, list[Block]]:
        """Grow the hops from the relabeller's seed nodes, with (key, hidden edges, instances) in DGL's third argument.

        Returns all nodes, or instances, int64 [S] by number, their in-degrees int64 [S, K] where something needs them,
        and the blocks, the outermost first. Destinations of a hop are all nodes of the hop before, in order.
        """
        key, hidden, instances = exclude_eids
        hops = []
        for hop, plan in enumerate(self.plans):
            drawn = g.sample(seed_nodes.nodes, plan, make_key(key, Purpose.NEIGHBORS, hop), hidden, hop, instances)
            count = count_neighbors(drawn.sources)
            hops.append((seed_nodes.add(drawn.sources), count, len(seed_nodes.nodes), drawn.columns))
        nodes = seed_nodes.nodes.copy()
        degrees = g.degrees(nodes, instances) if self.needs_degree else None
        blocks = [
            Block(
                neighbors_DF=torch.from_numpy(numbers),
                count_D=torch.from_numpy(count),
                num_src=num_src,
                degree_SK=None if degrees is None else torch.from_numpy(degrees[:num_src]),
                edges={name: torch.from_numpy(values) for name, values in columns.items()},
            )
            for numbers, count, num_src, columns in reversed(hops)
        ]
        return nodes, degrees, blocks

    def relabeller(self, num_seed_nodes: int, instances: Instances | None = None) -> Relabeller:
        """An empty relabeller with room for all hops from so many seed nodes."""
        growth = math.prod(1 + plan.width for plan in self.plans)
        num_ids = self.store.ranges.num_nodes if instances is None else instances.num_ids
        return Relabeller(min(num_seed_nodes * growth, num_ids), num_ids)


def gather_features(store: GraphStore, nodes: np.ndarray) -> Features:
    """By node type with columns: positions among distinct `nodes`, int64 [n], and rows, float32 [n, f]."""
    return {kind: (torch.from_numpy(at), torch.from_numpy(rows)) for kind, (at, rows) in store.features(nodes).items()}
