"""Columns of items in a private run are of items alone, and all weights that read them have noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch
from recipes import private_columns, private_recipe, recipe

from dist_gat.api import prepare, train
from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.worker import lone_worker
from dist_gat.graph.part import open_prepared
from dist_gat.train.trainer import Trainer

NUM_ITEMS = 50
RARE = "i7"  # one user has it in training, and another one as the last pair, which is test


def write_data(folder: Path) -> None:
    """Interactions of all, and the same without the user `victim`; columns of all kinds."""
    write_synthetic(folder / "raw", 40, NUM_ITEMS, 4, 9, 0.2, seed=1)
    table = pl.read_csv(folder / "raw" / "interactions.csv").filter(pl.col("item_id") != RARE)
    last = int(table["timestamp"].max())  # type: ignore[arg-type]
    more = {
        "user_id": ["victim"] * 4 + ["u0"], "item_id": [RARE, "i1", "i2", "i3", RARE],
        "timestamp": [last + 1, last + 2, last + 3, last + 4, last + 5],
    }  # fmt: skip
    whole = pl.concat([table, pl.DataFrame(more, schema=table.schema)])
    whole.write_csv(folder / "raw" / "whole.csv")
    whole.filter(pl.col("user_id") != "victim").write_csv(folder / "raw" / "without.csv")


def recipe_of(folder: Path, interactions: str, known: str) -> Config:
    """That of a private run, or what it would refuse; with a sparse matrix that becomes vectors, too."""
    sections = private_columns(folder, NUM_ITEMS)
    words = scipy.sparse.random_array((NUM_ITEMS, 30), density=0.3, format="csr", rng=np.random.default_rng(3))
    scipy.sparse.save_npz(folder / "raw" / "words.npz", words)
    ids = pl.DataFrame({"item_id": [f"i{item}" for item in range(NUM_ITEMS)]})
    ids.write_csv(folder / "raw" / "ids.csv")
    columns = sections["data"]["nodes"]["item"]["columns"]
    columns["words"] = {"kind": "vector", "table": "words.npz", "ids": "ids.csv", "reduce": 3}
    prepared = str(folder / f"{interactions}-{known}")
    sections["data"] |= {"interactions": interactions, "prepared": prepared, "known_nodes": known}
    return private_recipe(folder, **sections) if known == "all" else recipe(folder, data=sections["data"])


def columns_of(folder: Path, interactions: str, known: str) -> dict[str, Any]:
    """All that `prepare` says of items: layout, values by external ID, and the files of categories and reductions."""
    config = recipe_of(folder, interactions, known)
    prepare(config)
    prepared = open_prepared(config.data.prepared)
    ids = pl.read_parquet(prepared.folder / "ids" / "item.parquet").sort("node_id")["external_id"]
    rows = np.concatenate([np.asarray(part.features["item"]) for part in prepared.parts])
    files = [path for kind in ("categories", "reductions") for path in (prepared.folder / kind).rglob("*")]
    return {
        "layout": prepared.manifest["columns"],
        "rows": dict(zip(ids, [row.tobytes() for row in rows], strict=True)),
        "files": {path.name: path.read_bytes() for path in files if path.is_file()},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public_columns")
    write_data(folder)
    return folder


def test_columns_of_items_are_the_same_with_and_without_a_user(folder: Path) -> None:
    whole, without = (columns_of(folder, f"{name}.csv", "all") for name in ("whole", "without"))
    assert RARE in whole["rows"]
    assert whole["rows"].keys() == without["rows"].keys()
    assert whole == without
    kinds = [column["kind"] for column in whole["layout"]["item"]]
    assert {*kinds} == {"known", "numeric", "category", "categories", "weights", "vector"}
    assert {"maker.parquet", "tags.idf.npy", "words.directions.npy"} <= whole["files"].keys()
    assert whole["layout"]["item"][0]["num_values"] == len(whole["rows"])


def test_scales_and_frequencies_of_what_training_meets_would_tell_a_user(folder: Path) -> None:
    """So that the test above can fail."""
    whole, without = (columns_of(folder, f"{name}.csv", "met") for name in ("whole", "without"))
    for name in ("layout", "rows", "files"):
        assert whole[name] != without[name], name
    year = [{column["name"]: column for column in one["layout"]["item"]}["year"] for one in (whole, without)]
    assert year[0]["mean"] != year[1]["mean"]
    known = [np.frombuffer(one["rows"][RARE], np.float32)[0] for one in (whole, without)]
    assert known == [1, 0]


def test_a_folder_that_was_prepared_by_what_training_meets_is_refused(folder: Path) -> None:
    config = recipe_of(folder, "whole.csv", "met")
    prepare(config)
    other = recipe_of(folder, "whole.csv", "all")
    data = other.data.model_copy(update={"prepared": config.data.prepared})
    with pytest.raises(ConfigError, match=r"data\.known_nodes: saved met, now all"):
        train(other.model_copy(update={"data": data, "run": str(folder / "refused")}))


@pytest.mark.parametrize("name", ["year", "picture"])
def test_numbers_as_they_come_are_refused(folder: Path, name: str) -> None:
    """Times in ms as φ: float32 sums of them are off by many times the clip."""
    sections = private_columns(folder, NUM_ITEMS)
    columns = sections["data"]["nodes"]["item"]["columns"]
    columns[name] = {"kind": columns[name], "scale": "none"}
    with pytest.raises(ConfigError, match=rf"data\.nodes\.item\.columns\.{name}: standardize {name} \(sums"):
        private_recipe(folder, **sections)


def test_every_weight_of_the_encoders_has_noise_whoever_was_drawn(folder: Path) -> None:
    """Rows of categories that no drawn user has, too."""
    config = recipe_of(folder, "whole.csv", "all").model_copy(update={"run": str(folder / "run")})
    prepare(config)
    trainer = Trainer(config, lone_worker())
    (noise,) = trainer.gradient_rules
    trainer.optimizers.zero_grad()
    noise.apply(trainer.model, 0.0, 1)
    encoders = dict(trainer.model.dense.inputs.named_parameters())
    assert len(encoders) == 9
    for name, weight in encoders.items():
        assert weight.grad is not None, name
        assert (weight.grad != 0).all(), name
    every = torch.cat([weight.grad.flatten() for weight in encoders.values() if weight.grad is not None])
    assert len(every.unique()) == len(every)
    assert every.std().item() == pytest.approx(noise.std, rel=0.15)  # type: ignore[attr-defined]
    trainer.log.close()
