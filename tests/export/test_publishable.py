"""What may be published of a private run: it serves new users, and has nothing of the users that trained it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from faults.hostile import rewrite_manifest
from recipes import TITLES, private_columns, private_recipe, recipe
from safetensors.torch import load_file, save_file

from dist_gat import api
from dist_gat.base.errors import ConfigError
from dist_gat.privacy.ledger import KEY_FILE

K = 5


def rounded_copy(run: Path, folder: Path) -> Path:
    """The run with its weights in steps of float16, as the published ones are: how far that moves a score depends on
    how long its vectors are, so there is no tolerance for it."""
    shutil.copytree(run, folder)
    for file in (folder / "model").rglob("*.safetensors"):
        save_file({name: rounded(value) for name, value in load_file(file).items()}, file)
    rewrite_manifest(folder / "model")
    return folder


def rounded(value: torch.Tensor) -> torch.Tensor:
    return value.half().float() if value.is_floating_point() else value


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private run in two parts, whose users and items have IDs that stand out."""
    folder = tmp_path_factory.mktemp("publishable")
    api.write_synthetic(folder / "raw", 80, 50, 4, 9, 0.2, seed=1)
    for file in (folder / "raw").glob("interactions*"):
        file.write_text(file.read_text().replace("u", "visitor-u").replace("visitor-user_id", "user_id"))
    config = private_recipe(
        folder, data={"split": {"method": "leave_last_out"}, **TITLES}, parts={"num_parts": 2},
        privacy={
            "epsilon": 8.0, "num_users": 100, "public_items": True,
            "start": {"counts": 0.2, "pairs": 0.3, "head_items": 30},
        },
    )  # fmt: skip
    api.prepare(config)
    api.train(config)
    api.evaluate(config)
    return config.run_folder


@pytest.fixture(scope="module")
def published(run: Path) -> tuple[Path, dict[str, Any]]:
    folder = run.parent / "published"
    return folder, api.export(run, folder, ["publishable"])


