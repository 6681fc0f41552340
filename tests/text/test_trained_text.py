"""An encoder of texts that trains with the graph, from a recipe to recommendations, with a random BERT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from faults.runs import checkpoints_of, events_of, hashes_of, state_of
from helpers import ITEM, Ranks
from processes import AskedAt
from recipes import recipe
from safetensors.torch import load_file
from tiny_models import SIZE, WORDS, save_bert

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.checkpoints.weight_files import DENSE, load_tensors
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange import long_work
from dist_gat.exchange.worker import join_workers
from dist_gat.explain.trained_run import open_trained_run
from dist_gat.graph.part import open_prepared
from dist_gat.jobs.training import train_worker
from dist_gat.serve.new_nodes import open_new_nodes
from dist_gat.serve.saved_model import SavedModel, open_model
from dist_gat.train.run_log import read_curves

pytest.importorskip("peft")

USERS, ITEMS, WITH_TEXT, PER_EPOCH = 60, 40, 34, 6
TEXT = {"rank": 2, "alpha": 4.0, "learning_rate": 0.05, "nodes_per_step": 6}
Sections = dict[str, dict[str, Any]]


def base_of(folder: Path, trainable: bool = True) -> Sections:
    title = {"kind": "text", "encoder": str(folder / "bert"), "trainable": trainable}
    nodes = {"item": {"table": "titles.csv", "columns": {"price": "numeric", "title": title}}}
    return {
        "data": {"nodes": nodes, "vectors": str(folder / "vectors"), "split": {"valid_ratio": 0.1, "test_ratio": 0.1}},
        "parts": {"num_parts": 4, "method": "hash"},
        "sampling": {"fanouts": [3, 2]},
        "negatives": {"num_shared": 6, "in_batch": True},
        "model": {"embedding_size": 8, "inputs": {"ids": ["user"], "fusion": "gate"}, "text": TEXT},
        "train": {
            "num_epochs": 3, "batch_size": 64, "learning_rate": 0.05, "clip_norm": 0.5, "patience": 0,
            "precision": "float64", "log_every": 1,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    save_bert(folder / "bert")
    write_synthetic(folder / "raw", USERS, ITEMS, 4, 8, 0.1, seed=3)
    draw = np.random.default_rng(0)
    words = np.array_split(np.array(WORDS[:12]), 4)  # of a community its own
    titles = [" ".join(draw.choice(words[item % 4], draw.integers(1, 5))) for item in range(WITH_TEXT)]
    table = {"item_id": [f"i{item}" for item in range(ITEMS - 2)], "title": [*titles, "", "", " ", None]}
    pl.DataFrame({**table, "price": range(ITEMS - 2)}).write_csv(folder / "raw" / "titles.csv")
    api.prepare(tuned(folder))
    return folder


def tuned(folder: Path, run: str = "run", workers: int = 1, text: dict[str, Any] | None = None, **train: Any) -> Config:
    base = base_of(folder)
    model = base["model"] | {"text": TEXT | (text or {})}
    launch = {"num_workers": workers}
    return recipe(folder, run, base, model=model, train=base["train"] | train, launch=launch)


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    return api.train(tuned(folder, "alone"))


def updates_of(dense: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in dense.items() if name.startswith("text.tower.updates.")}


def test_prepare_adds_the_tokens_beside_the_same_vectors(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = base_of(folder, trainable=False)
    frozen = recipe(
        folder, "frozen", base, model=base["model"] | {"text": None},
        data=base["data"] | {"prepared": str(tmp_path / "frozen")},
    )  # fmt: skip
    api.prepare(frozen)
    with_tokens, without = open_prepared(folder / "prepared"), open_prepared(tmp_path / "frozen")
    assert [column.kind for column in with_tokens.layouts[ITEM]] == ["known", "numeric", "text", "tokens"]
    assert with_tokens.layouts[ITEM][:3] == without.layouts[ITEM]
    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    titles = dict(pl.read_csv(folder / "raw" / "titles.csv").select("item_id", "title").rows())
    names = dict(with_tokens.ids(ITEM).select("node_id", "external_id").rows())
    num_texts = 0
    for part, other in zip(with_tokens.parts, without.parts, strict=True):
        np.testing.assert_array_equal(part.features[ITEM][:, : 2 + SIZE], other.features[ITEM])
        for node, row in zip(part.ranges.nodes_of_type(part.number, ITEM), part.features[ITEM], strict=True):
            tokens = np.ascontiguousarray(row[2 + SIZE :]).view(np.int32)
            title = (titles.get(names[node]) or "").strip()
            assert tokens[tokens >= 0].tolist() == (tokenizer(title)["input_ids"] if title else [])
            assert np.isnan(row[2 : 2 + SIZE]).all() == (not title)
            num_texts += bool(title)
    assert num_texts == WITH_TEXT


def test_the_encoder_learns_and_its_own_weights_are_nowhere(folder: Path, alone: dict[str, Any]) -> None:
    assert alone["steps"] == 3 * PER_EPOCH
    assert alone["losses"][-1] < 0.95 * alone["losses"][0]
    checkpoint = checkpoints_of(tuned(folder, "alone")).folder(3 * PER_EPOCH)
    dense = load_file(checkpoint / DENSE)
    own = [name for name in dense if name.startswith("text.")]
    assert all("lora_" in name or name == "text.tower.encoded_in" for name in own)
    saved = load_tensors(folder / "alone" / "model" / DENSE)
    ups = [value for name, value in updates_of(saved).items() if name.endswith("lora_B/weight")]
    assert len(ups) == 12
    assert all(value.abs().max() > 0 for value in ups)
    optimiser = load_file(checkpoint / "dense_optimizer.safetensors")
    num_trained = sum(name.endswith(".step") for name in optimiser)
    assert num_trained == len([name for name in dense if "kept/" not in name]) - 1
    told = [event["message"] for event in events_of(tuned(folder, "alone"), "told")]
    assert told == ["text column item.title: trains 448 of 2,824 parameters of the encoder, 15.86%"]


def test_updates_move_at_a_rate_of_their_own(folder: Path) -> None:
    """The first step of Adam moves each weight with a gradient by the rate."""
    config = tuned(folder, "slow", text={"learning_rate": 1e-4}, max_steps=1)
    api.train(config)
    ups = [
        value for name, value in updates_of(load_tensors(config.run_folder / "model" / DENSE)).items() if "_B" in name
    ]
    assert max(float(value.abs().max()) for value in ups) == pytest.approx(1e-4, rel=1e-3)


def test_staleness_is_logged(folder: Path, alone: dict[str, Any]) -> None:
    found = events_of(tuned(folder, "alone"), "text")
    assert [event["step"] for event in found] == [PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH]
    assert [event["kept_since_epoch"] for event in found] == [0, 1, 2]
    assert all(0 < event["staleness"] < 2 for event in found)
    points = read_curves(folder / "alone")["text/staleness"]
    assert [step for step, _ in points] == [event["step"] for event in found]
    assert [value for _, value in points] == pytest.approx([event["staleness"] for event in found])


@pytest.mark.parametrize(("workers", "cache_bytes"), [(2, 0), (4, 600)])
def test_the_same_on_any_number_of_workers(folder: Path, alone: dict[str, Any], workers: int, cache_bytes: int) -> None:
    config = tuned(folder, f"workers-{workers}-{cache_bytes}", workers)
    sampling = config.sampling.model_copy(update={"cache_bytes": cache_bytes})
    other = api.train(config.model_copy(update={"sampling": sampling}))
    assert other["losses"] == pytest.approx(alone["losses"], rel=1e-7)
    for mine, theirs in zip(alone["history"], other["history"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-7)


def test_how_often_validation_is_changes_no_bit(folder: Path) -> None:
    """Kept vectors are made anew at every second epoch alone, whatever validation needs in between."""
    slow = {"refresh_every": 2}
    often, rarely = tuned(folder, "often", text=slow, num_epochs=5), tuned(folder, "rarely", text=slow, num_epochs=5)
    rarely = rarely.model_copy(update={"train": rarely.train.model_copy(update={"validate_every": 5})})
    losses = [api.train(config)["losses"] for config in (often, rarely)]
    assert losses[0] == losses[1]
    assert state_of(often, 5 * PER_EPOCH) == state_of(rarely, 5 * PER_EPOCH)
    assert [event["step"] // PER_EPOCH for event in events_of(rarely, "text")] == [2, 4, 5]


def attempt(config: Config, stop_at: int = 0, rank_asked: int = 0) -> tuple[dict[str, Any], int]:
    """What one attempt returns, and how often it looked for requests. One of the ranks is asked to stop."""
    config.run_folder.mkdir(parents=True, exist_ok=True)
    alone = not torch.distributed.is_initialized()
    asked = AskedAt(stop_at if alone or torch.distributed.get_rank() == rank_asked else 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(long_work, "LOOK_EVERY_S", 0.0)
        result = train_worker(config, join_workers(torch.device("cpu"), 1, 60, asked))
    return {key: value for key, value in result.items() if key != "peak_memory_bytes"}, asked.looks


def model_of(config: Config) -> dict[str, str]:
    root = config.run_folder / "model"
    return hashes_of({str(path.relative_to(root)): load_file(path) for path in sorted(root.rglob("*.safetensors"))})


def test_a_stop_at_any_look_loses_nothing(folder: Path) -> None:
    """In steps, while texts are encoded for an epoch, a validation or the saved model, and after a resume."""
    settings: dict[str, Any] = {"text": {"refresh_every": 2}, "validate_every": 3, "num_epochs": 4}
    whole = tuned(folder, "whole", **settings)
    expected, looks = attempt(whole)
    for stop_at in range(3, looks, looks // 6):
        config = tuned(folder, f"stopped-{stop_at}", **settings)
        stopped, _ = attempt(config, stop_at)
        assert stopped["stopped"]
        again, _ = attempt(config, 2)  # at once, where that is not over
        assert again["stopped"]
        result, _ = attempt(config)
        assert result == expected
        assert state_of(config) == state_of(whole)
        assert model_of(config) == model_of(whole)


def test_all_ranks_stop_together_and_go_on(ranks: Ranks, folder: Path) -> None:
    whole = tuned(folder, "two-whole", 2)
    (expected, looks), _ = ranks.run(2, attempt, whole)
    config = tuned(folder, "two-cut", 2)
    found = ranks.run(2, attempt, config, looks // 2, 1)
    assert [result["stopped"] for result, _ in found] == [True, True]
    (result, _), _ = ranks.run(2, attempt, config)
    assert result == expected
    assert state_of(config) == state_of(whole)


def test_a_step_without_text_on_a_rank(folder: Path) -> None:
    """One text a step, over both ranks, which meet few nodes and hardly any of them both."""
    losses = []
    for workers in (1, 2):
        config = tuned(folder, f"few-{workers}", workers, {"nodes_per_step": 1}, batch_size=4, max_steps=8)
        negatives = config.negatives.model_copy(update={"num_shared": 0, "num_per_seed": 1, "in_batch": False})
        sampling = config.sampling.model_copy(update={"fanouts": [1]})
        losses.append(api.train(config.model_copy(update={"negatives": negatives, "sampling": sampling}))["losses"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-7)


def test_the_saved_model_measures_as_validation_did(folder: Path, alone: dict[str, Any]) -> None:
    config = tuned(folder, "alone")
    best = alone["valid"]
    for workers in (1, 2):
        launch = config.launch.model_copy(update={"num_workers": workers})
        found = api.evaluate(config.model_copy(update={"launch": launch}))
        assert found["valid"]["ndcg@20"] == pytest.approx(best["ndcg@20"], rel=1e-4)


@pytest.fixture(scope="module")
def model(folder: Path) -> SavedModel:
    """Trained in float32."""
    api.train(tuned(folder, "single", precision="float32"))
    return open_model(folder / "single" / "model")


def test_a_new_item_with_a_text_reads_what_its_node_does(folder: Path, model: SavedModel) -> None:
    titles = pl.read_csv(folder / "raw" / "titles.csv").drop_nulls()
    nodes, run = open_new_nodes(model), open_trained_run(model.folder.parent)
    ids, text = dict(model.ids(ITEM).select("node_id", "external_id").rows()), run.model.dense.text
    rows = {
        item: nodes.columns[ITEM].row({"title": title, "price": price}, "here") for item, title, price in titles.rows()
    }
    assert text is not None
    for part in run.store.prepared.parts:
        vectors_nD = text.renew(part.features[ITEM])
        for place, node in enumerate(part.ranges.nodes_of_type(part.number, ITEM)):
            if (row := rows.get(ids[node])) is None or np.isnan(vectors_nD[place]).any():
                continue
            # whatever the batch, as of a frozen encoder
            np.testing.assert_allclose(row[2 : 2 + SIZE], vectors_nD[place], atol=5e-6)
            assert np.abs(row[2 : 2 + SIZE] - part.features[ITEM][place, 2 : 2 + SIZE]).max() > 0.01
            read = nodes.inputs[ITEM](torch.zeros(1, 8), None, torch.from_numpy(row)[None])
            torch.testing.assert_close(read, nodes.gather("depth.0", np.array([node])), rtol=1e-5, atol=1e-5)
            rows.pop(ids[node])
    assert len(rows) == ITEMS - 2 - 1 - WITH_TEXT
    new = [{"item": "new", "columns": {"title": "red fish"}}, {"item": "bare"}]
    ranked = api.recommend(folder / "single", users=["u3"], k=ITEMS + 2, new_items=new)
    assert {"new", "bare"} <= set(ranked["item_id"])
    with pytest.raises(DataError, match="expected text, because the encoder of this column was trained"):
        nodes.columns[ITEM].row({"title": [0.0] * SIZE}, "here")


def test_an_explanation_has_the_saved_score(folder: Path, model: SavedModel) -> None:
    found = api.explain(model.folder.parent, user="u3")
    assert found["score"] == pytest.approx(found["saved_score"], abs=1e-5)


def test_another_run_begins_with_what_was_trained(folder: Path, alone: dict[str, Any]) -> None:
    config = tuned(folder, "begun", init_from=str(folder / "alone"), max_steps=1)
    api.train(config)
    assert [event["step"] for event in events_of(config, "text")] == [0, 1]
    first = events_of(config, "text")[0]
    assert first["staleness"] > 0.001


def test_frozen_and_trained_side_by_side(folder: Path, alone: dict[str, Any]) -> None:
    found = api.compare(tuned(folder, "alone"), ["recipe", "text-frozen"])["models"]
    assert found["recipe"]["metrics"].keys() == found["text-frozen"]["metrics"].keys() != set()
    assert not any(
        name.startswith("text.")
        for name in load_tensors(folder / "alone" / "compare" / "text-frozen" / "model" / DENSE)
    )


def test_what_can_not_be_trained(folder: Path, model: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(folder)
    price = {"item": {"table": "titles.csv", "columns": {"price": {"kind": "numeric", "trainable": True}}}}
    with pytest.raises(ConfigError, match="trainable is for text, and not for numeric"):
        recipe(folder, "x", base, data={**base["data"], "nodes": price})
    with pytest.raises(ConfigError, match="model.text trains the encoder of one column: none has trainable=true"):
        recipe(folder, "x", base, data={**base["data"], "nodes": {}})
    with pytest.raises(ConfigError, match=r"model.text and model.adapter don't go together"):
        recipe(folder, "x", base, model=base["model"] | {"adapter": {"rank": 2}}, train={"init_from": "run"})
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"training of a text encoder needs .*pip install 'dist-gat\[text\]'"):
        api.train(tuned(folder, "without-peft"))
    monkeypatch.undo()
    weights = folder / "bert" / "model.safetensors"
    before = weights.read_bytes()
    try:
        save_bert(folder / "bert", seed=1)
        with pytest.raises(ConfigError, match=r"bert: its files are others now"):
            api.train(tuned(folder, "other-files"))
        with pytest.raises(ConfigError, match="its files are others than when the data were prepared"):
            api.evaluate(tuned(folder, "single", precision="float32"))
        with pytest.raises(ConfigError, match="its files are others than when the data were prepared"):
            open_new_nodes(model).columns[ITEM].row({"title": "red"}, "here")
    finally:
        weights.write_bytes(before)
