"""`sampling.time=strict`: no seed sees an edge of its own time or later, at any hop, and nothing else is hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from helpers import Ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from small_world import world_recipe, write_world

from dist_gat import api
from dist_gat.base.errors import ConfigError
from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.instances import Instances
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.ranking_seeds import ranking_source

NO_HELD_OUT = {"split": {"method": "random", "valid_ratio": 0, "test_ratio": 0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strict")
    write_world(folder / "raw")
    api.prepare(world_recipe(folder, data=NO_HELD_OUT))
    return folder


def sampler_of(
    prepared: PreparedGraph, config: Any, channel: Channel | None = None, **sampling: Any
) -> SeedBlockSampler:
    chosen = config.sampling.model_copy(update={"time": "strict", **sampling})
    store = open_store(prepared, channel or Channel("test"), chosen.access)
    source = ranking_source(store, prepared.schema.relations[0], config.negatives, 50, 0)
    return SeedBlockSampler(store, chosen, source, 0, True, ("kind", "age", "rank"))


def messages_of(sampler: SeedBlockSampler, instances: Instances, roots: np.ndarray) -> list[tuple[int, ...]]:
    """(hop, edge type, destination, its limit, source, source's limit) of what is sampled around instances."""
    relabeller = sampler.relabeller(len(roots), instances)
    relabeller.add(roots)
    found, _, blocks = sampler.sample_blocks(sampler.store, relabeller, (7, {}, instances))
    nodes, limits = instances.nodes(found), instances.limits_of(found)
    rows = []
    for hop, block in enumerate(reversed(blocks)):
        for u, count in enumerate(block.count_D.tolist()):
            for at, kind in zip(
                block.neighbors_DF[u, :count].tolist(), block.edges["kind"][u, :count].tolist(), strict=True
            ):
                rows.append((hop, kind, int(nodes[u]), int(limits[u]), int(nodes[at]), int(limits[at])))
    return rows


def times_of(prepared: PreparedGraph) -> dict[tuple[int, int], int]:
    """When each user met each item."""
    (relation, *_) = prepared.schema.relations
    found = {}
    for part in prepared.parts:
        pairs, times = part.pairs(relation, "train"), part.times(relation, "train")
        found |= {(int(user), int(item)): int(time) for (user, item), time in zip(pairs, times, strict=True)}
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["uniform", "recent", "weight"]), st.integers(1, 6))
def test_nothing_of_the_time_or_later_is_seen(folder: Path, seed: int, strategy: str, fan_out: int) -> None:
    prepared, config = open_prepared(folder / "prepared"), world_recipe(folder)
    sampler = sampler_of(prepared, config, strategy=strategy, fanouts=[fan_out, 2])
    times = times_of(prepared)
    rng = np.random.default_rng(seed)
    every = np.array(sorted(times.values()))
    limits = np.unique(rng.choice(every, 3))
    instances = Instances(prepared.ranges.num_nodes, np.append(np.iinfo(np.int64).min, limits))
    nodes = rng.choice(prepared.ranges.num_nodes, 20)
    roots = np.unique(nodes + prepared.ranges.num_nodes * rng.integers(0, len(limits) + 1, 20))
    found = messages_of(sampler, instances, roots)
    assert {hop for hop, *_ in found} == {0, 1}
    timed = 0
    for _, kind, dst, limit, src, src_limit in found:
        assert src_limit == limit, "a neighbour is there at the same time"
        if "time" in prepared.schema.edge_types[kind].relation.columns:
            time = times[dst, src] if (dst, src) in times else times[src, dst]
            assert time < limit
            timed += 1
    # all of what is before is there to be drawn
    users = set(range(*prepared.ranges.bounds_of("user")[0]))
    for root in roots.tolist():
        node, limit = root % prepared.ranges.num_nodes, int(instances.limits_of(np.array([root]))[0])
        if node in users and strategy != "weight":
            visible = sum(user == node and time < limit for (user, _), time in times.items())
            drawn = {src for hop, kind, dst, at, src, _ in found if (hop, kind, dst, at) == (0, 0, node, limit)}
            assert len(drawn) == min(visible, fan_out)


