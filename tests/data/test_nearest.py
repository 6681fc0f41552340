"""Relations made from columns: exact neighbours, the same for any blocks, prepared and trained on as any relation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import recipes
import scipy.sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.sections import Config
from dist_gat.data.column_layout import KNOWN, Column, laid_out
from dist_gat.data.nearest import Pairs, Rows, fit_unit_rows, nearest_pairs
from dist_gat.graph.part import open_prepared
from dist_gat.workflows.compared_models import model_recipe

NUM_ITEMS, K = 60, 4
TAGS = np.array(list("abcdefghijkl"))


def all_pairs(rows: Rows, k: int, block: tuple[int, int]) -> Pairs:
    found = [pairs for _, pairs in nearest_pairs(rows, k, block)]
    return Pairs(*(np.concatenate(values) for values in zip(*found, strict=True)))


def unit(rows: Any) -> Any:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norm == 0, 1, norm)).astype(np.float32)


def no_categories(count: int) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((count, 0), dtype=np.float64)


def test_neighbours_are_those_of_scikit_learn() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 24))
    found = all_pairs(Rows(unit(rows), no_categories(500)), 7, (64, 100))
    # a node is its own first neighbour there
    distance, neighbour = (
        NearestNeighbors(n_neighbors=8, metric="cosine", algorithm="brute").fit(rows).kneighbors()[0:2]
    )
    np.testing.assert_array_equal(found.neighbour.reshape(500, 7), neighbour[:, :7])
    np.testing.assert_allclose(found.similarity.reshape(500, 7), 1 - distance[:, :7], atol=1e-6)
    np.testing.assert_array_equal(found.node, np.repeat(np.arange(500), 7))


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbours_depend_neither_on_blocks_nor_on_threads(threads: int) -> None:
    rng = np.random.default_rng(1)
    # many are equal, and some have no row
    rows = unit(rng.normal(size=(20, 48))[rng.integers(0, 20, 300)])
    rows[::17] = 0
    tags = scipy.sparse.csr_array(scipy.sparse.random_array((300, 30), density=0.05, rng=rng))
    for some in (Rows(rows, no_categories(300)), Rows(rows[:, :0], tags), Rows(rows, tags)):
        whole = all_pairs(some, 5, (300, 300))
        similar = some.dense.astype(np.float64) @ some.dense.T + (some.sparse @ some.sparse.T).toarray()
        np.fill_diagonal(similar, -1)
        ranks = np.lexsort((np.broadcast_to(np.arange(300), similar.shape), -similar.round(6)), axis=1)[:, :5]
        expected = {(n, m) for n in range(300) for m in ranks[n].tolist() if similar[n, m] > 1e-6}
        assert set(zip(whole.node.tolist(), whole.neighbour.tolist(), strict=True)) == expected
        with threadpool_limits(threads):
            for block in ((1, 300), (64, 7), (300, 1), (50, 130)):
                for own, other in zip(whole, all_pairs(some, 5, block), strict=True):
                    np.testing.assert_array_equal(own, other)


def test_texts_count_as_vectors_and_others_ask_about_the_same_nodes() -> None:
    vectors = np.random.default_rng(2).normal(size=(90, 6)).astype(np.float32)
    layout = laid_out([Column(KNOWN, KNOWN, 1, 90), Column("title", "text", 6, 90)])
    values = np.concatenate([np.ones((90, 1), np.float32), vectors], axis=1)
    rows = fit_unit_rows(layout, values, ["title"])
    whole = all_pairs(rows.of(values), K, (90, 90))
    # each of the others among the first 50, in one block or several, alone or together
    among = rows.of(values[:50])
    for block in ((256, 50), (7, 13)):
        asked = [pairs for _, pairs in nearest_pairs(among, K, block, of=rows.of(values[50:]))]
        for place in range(40):
            ((_, alone),) = nearest_pairs(among, K, block, of=rows.of(values[50 + place :][:1]))
            own = [pairs.neighbour[pairs.node == place] for pairs in asked]
            np.testing.assert_array_equal(np.concatenate(own), alone.neighbour)
    similar = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(similar, -1)
    np.testing.assert_array_equal(whole.neighbour.reshape(90, K), np.argsort(-similar, axis=1)[:, :K])
    np.testing.assert_array_equal(alone.neighbour, np.argsort(-similar[89, :50])[:K])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 users, and items of whom each has a vector but the last, and most have tags."""
    folder = tmp_path_factory.mktemp("nearest")
    rng = np.random.default_rng(0)
    pairs = np.argwhere(rng.random((40, NUM_ITEMS)) < 0.2)
    pl.DataFrame({"user_id": pairs[:, 0], "item_id": pairs[:, 1]}).write_csv(folder / "pairs.csv")
    np.save(folder / "image.npy", rng.normal(size=(NUM_ITEMS - 1, 8)).astype(np.float16))
    tags = [" ".join(rng.choice(TAGS, rng.integers(0, 4), replace=False)) for _ in range(NUM_ITEMS)]
    items = pl.DataFrame({"item_id": np.arange(NUM_ITEMS), "tags": tags, "year": rng.normal(size=NUM_ITEMS)})
    items.write_csv(folder / "items.csv")
    return folder


