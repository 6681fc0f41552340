"""Reconstruction of hidden edges: what a step hides, the same numbers on any number of workers, and what it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_world import world_recipe, write_world

from dist_gat import api
from dist_gat.base.errors import DataError
from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import open_prepared
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.build_task import build_task

PAIRS = ("interacts", "friends", "follows", "tags")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reconstruct")
    write_world(folder / "raw")
    api.prepare(recipe(folder))
    return folder


def recipe(folder: Path, run: str = "run", num_workers: int = 1, access: str = "auto", **task: object) -> Config:
    return world_recipe(
        folder, run, task={"kind": "reconstruct", "hidden_together": 4, **task},
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
                _, counts = np.unique(pairs.nodes[:, 0], return_counts=True)
                assert counts.mean() > 2, "several of a source at a time"
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