def test_an_edge_of_the_future_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """Another interaction, later than the limit, of nodes that are there anyway."""
    write_world(tmp_path / "raw")
    rows = pl.read_csv(tmp_path / "raw" / "interactions.csv")
    limit = int(np.median(rows["timestamp"].to_numpy())) * 10**6
    met = set(rows.select("user_id", "item_id").rows())
    late = next((f"u{u}", f"i{i}") for u in range(40) for i in range(30) if (f"u{u}", f"i{i}") not in met)
    more = pl.DataFrame({"user_id": late[0], "item_id": late[1], "weight": [5], "timestamp": [limit // 10**6]})
    pl.concat([rows, more]).write_csv(tmp_path / "raw" / "interactions.csv")
    api.prepare(world_recipe(tmp_path, data=NO_HELD_OUT))
    found = []
    for place in (folder, tmp_path):
        prepared = open_prepared(place / "prepared")
        instances = Instances(prepared.ranges.num_nodes, np.array([np.iinfo(np.int64).min, limit]))
        roots = np.arange(prepared.ranges.num_nodes) + prepared.ranges.num_nodes
        found.append([messages_of(sampler_of(prepared, world_recipe(place), strategy=strategy), instances, roots)
                      for strategy in ("uniform", "recent")])  # fmt: skip
    assert sum(map(len, found[0])) > 500
    assert found[0] == found[1]


def sampled_batch(folder: Path, step: int) -> dict[str, Any]:
    channel = open_channel("sampling", torch.device("cpu"), 30) if torch.distributed.is_initialized() else None
    prepared = open_prepared(folder / "prepared")
    sampler = sampler_of(prepared, world_recipe(folder), channel, access="exchange")
    batch = sampler.sample(sampler.store, torch.tensor([0, step]))
    users, items = batch.nodes_S[batch.seeds.user_at_B], batch.nodes_S[batch.seeds.item_at_B]
    inner = batch.blocks[-1]
    near = [
        (int(user), int(item), tuple(batch.nodes_S[inner.neighbors_DF[at, : inner.count_D[at]]].tolist()),
         tuple(inner.edges["age"][at, : inner.count_D[at]].tolist()))
        for user, item, at in zip(users.tolist(), items.tolist(), batch.seeds.user_at_B.tolist(), strict=True)
    ]  # fmt: skip
    no_times = inner.count_D[batch.seeds.shared_at_N]
    assert len(batch.nodes_U) == len(batch.nodes_U.unique())
    return {"near": near, "of_negatives": no_times.tolist(), "degrees": inner.degree_SK[batch.seeds.user_at_B].tolist()}


def test_ranks_sample_what_one_does(folder: Path, ranks: Ranks) -> None:
    for step in (0, 3):
        alone = sampled_batch(folder, step)
        for world_size in (2, 3):
            parted = ranks.run(world_size, sampled_batch, folder, step)
            assert sorted(row for found in parted for row in found["near"]) == sorted(alone["near"])
        kinds = open_prepared(folder / "prepared").schema
        assert kinds.edge_types[0].relation.name == "interacts"


def test_ranks_train_and_a_model_explains(folder: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "raw")
    sections: dict[str, Any] = {
        "data": {"split": {"method": "leave_last_out"}},
        "sampling": {"time": "strict", "strategy": "recent"},
        "model": {"scoring": "degree_dot", "terms": ["relation", "rank", "age", "category"]},
        "train": {"precision": "float64", "num_epochs": 1},
    }
    api.prepare(world_recipe(tmp_path, **sections))
    alone = api.train(world_recipe(tmp_path, "one", **sections))
    for workers, access in ((2, "exchange"), (4, "auto")):
        more = sections | {"sampling": sections["sampling"] | {"access": access}, "launch": {"num_workers": workers}}
        other = api.train(world_recipe(tmp_path, f"w{workers}", **more))
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-8)
    found = api.explain(tmp_path / "one", "u3")
    assert found["score"] == pytest.approx(found["saved_score"], rel=1e-5)
    assert found["num_item_users"], "it has some, and interactions have times"
    assert found["item_users"] == []


def test_it_needs_times(tmp_path: Path) -> None:
    write_world(tmp_path / "raw")
    config = world_recipe(tmp_path, data={"columns": {"datetime": None}}, sampling={"time": "strict"})
    api.prepare(config)
    with pytest.raises(ConfigError, match=r"sampling.time=strict needs the times.*data.columns.datetime=NAME"):
        api.train(config)
    with pytest.raises(ConfigError, match="sampling.time=strict is for ranking"):
        world_recipe(tmp_path, sampling={"time": "strict"}, task={"kind": "rating"}, train={"metric": "rmse"})