def test_new_users_get_from_the_folder_what_the_run_gives_them(
    run: Path, published: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, done = published
    assert done["publishable"] == {"items": 50, "epsilon": 8.0, "delta": pytest.approx(100**-1.1)}
    items = api.recommend(run, ["visitor-u3"], 3)["item_id"].to_list()
    new = [{"user": "x", "items": items}]
    ours, theirs = (api.recommend(at, new_users=new, k=K) for at in (folder, rounded_copy(run, tmp_path / "run")))
    assert ours["item_id"].to_list() == theirs["item_id"].to_list()
    # those of whom nothing is known get what is most met, by private counts
    nothing = api.recommend(folder, new_users=[{"user": "x", "items": ["nobody knows it"]}], k=K)["item_id"].to_list()
    rows = load_file(folder / "model" / "parts" / "0000.safetensors")
    bias = load_file(folder / "model" / "dense.safetensors")["encoder.layers.0.scoring.bias"]
    names = pl.read_parquet(folder / "model" / "ids" / "item.parquet")["external_id"]
    assert nothing == names.gather((rows["representation"] @ bias).argsort(descending=True)[:K].numpy()).to_list()
    assert np.allclose(ours["score"], theirs["score"], rtol=1e-5, atol=1e-5)


def test_the_folder_has_nothing_of_users_and_no_secret(run: Path, published: tuple[Path, Any]) -> None:
    folder, _ = published
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    secret = (run / KEY_FILE).read_text()
    told = ["visitor-", secret, manifest["data_fingerprint"], str(run.parent / "published")]
    needles = [text.encode() for text in told] + [bytes.fromhex(secret)]
    assert b"visitor-" in (run / "model" / "ids" / "user.parquet").read_bytes()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name, path in files.items():
        assert not any(needle in path.read_bytes() for needle in needles), name
    assert files.keys() == {
        "PRIVACY.md", "manifest.json", "model/manifest.json", "model/config.yaml", "model/dense.safetensors",
        "model/parts/0000.safetensors", "model/known/0000.indptr.npy", "model/known/0000.items.npy",
        "model/ids/item.parquet", "model/ids/user.parquet",
    }  # fmt: skip
    own = json.loads(files["model/manifest.json"].read_text())
    assert own["bounds"] == [[0, 0, 50]]
    assert own["new_users"]["weights"] == {}
    assert own["privacy"]["epsilon_spent"] <= 8
    assert "(8, 0.00631)-differentially private" in files["PRIVACY.md"].read_text()
    rows = load_file(files["model/parts/0000.safetensors"])
    assert {name: len(value) for name, value in rows.items()} == dict.fromkeys(rows, 50)
    assert rows.keys() == {"embedding", "representation", "depth.0", "spectral", "degree"}
    # places by private rows, and no counts of users
    assert sorted(rows["degree"][:, 0].tolist()) == list(range(50))
    assert torch.equal(rows["embedding"], rows["embedding"].half().float())
    assert pl.read_parquet(files["model/ids/user.parquet"]).height == 0
    assert pl.read_parquet(files["model/ids/item.parquet"])["external_id"].is_sorted()


def test_what_keeps_no_promise_is_not_published(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="publishable: the other kinds have rows of users"):
        api.export(run, tmp_path / "out", ["publishable", "vectors"])
    manifest = run / "model" / "manifest.json"
    before = manifest.read_text()
    told = json.loads(before)
    try:
        manifest.write_text(json.dumps(told | {"privacy": told["privacy"] | {"epsilon_spent": 11.0}}))
        with pytest.raises(ConfigError, match="have spent ε = 11.000 of 8 together"):
            api.export(run, tmp_path / "out", ["publishable"])
        manifest.write_text(json.dumps(told | {"privacy": None}))
        with pytest.raises(ConfigError, match="publishable: this model keeps no promise of privacy"):
            api.export(run, tmp_path / "out", ["publishable"])
    finally:
        manifest.write_text(before)
    assert not (tmp_path / "out").exists()
    assert recipe(tmp_path).privacy is None


def test_encoders_of_columns_are_published_and_read_new_items(tmp_path: Path) -> None:
    api.write_synthetic(tmp_path / "raw", 80, 50, 4, 9, 0.2, seed=1)
    start = {"counts": 0.2, "pairs": 0.3, "head_items": 30}
    sections = private_columns(tmp_path, 50)
    sections["privacy"] |= {"start": start}
    config = private_recipe(tmp_path, train={"num_epochs": 4, "learning_rate": 0.1}, **sections)
    api.prepare(config)
    api.train(config)
    folder = tmp_path / "published"
    api.export(config.run_folder, folder, ["publishable"])
    model = folder / "model"
    ours, theirs = (json.loads((at / "manifest.json").read_text()) for at in (model, config.run_folder / "model"))
    assert ours["columns"] == {"item": theirs["columns"]["item"]}
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert files == {
        "manifest.json", "config.yaml", "dense.safetensors", "parts/0000.safetensors", "known/0000.indptr.npy",
        "known/0000.items.npy", "ids/item.parquet", "ids/user.parquet", "categories/item/maker.parquet",
        "categories/item/genres.parquet", "categories/item/tags.parquet", "reductions/item/tags.idf.npy",
        "reductions/item/tags.directions.npy",
    }  # fmt: skip
    # its columns say what another item is, which has an ID row beside them
    columns = {"year": 1950, "maker": "m1", "tags": ["t1", "t2"], "genres": ["t1"], "picture": [3.0, 2.0, -4.0, 9.0]}
    asked: dict[str, Any] = {
        "new_users": [{"user": "x", "items": ["i1", "i2", "i3"]}], "new_items": [{"item": "new", "columns": columns}],
    }  # fmt: skip
    both = (folder, rounded_copy(config.run_folder, tmp_path / "rounded"))
    found = [api.recommend(at, k=99, **asked).sort("item_id") for at in both]
    assert found[0]["item_id"].to_list() == found[1]["item_id"].to_list()
    assert np.allclose(found[0]["score"], found[1]["score"], rtol=1e-4, atol=1e-3)
    other = {**asked, "new_items": [{"item": "new", "columns": columns | {"maker": "m2", "year": 2000}}]}
    score = [api.recommend(folder, k=99, **one).filter(item_id="new")["score"].item() for one in (asked, other)]
    assert score[0] != score[1]