def recipe(folder: Path, run: str = "run", columns: Any = ("image",), **sections: Any) -> Config:
    nearest = {"columns": list(columns), "k": K}
    base: recipes.Sections = {
        "data": {
            "path": str(folder), "interactions": "pairs.csv", "prepared": str(folder / f"prepared-{run}"),
            "nodes": {"item": {"table": "items.csv", "columns": {
                "image": {"kind": "vector", "table": "image.npy", "scale": "none"},
                "tags": {"kind": "categories"}, "year": "numeric",
            }}},
            "relations": {"similar": {"nearest": nearest, "source": "item"}},
        },
        "parts": {"num_parts": 3, "method": "hash"},
        "model": {"terms": ["weight"]},
        "sampling": {"relations": {"similar": {"strategy": "weight"}}},
        "train": {"num_epochs": 1, "batch_size": 100, "precision": "float64"},
    }  # fmt: skip
    return recipes.recipe(folder, run, base, **sections)


def written(config: Config) -> dict[int, dict[int, float]]:
    """Similarities by the IDs of an item and its neighbour, as they are in the shards."""
    prepared = open_prepared(config.data.prepared)
    (way,) = (one for one in prepared.schema.edge_types if one.relation.name == "similar")
    slot = prepared.schema.into("item").index(prepared.schema.edge_types.index(way))
    names = dict(prepared.ids("item").select("node_id", "external_id").rows())
    found: dict[int, dict[int, float]] = {}
    for part in prepared.parts:
        for node in part.ranges.nodes_of_type(part.number, "item"):
            row = int(part.rows.of(np.array([node]))[0]) + slot
            own = slice(part.indptr[row], part.indptr[row + 1])
            near = [names[other] for other in part.indices[own].tolist()]
            found[int(names[node])] = {
                int(n): w for n, w in zip(near, part.edge_column("weight")[own].tolist(), strict=True)
            }
    return found


def test_items_attend_to_their_nearest_of_all_columns(folder: Path) -> None:
    config = recipe(folder, "both", ("image", "tags"))
    api.prepare(config)
    image = np.vstack([unit(np.load(folder / "image.npy").astype(np.float64)), np.zeros(8)])
    tags = TfidfVectorizer(token_pattern=r"\w").fit_transform(pl.read_csv(folder / "items.csv")["tags"].fill_null(""))
    rows = unit(np.hstack([image, tags.toarray()]).astype(np.float64))
    similar = rows @ rows.T
    np.fill_diagonal(similar, -1)
    found = written(config)
    for item in range(NUM_ITEMS):
        best = [other for other in np.argsort(-similar[item], kind="stable")[:K] if similar[item, other] > 0]
        assert found[item] == pytest.approx({other: similar[item, other] for other in best}, abs=1e-6)


def test_cold_items_hear_of_others_and_workers_agree(folder: Path) -> None:
    losses = []
    for run, workers in (("one", 1), ("three", 3)):
        config = recipe(
            folder, run, data={"split": {"cold_items": 0.2}, "prepared": str(folder / "cold")},
            launch={"num_workers": workers}, task={"kind": "ranking"},
        )  # fmt: skip
        if workers == 1:
            api.prepare(config)
        losses.append(api.train(config)["losses"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)
    assert all(len(near) == K for item, near in written(config).items() if item < NUM_ITEMS - 1)
    assert open_prepared(config.data.prepared).manifest["cold"]["item"]


@pytest.mark.parametrize(
    ("columns", "relation", "words"),
    [
        (("picture",), {}, "picture is none; expected vectors or categories of nodes.item: image, tags"),
        (("year",), {}, "year is numeric"),
        (("image", "image"), {}, "there twice"),
        (("image",), {"target": "user"}, "set source and target to one type"),
        (("image",), {"table": "pairs.csv"}, "either `table` or `nearest`"),
        (("image",), {"where": {"a": "b"}}, "where would say nothing"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder: Path, columns: Any, relation: Any, words: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=words):
        recipe(folder, "wrong", columns, data={"relations": {"similar": {
            "nearest": {"columns": list(columns)}, "source": "item", **relation}}})  # fmt: skip


def test_too_few_nodes_are_refused(folder: Path) -> None:
    nearest = {"columns": ["image"], "k": NUM_ITEMS - 1}
    with pytest.raises(DataError, match=rf"nearest.k={NUM_ITEMS - 1}: {NUM_ITEMS - 1} items have values in image"):
        api.prepare(recipe(folder, "few", data={"relations": {"similar": {"nearest": nearest, "source": "item"}}}))


def test_compare_says_what_a_relation_adds(folder: Path) -> None:
    config = recipe(folder, "compared", task={"kind": "ranking"})
    api.prepare(config)
    found = api.compare(config, ["recipe", "without-similar"])["models"]
    assert found["recipe"]["metrics"].keys() == found["without-similar"]["metrics"].keys() != set()
    lone = model_recipe("without-similar", config)
    assert lone.sampling.relations["similar"].fanouts == [0, 0]
    assert lone.sampling.relations["similar"].strategy == "weight"
    assert lone.run_folder == config.run_folder / "compare" / "without-similar"
