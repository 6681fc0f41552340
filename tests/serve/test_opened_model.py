"""An opened model answers with the same bits alone, in a batch, in any order, and after its folder is gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from helpers import random_pairs
from recipes import prepare_and_train, recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError, UnknownIdError
from dist_gat.serve.opened_model import Answer, OpenedModel, Question

USERS, ITEMS = 60, 40
BLEND = {"spectral_rank": 8, "spectral_weight": 0.3, "linear": True, "linear_weight": 0.4}
KINDS: dict[str, dict[str, Any]] = {
    "blended": {"blend": BLEND, "model": {"decoder": {"kind": "cosine", "popularity": True}}},
    "rating": {"task": {"kind": "rating"}},
}
NEW = [{"user": "ann", "items": [3, 7, 12]}, {"user": "bob", "items": [1]}, {"user": "eve", "items": []}]


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users, 0 of whom has met all of 40 items; users are in three parts."""
    folder = tmp_path_factory.mktemp("opened")
    (folder / "raw").mkdir()
    pairs = {*random_pairs(USERS, ITEMS, 0.2), *((0, item) for item in range(ITEMS))}
    rows = [f"{user},{item},{(user + item) % 5}" for user, item in sorted(pairs)]
    (folder / "raw" / "interactions.csv").write_text("\n".join(["user_id,item_id,rating", *rows]))
    split = {"valid_ratio": 0.05, "test_ratio": 0}
    prepare_and_train(
        recipe(folder, data={"split": split}, parts={"num_parts": 3}, train={"num_epochs": 1}, **KINDS[request.param])
    )
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> OpenedModel:
    return api.open(run)


def table_of(model: OpenedModel, answer: Any) -> pl.DataFrame:
    assert isinstance(answer, Answer), answer
    return model.ranker.table_of(answer.users, answer.best)


def test_a_user_has_the_same_bits_alone_in_a_batch_in_any_order_and_in_the_verb(run: Path, model: OpenedModel) -> None:
    asked = [17, 3, 0, 59, 3]
    together = model.recommend(asked, 5)
    assert together.equals(pl.concat([model.recommend([user], 5) for user in asked]))
    assert together.equals(api.recommend(run, asked, 5))
    reverse = model.recommend(asked[::-1], 5)
    assert reverse.filter(pl.col("user_id") == 17).equals(together.filter(pl.col("user_id") == 17))
    assert model.recommend([17], 3).equals(together.filter(pl.col("user_id") == 17).head(3))


def test_questions_that_are_answered_together_have_the_answers_of_each_alone(model: OpenedModel) -> None:
    questions = [
        Question(["17"], 5), Question(["no one"]), Question(["3", "0"], 9), Question(new_users=NEW, k=4),
        Question(["3"], 4, candidates=["1", "2", "3", "4", "39"]), Question(["17"], 5, exclude=["1", "2", "what"]),
        Question(["17"], 500, filter_seen=False), Question(new_users=[{"items": 3}]), Question(["5"], 0),
    ]  # fmt: skip
    answers = model.answer(questions)
    for question, answer in zip(questions, answers, strict=True):
        (alone,) = model.answer([question])
        if isinstance(answer, Answer):
            assert table_of(model, answer).equals(table_of(model, alone))
    assert [type(answer) for answer in answers if not isinstance(answer, Answer)] == [
        UnknownIdError, DataError, ConfigError,
    ]  # fmt: skip
    assert table_of(model, answers[0]).equals(model.recommend([17], 5))
    assert table_of(model, answers[3]).equals(model.recommend(new_users=NEW, k=4))
    assert len(table_of(model, answers[6])) == ITEMS
    assert answers[5].notes == ["exclude: 1 items are unknown to the model and left out, e.g. 'what'"]  # type: ignore[union-attr]


