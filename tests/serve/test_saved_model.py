"""The saved model: written by any number of ranks, read alone, and recommending what a full sort would."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, ITEM, Ranks, split_pairs

from dist_gat.base.errors import ConfigError, DataError, StorageError
from dist_gat.checkpoints.weight_files import load_tensors, part_file
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config
from dist_gat.evaluate.inference import infer_representations
from dist_gat.exchange.worker import join_workers
from dist_gat.filters.blend import Blend
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.jobs.evaluation import evaluate_worker
from dist_gat.nn.recommender import build_recommender
from dist_gat.sampling.graph_store import open_store
from dist_gat.serve.opened_model import open_answers
from dist_gat.serve.saved_model import SavedModel, open_model, save_model


def config_of(run: Path, prepared: Path) -> Config:
    sections = {
        "name": "saved",
        "run": str(run),
        "data": {"interactions": "a.csv", "prepared": str(prepared)},
        "model": {
            "embedding_size": 16,
            "scoring": "dot",
            "num_heads": 2,
            "decoder": {"kind": "cosine", "popularity": True},
        },
        "evaluate": {"ks": [5, 20]},
    }
    return parse_config(sections)


def save(run: Path, folder: Path) -> dict[str, Any]:
    """Save an untrained model, and evaluate what was saved."""
    worker = join_workers(torch.device("cpu"), 1, 30)
    config, prepared = config_of(run, folder), open_prepared(folder)
    store = open_store(prepared, worker.sampling, "auto")
    model = build_recommender(config.model, 2, prepared.layouts, store.ownership, worker.rows, config.seed)
    torch.nn.init.constant_(model.dense.own_scores["popularity"].slope, 0.3)
    representation_OR = infer_representations(model, store, config.evaluate.edge_chunk)
    rows_OR = model.ranking_rows(representation_OR, store.ownership.own_nodes, store, INTERACTS)
    blend = Blend(rows_OR[:, :0], rows_OR[:, :0], None)
    save_model(config, model, rows_OR, blend, store, INTERACTS, worker)
    return evaluate_worker(config, worker)


@pytest.fixture(scope="module")
def model(synthetic: PreparedGraph, tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    run = tmp_path_factory.mktemp("run")
    save(run, synthetic.folder)
    return open_model(run / "model")


def test_recommendations_are_a_full_sort_of_what_a_user_has_not_met(
    model: SavedModel, synthetic: PreparedGraph
) -> None:
    rows = torch.cat([torch.cat(model.ranking_rows(part), dim=1) for part in range(4)]).numpy()
    users = dict(synthetic.ids("user").select("external_id", "node_id").rows())
    items = {
        node: (item, title)
        for node, item, title in synthetic.ids("item").select("node_id", "external_id", "title").rows()
    }
    met = {tuple(pair) for split in ("train", "valid") for pair in split_pairs(synthetic, split).tolist()}
    asked = ["u7", "u0", "u119", "u64", "u7"]
    table = open_answers(model).recommend(asked, 6)
    assert table.columns == ["user_id", "item_id", "score", "rank", "title"]
    at = 0
    for user in asked:
        free = [node for node in items if (users[user], node) not in met]
        score = {node: float(rows[users[user]] @ rows[node]) for node in free}
        for rank, node in enumerate(sorted(free, key=lambda node: (-score[node], node))[:6], start=1):
            found = table.row(at, named=True)
            assert (found["user_id"], found["rank"], found["item_id"], found["title"]) == (user, rank, *items[node])
            assert found["score"] == pytest.approx(score[node], abs=1e-5)
            at += 1
    assert at == len(table)


def test_diversity_is_of_representations_whatever_the_popularity(synthetic: PreparedGraph, tmp_path: Path) -> None:
    measured = save(tmp_path, synthetic.folder)["slices"]["test"]["beyond_accuracy"]["diversity@20"]
    model = open_model(tmp_path / "model")
    rows = torch.cat([load_tensors(part_file(model.folder, part))["representation"] for part in range(4)])
    assert rows.shape[1] == 17, "the representation, and popularity"
    item_of = dict(synthetic.ids("item").select("external_id", "node_id").rows())
    name_of = dict(synthetic.ids("user").select("node_id", "external_id").rows())
    unlike = []
    for user in np.unique(split_pairs(synthetic, "test")[:, 0]).tolist():
        items = [item_of[item] for item in open_answers(model).recommend([name_of[user]], 20)["item_id"]]
        unit = torch.nn.functional.normalize(rows[items, :-1].double(), dim=1)
        cosines = (unit @ unit.T)[~torch.eye(len(items), dtype=torch.bool)]
        unlike.append(1 - float(cosines.mean()))
    assert measured == pytest.approx(np.mean(unlike), rel=1e-5)


def test_more_items_than_there_are_gives_all_that_a_user_has_not_met(
    model: SavedModel, synthetic: PreparedGraph
) -> None:
    items = dict(synthetic.ids("item").select("node_id", "external_id").rows())
    pairs = {split: split_pairs(synthetic, split) for split in ("train", "valid")}
    node = int(pairs["valid"][0, 0])
    user = dict(synthetic.ids("user").select("node_id", "external_id").rows())[node]
    met = {items[item] for split in pairs for item in pairs[split][pairs[split][:, 0] == node, 1].tolist()}
    table = open_answers(model).recommend([user], 500)
    assert set(table["item_id"]) == set(items.values()) - met
    assert len(table) == synthetic.ranges.count(ITEM) - len(met)
    assert table["rank"].to_list() == list(range(1, len(table) + 1))


def test_an_unknown_user_is_named(model: SavedModel) -> None:
    with pytest.raises(DataError, match="unknown external_id 'u99999'|unknown user.* 'u99999'"):
        open_answers(model).recommend(["u1", "u99999"], 3)


def test_no_users_get_no_items(model: SavedModel) -> None:
    table = open_answers(model).recommend([], 3)
    assert len(table) == 0
    assert table.columns == ["user_id", "item_id", "score", "rank", "title"]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_save_the_bytes_of_one(
    ranks: Ranks, model: SavedModel, synthetic: PreparedGraph, tmp_path: Path, world_size: int
) -> None:
    metrics = ranks.run(world_size, save, tmp_path / "run", synthetic.folder)
    other = open_model(tmp_path / "run" / "model")
    files = {name: entry["sha256"] for name, entry in model.manifest["files"].items() if name != "config.yaml"}
    assert len(files) == 1 + 4 * 3 + 2
    assert {name: other.manifest["files"][name]["sha256"] for name in files} == files
    assert all(one == metrics[0] for one in metrics)
    assert metrics[0]["test"]["num_users"] == len(np.unique(split_pairs(synthetic, "test")[:, 0]))


def test_the_model_stands_alone_and_is_checked(model: SavedModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model.folder, tmp_path / "model"))
    assert open_answers(open_model(folder)).recommend(["u5"], 4).equals(open_answers(model).recommend(["u5"], 4))
    (folder / "known" / "0001.items.npy").unlink()
    with pytest.raises(StorageError, match="dist-gat train"):
        open_model(folder)


def test_a_model_of_another_data_set_is_not_evaluated(
    synthetic: PreparedGraph, holed: PreparedGraph, tmp_path: Path
) -> None:
    save(tmp_path, synthetic.folder)
    with pytest.raises(StorageError, match="trained on another prepared data set"):
        evaluate_worker(config_of(tmp_path, holed.folder), join_workers(torch.device("cpu"), 1, 30))


def test_a_rank_without_nodes_takes_part(ranks: Ranks, empty_part: PreparedGraph, tmp_path: Path) -> None:
    """Hashing or METIS may leave a part empty; with one part a rank, that rank has nothing to infer or to rank."""
    assert 0 in np.diff(empty_part.ranges.starts)
    alone = save(tmp_path / "alone", empty_part.folder)
    # one user has no spread: NaN, which is equal to nothing but for numpy's test
    np.testing.assert_equal(ranks.run(4, save, tmp_path / "parted", empty_part.folder, timeout_s=5), [alone] * 4)


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_that_is_not_positive_is_refused(ranks: Ranks, model: SavedModel, k: int) -> None:
    """On a rank, not here: without the check the kernel would write beside its arrays."""
    assert ranks.run(1, refused_k, model.folder, k) == ["refused"]


def refused_k(folder: Path, k: int) -> str:
    try:
        return f"{len(open_answers(open_model(folder)).recommend(['u1'], k))} rows"
    except (ConfigError, DataError):
        return "refused"
