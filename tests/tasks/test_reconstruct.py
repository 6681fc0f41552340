"""Reconstruction of hidden edges and columns: what a step hides, the same on any number of workers, what it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_world import world_recipe, write_world
from world_columns import COLUMNS, write_columns

from dist_gat import api
from dist_gat.base.errors import DataError
from dist_gat.config.sections import Config, NegativesConfig
from dist_gat.config.task_sections import RankingTask
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import open_prepared
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.build_task import build_task

PAIRS = ("interacts", "friends", "follows", "tags")
FIRST_ALONE = dict.fromkeys(PAIRS[1:], 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reconstruct")
    write_world(folder / "raw")
    write_columns(folder / "raw")
    api.prepare(recipe(folder))
    return folder


def recipe(folder: Path, run: str = "run", num_workers: int = 1, access: str = "auto", **task: object) -> Config:
    return world_recipe(
        folder, run, data={"nodes": COLUMNS}, task={"kind": "reconstruct", "hidden_together": 4, **task},
        model={"embedding_size": 8, "scoring": "degree", "terms": ["relation"], "residual": False},
        train={"precision": "float64", "num_epochs": 3, "patience": 0}, launch={"num_workers": num_workers},
        sampling={"access": access},
    )  # fmt: skip


def test_every_edge_is_hidden_and_predicted_once_an_epoch_with_others_of_its_source(folder: Path) -> None:
    config = recipe(folder)
    prepared = open_prepared(config.data.prepared)
    task, store = build_task(config, prepared), open_store(prepared, Channel("test"), "auto")
    sampler = SeedBlockSampler(store, config.sampling, task.source(store), 0, task.needs_degree)
    assert set(task.of) == set(PAIRS)
    relations = {one.name: one for one in prepared.schema.relations}
    seen: dict[str, list[np.ndarray]] = {name: [] for name in PAIRS}
    together: list[float] = []
    for step in range(sampler.source.steps_per_epoch):
        drawn = sampler.source.draw(0, step)
        batch = sampler.sample(store, torch.tensor([0, step]))
        nodes = batch.nodes_S.numpy()
        passed = set()
        for block in batch.blocks:
            at_D, at_F = np.nonzero(block.mask_DF().numpy())
            passed |= {*zip(nodes[at_D].tolist(), nodes[block.neighbors_DF.numpy()[at_D, at_F]].tolist(), strict=True)}
        for name, pairs in drawn.predicted.items():
            seen[name].append(pairs.nodes)
            if name == "interacts":
                hidden = {*map(tuple, pairs.nodes.tolist())}
                assert not passed & (hidden | {pair[::-1] for pair in hidden}), "a message along a hidden edge"
                together.append(len(pairs.nodes) / len(np.unique(pairs.nodes[:, 0])))
    assert np.mean(together) > 2, "several of a source at a time"
    every = np.concatenate([part.pairs(relations["interacts"], "train") for part in prepared.parts])
    assert sorted(map(tuple, np.concatenate(seen["interacts"]).tolist())) == sorted(map(tuple, every.tolist()))


def test_ranks_train_and_measure_as_one_does(folder: Path) -> None:
    alone = api.train(recipe(folder, "one"))
    for workers, access in ((2, "auto"), (4, "exchange")):
        other = api.train(recipe(folder, f"run-{workers}", workers, access))
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-8)
    assert "mrr@20" in alone["valid"]
    assert api.evaluate(recipe(folder, "one"))["test"]["recall@20"] > 0


def test_weights_choose_relations(folder: Path) -> None:
    prepared = open_prepared(recipe(folder).data.prepared)
    task = build_task(recipe(folder, weights={"friends": 0, "tags": 2.5}), prepared)
    assert task.weights == {"interacts": 1, "follows": 1, "tags": 2.5}
    with pytest.raises(DataError, match="task.weights names likes; .* are interacts, friends, follows, tags"):
        build_task(recipe(folder, weights={"likes": 1}), prepared)


def test_columns_are_hidden_wherever_a_batch_reads_them_and_kept_for_the_loss(folder: Path) -> None:
    config = recipe(folder, hidden_columns=0.4, weights=FIRST_ALONE)
    # few seeds, so that neighbours are others
    few = {"train": config.train.model_copy(update={"batch_size": 6})}
    config = config.model_copy(update={**few, "negatives": NegativesConfig(num_shared=2)})
    prepared = open_prepared(config.data.prepared)
    task, store = build_task(config, prepared), open_store(prepared, Channel("test"), "auto")
    plain = SeedBlockSampler(store, config.sampling, task.source(store), 0, task.needs_degree)
    hiding = SeedBlockSampler(store, config.sampling, task.source(store), 0, task.needs_degree, hidden_columns=0.4)
    of_others, shares, steps = 0, [], [(0, 0), (0, 1), (1, 0)]
    for step in map(torch.tensor, steps):
        whole, batch = plain.sample(store, step), hiding.sample(store, step)
        num_seeds = len(batch.degree_N)
        assert not whole.hidden
        assert torch.equal(whole.nodes_U, batch.nodes_U)
        for kind, (at, rows) in batch.features.items():
            _, known = whole.features[kind]
            is_hidden = rows.view(torch.int32).ne(known.view(torch.int32)).any(dim=1)
            shares.append(float(is_hidden.float().mean()))
            of_others += int(is_hidden[at >= num_seeds].sum())
            width = {column.name: column.slice for column in prepared.layouts[kind]}
            assert torch.equal(rows[:, 0], known[:, 0]), "whether training meets a node is not hidden"
            assert torch.equal(rows[~is_hidden].view(torch.int32), known[~is_hidden].view(torch.int32))
            number = "year" if kind == "item" else "age"
            assert rows[is_hidden][:, width[number]].isnan().all()
            category = "genres" if kind == "item" else "gender"
            assert (rows[is_hidden][:, width[category]].contiguous().view(torch.int32) == -1).all()
            hidden_at, hidden_rows = batch.hidden[kind]
            of_seeds = at[is_hidden & (at < num_seeds)]
            assert set(of_seeds.tolist()) <= set(hidden_at.tolist()), "a node without values shows no difference"
            expected = known[torch.isin(at, hidden_at)]
            assert torch.equal(hidden_rows.view(torch.int32), expected.view(torch.int32))
    assert len({tuple(hiding.sample(store, torch.tensor(step)).hidden["item"][0].tolist()) for step in steps}) == 3
    assert 0.25 < np.mean(shares) < 0.55
    assert of_others > 10, "neighbours are hidden too"


def test_ranks_reconstruct_columns_as_one_does_and_learn_to(folder: Path) -> None:
    alone = api.train(recipe(folder, "columns-one", hidden_columns=0.5, weights=FIRST_ALONE))
    for workers, access in ((2, "auto"), (4, "exchange")):
        other = api.train(
            recipe(folder, f"columns-{workers}", workers, access, hidden_columns=0.5, weights=FIRST_ALONE)
        )
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
    without = api.train(recipe(folder, "columns-none", weights=FIRST_ALONE))
    parts = [of_columns - of_edges for of_columns, of_edges in zip(alone["losses"], without["losses"], strict=True)]
    assert min(parts[:3]) > 0
    assert np.mean(parts[-4:]) < np.mean(parts[:4])
    follower = recipe(folder, "columns-then").model_copy(update={"task": RankingTask()})
    begun = api.train(follower.model_copy(
        update={"train": follower.train.model_copy(update={"init_from": str(folder / "columns-one")})}
    ))  # fmt: skip
    assert any("head." in line for line in begun["init_from"]), "the decoder of columns stays behind"


def test_columns_that_are_not_there_are_not_hidden(folder: Path) -> None:
    config = recipe(folder, "bare", hidden_columns=0.5)
    data = config.data.model_copy(update={"nodes": {}, "prepared": str(folder / "bare-prepared")})
    bare = config.model_copy(update={"data": data})
    api.prepare(bare)
    with pytest.raises(DataError, match="task.hidden_columns=0.5: no nodes have columns"):
        api.train(bare)