def test_candidates_and_exclusions_take_items_out_of_the_whole_list_and_change_no_score(model: OpenedModel) -> None:
    whole = model.recommend([17, 3], 500, filter_seen=False)
    assert whole["item_id"].n_unique() == ITEMS
    some = [1, 2, 3, 30, 39]
    chosen = model.recommend([17, 3], 500, candidates=some[::-1], filter_seen=False)
    assert chosen.drop("rank").equals(whole.filter(pl.col("item_id").is_in(some)).drop("rank"))
    rest = model.recommend([17, 3], 500, exclude=some, filter_seen=False)
    assert rest.drop("rank").equals(whole.filter(~pl.col("item_id").is_in(some)).drop("rank"))
    seen = whole.filter(pl.col("user_id") == 17).join(model.recommend([17], 500), on="item_id", how="anti")
    assert 0 < len(seen) < ITEMS
    assert not set(model.recommend([17], 500, candidates=list(range(ITEMS)))["item_id"]) & set(seen["item_id"])
    assert model.recommend([17], 5, candidates=["what"]).is_empty()


def test_scores_are_those_of_the_list(model: OpenedModel) -> None:
    whole = model.recommend([17], 500, filter_seen=False)
    found = model.score(17, whole["item_id"].to_list())
    assert found.equals(whole.select("item_id", "score"))
    of_new = model.recommend(new_users=NEW[:1], k=500, filter_seen=False)
    assert model.score(None, of_new["item_id"].to_list(), NEW[0]).equals(of_new.select("item_id", "score"))
    with pytest.raises(UnknownIdError, match="unknown item '777'"):
        model.score(17, [3, 777])


def test_similar_is_the_cosine_of_representations(model: OpenedModel) -> None:
    saved, size = model.saved, model.similar_nodes.size
    for kind, asked in (("item", {"items": [5, 6]}), ("user", {"users": [5, 6]})):
        ids = saved.ids(kind)
        rows = torch.cat([saved.rows(part, "representation") for part in range(3)]).numpy()[:, :size].astype(float)
        rows = rows[ids["node_id"].to_numpy()]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found = model.similar(**asked, k=3)
        for one in (5, 6):
            at = ids["external_id"].to_list().index(one)
            cosines = rows @ rows[at]
            cosines[at] = -2
            best = np.argsort(-cosines, kind="stable")[:3]
            own = found.filter(pl.col(f"{kind}_id") == one)
            assert own["similar_id"].to_list() == ids["external_id"].gather(best).to_list()
            np.testing.assert_allclose(own["cosine"].to_numpy(), cosines[best], atol=1e-5)


def test_an_opened_model_stays_when_its_folder_is_gone(run: Path, model: OpenedModel, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    opened = api.open(tmp_path / "model")
    assert opened.digest == model.digest
    shutil.rmtree(tmp_path / "model")
    for ask in (lambda one: one.recommend(range(USERS), 5), lambda one: one.recommend(new_users=NEW)):
        assert ask(opened).equals(ask(model))
    assert opened.similar(items=[3]).equals(model.similar(items=[3]))


def test_an_index_says_its_recall_and_gives_the_scores_of_the_exact_search(run: Path, model: OpenedModel) -> None:
    everything, one_list = (api.open(run, index_probes=probes) for probes in (1000, 1))
    assert everything.index is not None
    assert one_list.index is not None
    exact, users = model.recommend(range(USERS), 5), list(range(USERS))
    if model.ranker.linear is None:  # whose part of a score the index doesn't know
        assert everything.index.recall == 1.0
        assert everything.recommend(users, 5).equals(exact)
    assert 0 < one_list.index.recall <= everything.index.recall
    every = {(user, item): score for user, item, score, *_ in model.recommend(users, ITEMS).rows()}
    found = one_list.recommend(users, 5)
    assert all(every[user, item] == score for user, item, score, *_ in found.rows())
    new = {"new_users": [{"user": "a", "items": []}, {"user": "b", "items": [1, 2]}]}
    assert (
        everything.recommend(**new)
        .filter(pl.col("user_id") == "a")
        .equals(model.recommend(**new).filter(pl.col("user_id") == "a"))
    )
