"""Columns of text in a recipe, with random encoders: from a table to shards, a model and recommendations."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import parse_sections, random_pairs, write_pairs
from recipes import private_columns, private_recipe, recipe
from tiny_models import SIZE, WORDS, save_bert

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.base.storage import MANIFEST
from dist_gat.config.sections import Config
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.graph.made_from import open_made
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.serve.new_columns import open_columns
from dist_gat.serve.saved_model import open_model
from dist_gat.text import text_encoder
from dist_gat.text.encode import encode_texts

pytest.importorskip("sentence_transformers")

ITEMS = 20
LONG = "cat " * 25_000
# of the first items; others have a random one, and the last has no row
TITLES = ["red cat", "", " \t ", "NONE", LONG, LONG + "dog", "red cat", 'it, "too"']


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def config(tmp_path: Path, bert: Path) -> Config:
    (tmp_path / "raw").mkdir()
    write_pairs(tmp_path / "raw" / "interactions.csv", random_pairs(30, ITEMS, 0.3))
    draw = np.random.default_rng(0)
    titles = [*TITLES, *(" ".join(draw.choice(WORDS, 5)) for _ in range(ITEMS - 1 - len(TITLES)))]
    items = pl.DataFrame({"item_id": range(len(titles)), "title": titles, "price": range(len(titles))})
    items.write_csv(tmp_path / "raw" / "items.csv")
    return with_columns(
        recipe(tmp_path, data={"vectors": str(tmp_path / "vectors")}, train={"num_epochs": 1}),
        {"title": {"encoder": str(bert), "max_tokens": 16, "missing": ["NONE"], "scale": "none"}},
    )


def with_columns(config: Config, columns: dict[str, dict[str, Any]], **data: Any) -> Config:
    columns = {name: {"kind": "text", **settings} for name, settings in columns.items()}
    nodes = {"item": {"table": "items.csv", "columns": columns}}
    return parse_sections(config.model_dump(mode="json"), {"data": {"nodes": nodes, **data}})


def stored(prepared: PreparedGraph) -> tuple[np.ndarray, list[str]]:
    """The vectors of items, float32 [items, D], by external ID; and the kinds of their columns."""
    ids = pl.read_parquet(prepared.folder / "ids" / "item.parquet").sort(pl.col("external_id").cast(pl.Int64))
    every = np.concatenate([np.load(path) for path in sorted(prepared.folder.glob("parts/*/features/item.npy"))])
    nodes = ids["node_id"].to_numpy()
    return every[np.searchsorted(np.sort(nodes), nodes)][:, 1:], [c.kind for c in prepared.layouts["item"]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST}


def test_vectors_are_those_of_the_encoder(config: Config, bert: Path, tmp_path: Path) -> None:
    said: list[str] = []
    report = api.prepare(config, said.append)
    vectors, kinds = stored(open_prepared(config.data.prepared))
    assert kinds == ["known", "text"]
    assert report["columns"]["item"][1]["num_values"] == ITEMS - 4
    assert any("encoding 15 different texts; 0 of 16 are in the cache" in line for line in said)
    texts = pl.read_csv(tmp_path / "raw" / "items.csv")["title"]
    texts = texts.set(texts == "NONE", None).append(pl.Series([None], dtype=pl.String))
    own = encode_texts(texts, TextEncoderConfig(encoder=str(bert), max_tokens=16), tmp_path / "own")
    np.testing.assert_array_equal(vectors, own)
    assert np.isnan(vectors[[1, 2, 3, ITEMS - 1]]).all()
    assert np.isfinite(np.delete(vectors, [1, 2, 3, ITEMS - 1], axis=0)).all()
    np.testing.assert_array_equal(vectors[4], vectors[5])  # no more than 16 tokens are read


def test_the_same_shards_with_and_without_the_cache(config: Config, tmp_path: Path) -> None:
    found = []
    for name in ("first", "cached", "anew"):
        if name == "anew":
            shutil.rmtree(tmp_path / "vectors")
        said: list[str] = []
        own = with_prepared(config, tmp_path / name)
        api.prepare(own, said.append)
        assert any("encoding" in line for line in said) == (name != "cached")
        found.append(files(Path(own.data.prepared)))
    assert found[0] == found[1] == found[2]


def with_prepared(config: Config, folder: Path) -> Config:
    return parse_sections(config.model_dump(mode="json"), {"data": {"prepared": str(folder)}})


def test_scale_and_store_are_those_of_vectors(config: Config, bert: Path) -> None:
    own = {"column": "title", "encoder": str(bert), "missing": ["NONE"]}
    columns = {"plain": {**own, "scale": "none"}, "l2": {**own, "scale": "l2"}, "standard": own,
               "half": {**own, "scale": "none", "store": "float16"}}  # fmt: skip
    config = with_columns(config, columns)
    api.prepare(config)
    prepared = open_prepared(config.data.prepared)
    vectors, _ = stored(prepared)
    plain, l2, standard, half = np.split(vectors, 4, axis=1)
    np.testing.assert_allclose(l2, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(
        standard, (plain - np.nanmean(plain, axis=0)) / np.nanstd(plain, axis=0), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_array_equal(half, plain.astype(np.float16).astype(np.float32))
    column = prepared.layouts["item"][3]
    assert (column.name, len(column.mean)) == ("standard", SIZE)


def test_from_a_table_to_recommendations(config: Config) -> None:
    config = parse_sections(config.model_dump(mode="json"), {"data": {"split": {"valid_ratio": 0.2}}})
    api.prepare(config)
    trained = api.train(config)
    assert not trained["stopped"]
    assert 0 <= api.evaluate(config)["test"]["recall@20"] <= 1
    best = api.recommend(config.run_folder, users=[3], k=3)
    assert best["rank"].to_list() == [1, 2, 3]
    columns = open_columns(open_model(config.run_folder / "model"), "item")
    for item, title in ((0, "red cat"), (4, LONG)):
        row = columns.row({"title": title}, "here")
        assert row is not None
        np.testing.assert_array_equal(row[1:], stored(open_prepared(config.data.prepared))[0][item])
    assert columns.row({"title": " NONE"}, "here") is None
    with pytest.raises(DataError, match=r"columns.title=7: expected text, or a list of 8 numbers"):
        columns.row({"title": 7}, "here")
    new = {"item": "new", "columns": {"title": "old fish"}}
    ranked = api.recommend(config.run_folder, users=[3], k=ITEMS + 1, new_items=[new])
    assert "new" in ranked["item_id"].cast(pl.String).to_list()


def test_a_changed_encoder_is_noticed(config: Config, bert: Path, tmp_path: Path) -> None:
    own = shutil.copytree(bert, tmp_path / "model")
    config = with_columns(config, {"title": {"encoder": str(own)}})
    api.prepare(config)
    api.train(config)
    before = stored(open_prepared(config.data.prepared))[0]
    shutil.move(own, tmp_path / "moved")
    open_made(config)  # who only trains needs no model
    save_bert(own, seed=1)
    with pytest.raises(ConfigError) as caught:
        api.train(config)
    for words in ("encoder model: its files are others now", "dist-gat prepare RECIPE"):
        assert words in str(caught.value)
    said: list[str] = []
    api.evaluate(config, progress=said.append)
    assert any("encoder model: its files are others now" in line for line in said)
    other = config.model_copy(update={"run": str(tmp_path / "other")})
    assert not api.fit(other, progress=said.append)["stopped"]
    assert any("preparing again" in line for line in said)
    after = stored(open_prepared(config.data.prepared))[0]
    assert not np.array_equal(before, after, equal_nan=True)


def test_other_settings_of_the_encoder_are_other_settings(config: Config, bert: Path) -> None:
    api.prepare(config)
    with pytest.raises(ConfigError, match=r"title.max_tokens: saved 16, now 8"):
        open_made(with_columns(config, {"title": {"encoder": str(bert), "max_tokens": 8, "missing": ["NONE"]}}))
    open_made(parse_sections(config.model_dump(mode="json"), {"data": {"vectors": "elsewhere"}}))


def test_ctrl_c_keeps_what_was_encoded(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(text_encoder.TOKENS, "cpu", 1)
    asked: list[int] = []

    class Interrupted(text_encoder.TextEncoder):
        def encode(self, texts: Sequence[str]) -> Any:
            for number, batch in enumerate(super().encode(texts)):
                asked.append(number)
                if len(asked) == 5:
                    raise KeyboardInterrupt
                yield batch

    monkeypatch.setattr("dist_gat.text.encode.TextEncoder", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        api.prepare(config)
    assert not Path(config.data.prepared).exists()
    said: list[str] = []
    api.prepare(config, said.append)
    assert any("encoding 11 different texts; 5 of 16 are in the cache" in line for line in said)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"kind": "text"}, "text needs an encoder"),
        ({"kind": "vector", "encoder": "e5"}, "encoder is for text, and not for vector"),
        ({"kind": "category", "max_tokens": 64}, "max_tokens is for text"),
        ({"kind": "text", "encoder": "e5", "reduce": 4}, "reduce is for vector, and not for text"),
        ({"kind": "text", "encoder": "e5", "table": "m.npy"}, "a matrix can't be text"),
    ],
)
def test_settings_that_do_not_fit(config: Config, column: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        with_columns(config, {"title": column})


def test_models_and_libraries_that_are_missing(
    config: Config, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = with_columns(config, {"title": {"encoder": str(tmp_path / "gone")}}, interactions="unread.csv")
    with pytest.raises(ConfigError, match=r"encoder=.*gone: no such folder"):
        api.prepare(gone)  # before a table is read
    with pytest.raises(DataError, match=r"column 'x'.*data.nodes.item.columns.x.column=NAME"):
        api.prepare(with_columns(config, {"x": {"encoder": str(bert)}}))
    pl.read_csv(tmp_path / "raw" / "items.csv").write_parquet(tmp_path / "raw" / "items.parquet")
    prices = {"price": {"encoder": str(bert), "table": "items.parquet"}}
    with pytest.raises(
        DataError, match=r"'price' has type int64; expected text; correct data.nodes.item.columns.price"
    ):
        api.prepare(with_columns(config, prices))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'dist-gat\[text\]'"):
        api.prepare(config)
    assert not Path(config.data.prepared).exists()


def test_texts_of_items_are_public_inputs_of_a_private_run(tmp_path: Path, bert: Path) -> None:
    pytest.importorskip("dp_accounting")
    api.write_synthetic(tmp_path / "raw", 40, 24, 4, 5, 0.2, seed=1)
    sections = private_columns(tmp_path, 24)
    title = {"kind": "text", "table": "items.csv", "encoder": str(bert)}
    nodes = {"item": {"columns": {"title": title}}}
    sections["data"] |= {"nodes": nodes, "vectors": str(tmp_path / "vectors")}
    config = private_recipe(tmp_path, **sections)
    api.prepare(config)
    assert api.train(config)["privacy"]["epsilon_spent"] <= 8
    api.export(config.run_folder, tmp_path / "published", ["publishable"])
    asked: dict[str, Any] = {
        "new_users": [{"user": "x", "items": ["i1"]}], "new_items": [{"item": "new", "columns": {"title": "red cat"}}],
    }  # fmt: skip
    assert "new" in api.recommend(tmp_path / "published", k=99, **asked)["item_id"].to_list()
