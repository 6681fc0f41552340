"""Plans of recipes with columns of nodes, against what `prepare` lays out and the models that are built of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import Ranks
from recipes import recipe
from small_world import world_recipe, write_world
from test_plan import CPU, steps
from test_relations_planned import shape_of
from tiny_models import SIZE, save_bert, save_sentence_model
from world_columns import COLUMNS, write_columns

from dist_gat.api import prepare
from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import Config
from dist_gat.config.text_section import TextEncoderConfig, TextTuningConfig
from dist_gat.data.column_layout import width_of
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.plan.graph_shape import GraphShape
from dist_gat.plan.plan import Plan, make_plan
from dist_gat.plan.planned_columns import planned_layouts
from dist_gat.plan.text_weights import read_text_weights
from dist_gat.text.text_encoder import TextEncoder
from dist_gat.text.text_tower import TextTower

LENGTHS = {"item.cover": 7, "item.sound": 5}
COUNTS = {"user.gender": 3, "item.genres": 5}


def with_columns(folder: Path, **settings: Any) -> Config:
    return world_recipe(folder, data={"nodes": COLUMNS}, **settings)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("columns")
    write_world(folder / "raw")
    write_columns(folder / "raw")
    prepare(with_columns(folder))
    return folder


def planned(world: Path, sizes: dict[str, int], **settings: Any) -> Plan:
    config = with_columns(world, **settings)
    return make_plan(config, sized(open_prepared(config.data.prepared), sizes), 1, CPU)


def sized(prepared: PreparedGraph, sizes: dict[str, int]) -> GraphShape:
    graph = shape_of(prepared)
    return GraphShape(**{name: getattr(graph, name) for name in GraphShape.__dataclass_fields__} | {"columns": sizes})


@pytest.mark.parametrize("fusion", ["sum", "gate"])
def test_weights_of_the_encoders_are_those_of_a_run_to_the_byte(
    world: Path, ranks: Ranks, tmp_path: Path, fusion: str
) -> None:
    model = {"scoring": "dot", "embedding_size": 16, "inputs": {"fusion": fusion}}
    config = with_columns(world, model=model)
    (held,) = ranks.run(1, steps, config, str(tmp_path), 1)
    assert planned(world, LENGTHS | COUNTS, model=model).memory.model == 4 * held["dense"]


def test_columns_are_as_wide_as_prepare_lays_them_out(world: Path) -> None:
    config = with_columns(world)
    prepared = open_prepared(config.data.prepared)
    layouts = planned_layouts(config.data, LENGTHS | COUNTS)
    assert {kind: width_of(layout) for kind, layout in layouts.items()} == prepared.feature_sizes
    for kind, layout in prepared.layouts.items():
        facts = [[(one.name, one.kind, one.offset, one.num_categories) for one in of] for of in (layout, layouts[kind])]
        assert facts[0] == facts[1]
    mapped = sum(rows.nbytes for part in prepared.parts for rows in part.features.values())
    few = {"sampling": {"fanouts": [1, 1], "relations": {}, "prefetch": False}, "train": {"batch_size": 1}}
    memory = planned(world, LENGTHS | COUNTS, **few).memory
    assert mapped < memory.columns < 2 * mapped
    assert memory.columns < planned(world, LENGTHS | COUNTS, **few | {"train": {"batch_size": 50}}).memory.columns
    assert memory.summary()["total"] == sum(memory.summary().values()) - memory.summary()["total"]


def test_categories_that_nobody_counted_are_as_many_as_are_kept(world: Path) -> None:
    rows = 65536 - COUNTS["user.gender"] + 65536 - COUNTS["item.genres"]
    one, other = (planned(world, sizes).memory.model for sizes in (LENGTHS, LENGTHS | COUNTS))
    assert one - other == 4 * 4 * rows * with_columns(world).model.embedding_size


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (
            {"item.cover": 7},
            r"data.nodes.item.columns.sound: how long its vectors are is missing; say --column item.sound=",
        ),
        ({**LENGTHS, "item.year": 3}, "column item.year: expected one of the recipe's, user.gender, item.genres"),
        ({**LENGTHS, "item.covers": 3}, "column item.covers: expected one of"),
        ({**LENGTHS, "user.gender": 0}, "user.gender=0: expected how many"),
    ],
)
def test_sizes_of_columns_that_are_missing_or_of_none_are_named(world: Path, sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        planned(world, sizes)


@pytest.mark.parametrize("kind", ["bert", "sentences"])
def test_the_size_of_a_text_encoder_is_that_of_one_that_is_opened(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("peft")
    folder = save_bert(tmp_path / "bert")
    if kind == "sentences":
        folder = save_sentence_model(tmp_path / "sentences", folder)
    found = read_text_weights(str(folder))
    encoder = TextEncoder(folder, TextEncoderConfig(encoder=str(folder)))
    tower = TextTower(encoder, TextTuningConfig(rank=3), 0)
    assert (found.size, found.num_weights) == (SIZE, tower.num_frozen)
    assert 3 * found.ends == sum(weight.numel() for weight in tower.updates.values())


def test_an_encoder_that_trains_is_counted(tmp_path: Path) -> None:
    encoder = str(save_bert(tmp_path / "bert"))
    title = {"kind": "text", "encoder": encoder, "trainable": True, "max_tokens": 20}
    data = {"nodes": {"item": {"table": "titles.csv", "columns": {"title": title}}}}
    graph, model = GraphShape(1000, 5000), {"embedding_size": 8, "text": {"rank": 2, "nodes_per_step": 6}}
    kept, trained = (
        make_plan(recipe(tmp_path, data=data, model=one), graph, 1, CPU).memory
        for one in ({"embedding_size": 8}, model)
    )
    found = read_text_weights(encoder)
    assert kept.text == 0
    assert trained.text == 4 * (found.num_weights + 5 * 2 * found.ends + 6 * 20 * found.ends)
    assert trained.device - kept.device == trained.text
    missing = {**data["nodes"]["item"]["columns"]["title"], "encoder": "nobody/has-this-model"}
    data["nodes"]["item"]["columns"] = {"title": missing}
    with pytest.raises(ConfigError, match="a plan reads the shapes of its weights from .safetensors"):
        make_plan(recipe(tmp_path, data=data, model=model), graph, 1, CPU)
