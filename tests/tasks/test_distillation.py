"""Distillation: the term by hand, the same on any number of workers, and what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import world_recipe, write_world
from torch.nn import functional
from world_columns import COLUMNS, write_columns

from dist_gat import api
from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import join_workers
from dist_gat.train.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distillation")
    write_world(folder / "raw")
    write_columns(folder / "raw")
    api.prepare(recipe(folder))
    return folder


def recipe(
    folder: Path, run: str = "run", distill: float = 0.5, num_workers: int = 1, access: str = "auto", **sections: Any
) -> Config:
    task = sections.pop("task", {"kind": "ranking"})
    return world_recipe(
        folder, run, data={"nodes": COLUMNS}, task=task, loss={"distill": distill},
        model={"embedding_size": 8, "scoring": "degree", "residual": False, "inputs": {"id_dropout": 0.3}},
        train={"precision": "float64", "num_epochs": 2, "patience": 0}, launch={"num_workers": num_workers},
        sampling={"access": access, **sections.pop("sampling", {})},
    )  # fmt: skip


def distance(trainer: Trainer, kind: str, number: int, ids: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Of one node, from the modules themselves."""
    encode = trainer.model.dense.inputs.types[f"type_{kind}"]
    alone, both = (encode(ids[None], torch.tensor([has_id]), columns[number][None])[0] for has_id in (False, True))
    return 1 - functional.cosine_similarity(alone, both, dim=0)


@pytest.mark.parametrize("sampling", [{}, {"time": "strict"}], ids=["any", "strict"])
def test_the_term_is_the_mean_over_the_ends_of_seeds(folder: Path, sampling: dict[str, Any]) -> None:
    config = recipe(folder, f"hand-{len(sampling)}", sampling=sampling)
    config.run_folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, join_workers(torch.device("cpu"), 1, 30))
    batch = trainer.samplers[0].sample(trainer.store, torch.tensor([0, 0]))
    embedding_UE = trainer.model.table(batch.nodes_U, None)
    encoded = trainer.model.dense(
        embedding_UE, batch.features, batch.blocks, batch.degree_N, batch.place_S, batch.has_id_U
    )
    place = torch.arange(len(batch.nodes_U)) if batch.place_S is None else batch.place_S
    terms = trainer.task.loss(trainer.model, encoded.rows_NR, embedding_UE[place], batch, trainer.worker.rows)
    expected, known = (
        [],
        {kind: dict(zip(at.tolist(), range(len(at)), strict=True)) for kind, (at, _) in batch.features.items()},
    )
    for kind, at_B in (("user", batch.seeds.user_at_B), ("item", batch.seeds.item_at_B)):
        for at in at_B.tolist():
            node = int(place[at])
            row = known[kind][node]
            expected.append(distance(trainer, kind, row, embedding_UE[node], batch.features[kind][1]))
    assert len(expected) == 2 * batch.num_global_seeds
    assert terms["distill"].item() == pytest.approx(0.5 * torch.stack(expected).mean().item(), rel=1e-9)
    assert terms["distill"].item() > 0
    trainer.model.table.weight.grad = None
    terms["distill"].backward()
    assert trainer.model.table.weight.grad is None or not trainer.model.table.weight.grad.any(), "IDs are the teacher"


@pytest.mark.parametrize("task", [{"kind": "ranking"}, {"kind": "rating"}], ids=["ranking", "rating"])
def test_ranks_train_as_one_does(folder: Path, task: dict[str, Any]) -> None:
    name = str(task["kind"])
    alone = api.train(recipe(folder, f"{name}-one", task=task))
    for workers, access in ((2, "auto"), (4, "exchange")):
        other = api.train(recipe(folder, f"{name}-{workers}", num_workers=workers, access=access, task=task))
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
    without = api.train(recipe(folder, f"{name}-none", distill=0.0, task=task))
    assert alone["losses"] != without["losses"]


def test_without_columns_there_is_nothing_to_distill(folder: Path) -> None:
    with pytest.raises(ConfigError, match="loss.distill: no nodes have columns"):
        world_recipe(folder, "bare", loss={"distill": 0.1})
