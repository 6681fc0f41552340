"""Exported files, opened by the tools that they are for, against what the model itself recommends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime
import polars as pl
import pytest
import recipes
from huggingface_hub import ModelCard
from small_world import world_recipe, write_world
from tensorboard.plugins.projector import projector_config_pb2

from dist_gat import api
from dist_gat.base.errors import ConfigError
from dist_gat.export.scoring_onnx import require_close
from dist_gat.workflows.export_run import KINDS

K = 5


def trained(folder: Path, run: str, **sections: dict[str, Any]) -> Path:
    config = recipes.recipe(folder, run, data=recipes.TITLES, train={"num_epochs": 1, "max_steps": 4}, **sections)
    api.train(config)
    return config.run_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with a spectral filter, evaluated."""
    folder = tmp_path_factory.mktemp("export")
    api.write_synthetic(folder / "raw", 90, 60, 3, 10, 0.1, seed=2)
    config = recipes.recipe(
        folder, data=recipes.TITLES, blend={"spectral_rank": 4, "spectral_weight": 0.5}, train={"num_epochs": 1}
    )
    recipes.prepare_and_train(config)
    api.evaluate(config)
    return config.run_folder


@pytest.fixture(scope="module")
def exported(run: Path) -> tuple[Path, dict[str, Any]]:
    folder = run.parent / "exported"
    return folder, api.export(run, folder, [kind for kind in KINDS if kind != "publishable"], license="mit")


def test_inner_products_of_vectors_are_the_scores(run: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    folder, done = exported
    users, items = pl.read_parquet(folder / "users.parquet"), pl.read_parquet(folder / "items.parquet")
    assert done["vectors"] == {"user": 90, "item": 60} == {"user": len(users), "item": len(items)}
    assert items.columns == ["item_id", "title", "vector"]
    assert done["left_out"] is None
    recommended = api.recommend(run, users["user_id"].to_list(), K)
    scores = users["vector"].to_numpy() @ items["vector"].to_numpy().T
    row, column = ({name: n for n, name in enumerate(ids)} for ids in (users["user_id"], items["item_id"]))
    found = [scores[row[user], column[item]] for user, item in recommended.select("user_id", "item_id").iter_rows()]
    np.testing.assert_allclose(found, recommended["score"], rtol=1e-4, atol=1e-5)


def test_the_onnx_graph_ranks_as_the_vectors_do(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, done = exported
    users, items = (pl.read_parquet(folder / f"{kind}s.parquet")["vector"].to_numpy() for kind in ("user", "item"))
    session = onnxruntime.InferenceSession(str(folder / "scoring.onnx"))
    scores, rows = session.run(None, {"users": users[:7], "k": np.array([K])})
    assert scores.shape == rows.shape == (7, K)
    expected = -np.sort(-(users[:7] @ items.T), axis=1)[:, :K]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    assert 0 <= done["onnx"]["difference_to_torch"] < 1e-4


def test_the_tower_gives_new_users_the_vector_that_recommends_for_them(
    run: Path, exported: tuple[Path, dict[str, Any]]
) -> None:
    folder, done = exported
    items = pl.read_parquet(folder / "items.parquet")
    session = onnxruntime.InferenceSession(str(folder / "user_tower.onnx"))
    size = json.loads((run / "model" / "manifest.json").read_text())["representation_size"]
    vectors = items["vector"].to_numpy()[:, :size]
    assert 0 <= done["tower"]["difference_to_torch"] < 1e-4
    # the spectral filter has a part in this run's scores, so another run says what the tower is for
    (user,) = session.run(None, {"items": np.array([3])})
    assert (vectors @ user[0]).shape == (60,)


@pytest.mark.parametrize(
    "model",
    [
        {"scoring": "additive", "num_heads": 2, "decoder": recipes.COSINE},
        {"scoring": "dot", "terms": ["relation"], "residual": False},
        {"scoring": "degree", "terms": ["degree"], "decoder": {"popularity": True}},
    ],
    ids=["additive", "dot", "degree"],
)
def test_towers_of_other_layers_recommend_as_the_model_does(run: Path, model: dict[str, Any]) -> None:
    own = trained(run.parent, f"run-{model['scoring']}", model=model)
    folder = run.parent / f"tower-{model['scoring']}"
    api.export(own, folder, ["tower"])
    items = pl.read_parquet(folder / "items.parquet")
    session = onnxruntime.InferenceSession(str(folder / "user_tower.onnx"))
    for met in ([3], [0, 7, 20], list(range(12))):
        (user,) = session.run(None, {"items": np.array(met)})
        scores = dict(zip(items["item_id"], (items["vector"].to_numpy() @ user[0]).tolist(), strict=True))
        history = [{"user": "new", "items": items["item_id"].gather(met).to_list()}]
        found = api.recommend(own, new_users=history, k=60)
        assert len(found) == 60 - len(met)
        for item, score in found.select("item_id", "score").iter_rows():
            assert scores[item] == pytest.approx(score, rel=1e-3, abs=1e-4)


def test_a_tower_that_would_read_more_than_items_is_refused(tmp_path: Path) -> None:
    write_world(tmp_path / "raw")
    config = world_recipe(tmp_path, model={"terms": ["age"]}, train={"num_epochs": 1, "max_steps": 1})
    recipes.prepare_and_train(config)
    with pytest.raises(ConfigError, match="tower for new users can't be exported: the layers read .*age"):
        api.export(config.run_folder, tmp_path / "out", ["tower"])
    assert not (tmp_path / "out").exists()


def test_the_index_finds_what_is_nearest(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, done = exported
    items = pl.read_parquet(folder / "items.parquet")["vector"].to_numpy()
    index = faiss.read_index(str(folder / "items.faiss"))
    assert index.ntotal == 60
    user = pl.read_parquet(folder / "users.parquet")["vector"].to_numpy()[:1]
    _, (found,) = index.search(user, 1)
    assert int(found[0]) == int((items @ user[0]).argmax())
    assert done["index"]["recall@20_of_exact"] > 0.9


def test_the_projector_shows_items_with_titles_and_colours(exported: tuple[Path, dict[str, Any]]) -> None:
    from google.protobuf import text_format

    folder = exported[0] / "projector"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), projector_config_pb2.ProjectorConfig())
    (own,) = config.embeddings
    tensors = np.loadtxt(folder / own.tensor_path, delimiter="\t")
    metadata = pl.read_csv(folder / own.metadata_path, separator="\t")
    assert len(tensors) == len(metadata) == exported[1]["projector"]["shown"] == 60
    assert metadata.columns == ["item", "title", "interactions", "popularity"]
    assert metadata["interactions"].sum() > 0
    assert set(metadata["popularity"]) == set(range(10))


def test_the_hub_folder_has_a_card_that_the_hub_reads_and_serves(
    run: Path, exported: tuple[Path, dict[str, Any]]
) -> None:
    folder = exported[0] / "hub"
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "dist-gat")
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
    evaluated = json.loads((run / "evaluation.json").read_text())["test"]
    assert metrics["ndcg@20"] == pytest.approx(evaluated["ndcg@20"], abs=1e-6)
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    assert manifest["data_fingerprint"] in card.content
    assert "{{" not in card.content
    assert api.recommend(folder, ["u1"], 3).equals(api.recommend(run, ["u1"], 3))


def test_what_can_not_be_exported_says_why_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    for kinds, words in ((["vector"], "expected some of vectors"), ([], "nothing"), (["hub"], "needs --license")):
        with pytest.raises(ConfigError, match=words):
            api.export(run, tmp_path / "out", kinds)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="not written by `dist-gat export`"):
        api.export(run, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_graph_that_differs_from_torch_is_refused() -> None:
    require_close(Path("a.onnx"), 1e-6, 1.0)
    for difference in (0.01, float("nan")):
        with pytest.raises(Exception, match="a.onnx: onnxruntime and torch differ"):
            require_close(Path("a.onnx"), difference, 1.0)
