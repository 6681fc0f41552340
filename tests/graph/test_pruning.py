"""Pruning: by the similarity that is written down, of each user a share, of messages alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from recipes import recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError
from dist_gat.config.data_sections import PruneConfig
from dist_gat.config.sections import Config
from dist_gat.graph.part import open_prepared
from dist_gat.graph.pruning import MOST_PEERS, doubtful, similarities

NUM_USERS, NUM_ITEMS = 60, 40
PRUNE = {"share": 0.2, "min_item_interactions": 3}


def some_pairs(share: float = 0.2) -> np.ndarray:
    return np.argwhere(np.random.default_rng(0).random((NUM_USERS, NUM_ITEMS)) < share)


def plain_similarities(pairs: np.ndarray) -> list[float]:
    """As the equation says, with sets."""
    items_of = {user: set(pairs[pairs[:, 0] == user, 1].tolist()) for user in range(NUM_USERS)}
    users_of = {item: pairs[pairs[:, 1] == item, 0].tolist() for item in range(NUM_ITEMS)}
    found = []
    for user, item in pairs.tolist():
        own, cosines = items_of[user] - {item}, []
        for other in users_of[item]:
            if other != user:
                others = items_of[other] - {item}
                size = np.sqrt(len(own) * len(others))
                cosines.append(len(own & others) / size if size else 0.0)
        found.append(float(np.mean(cosines)) if cosines else 0.0)
    return found


@pytest.mark.parametrize("share", [0.03, 0.2])
def test_similarities_are_those_of_the_equation(share: float) -> None:
    pairs = some_pairs(share)
    found = similarities(pairs[:, 0].astype(np.uint32), pairs[:, 1].astype(np.uint32), NUM_ITEMS)
    assert found.max() > 0
    np.testing.assert_allclose(found, plain_similarities(pairs), atol=1e-6)


def test_of_an_item_that_all_have_met_only_some_users_count() -> None:
    """Two kinds of users who met one item besides: theirs alone are alike, whoever of them counts."""
    count = 40 * MOST_PEERS
    users = np.repeat(np.arange(count), 2)
    items = np.stack([np.zeros(count, np.int64), 1 + np.arange(count) % 2], axis=1).ravel()
    found = similarities(users.astype(np.uint32), items.astype(np.uint32), 3).reshape(count, 2)
    # a mean of 64 draws of 0 or 1, within three deviations
    assert abs(found[:, 0] - 0.5).max() < 3 * 0.5 / MOST_PEERS**0.5
    assert (found[:, 1] == 1).all(), "all who met it met the first one too"


def test_a_user_loses_a_share_rounded_down_and_rare_items_stay() -> None:
    users, items = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2]), np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 0])
    similarity = np.array([0.5, 0.1, 0.1, 0.3, 0.0, 0.4, 0.3, 0.2, 0.1, 0.0])
    for share, expected in ((0.2, [1]), (0.25, [1, 8]), (0.5, [1, 2, 7, 8]), (0.1, [])):
        found = doubtful(users, items, similarity, 5, PruneConfig(share=share, min_item_interactions=2))
        assert np.flatnonzero(found).tolist() == expected, share


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruning")
    pairs = some_pairs()
    weights = 1 + np.arange(len(pairs)) % 5
    (folder / "raw").mkdir()
    table = pl.DataFrame({"user_id": pairs[:, 0], "item_id": pairs[:, 1], "weight": weights})
    table.write_csv(folder / "raw" / "interactions.csv")
    return folder


def pruned_recipe(folder: Path, name: str, prune: Any = PRUNE, **data: Any) -> Config:
    data |= {"prune": prune, "prepared": str(folder / f"prepared-{name}")}
    return recipe(folder, name, data=data, train={"num_epochs": 1, "max_steps": 3})


def messages(config: Config) -> set[tuple[int, int]]:
    """(user, item) of what users attend to, which is what items do too."""
    prepared = open_prepared(config.data.prepared)
    ranges = prepared.ranges
    found: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for number, part in enumerate(prepared.parts):
        nodes = np.arange(ranges.starts[number], ranges.starts[number + 1])
        dst = np.repeat(nodes, np.diff(part.node_starts))
        is_user = ranges.is_of_type(dst, "user")
        for users, own in ((True, is_user), (False, ~is_user)):
            ends = np.stack([dst, part.indices], axis=1)[own].astype(np.int64)
            found[users] |= {tuple(pair) for pair in (ends if users else ends[:, ::-1]).tolist()}
    assert found[True] == found[False]
    return found[True]


def training_pairs(config: Config) -> set[tuple[int, int]]:
    prepared = open_prepared(config.data.prepared)
    (relation,) = prepared.schema.relations
    return {tuple(pair) for part in prepared.parts for pair in part.pairs(relation, "train").tolist()}


def test_what_is_doubtful_carries_no_message_and_is_learned_all_the_same(folder: Path) -> None:
    config, whole = pruned_recipe(folder, "run"), pruned_recipe(folder, "whole", None)
    report, of_whole = api.prepare(config), api.prepare(whole)
    assert "pruned" not in of_whole
    assert training_pairs(config) == training_pairs(whole) == messages(whole)
    lost = training_pairs(config) - messages(config)
    assert messages(config) < training_pairs(config)
    assert report["pruned"] == {"interactions": len(lost), "of": len(training_pairs(config))}
    degree = np.bincount([user for user, _ in training_pairs(config)])
    of_user = np.bincount([user for user, _ in lost], minlength=len(degree))
    assert (of_user <= np.floor(0.2 * degree)).all()
    assert 0.1 < len(lost) / len(training_pairs(config)) < 0.2


def test_interactions_without_messages_are_not_doubted(folder: Path) -> None:
    """`min_message_weight` is asked first: what it leaves is all that similarities know."""
    both = pruned_recipe(folder, "both", min_message_weight=3.0)
    alone = pruned_recipe(folder, "alone", None, min_message_weight=3.0)
    report = api.prepare(both)
    api.prepare(alone)
    assert report["pruned"]["of"] == len(messages(alone))
    assert messages(both) < messages(alone)
    assert len(messages(alone) - messages(both)) == report["pruned"]["interactions"]


def test_compare_says_what_pruning_adds(folder: Path) -> None:
    config = pruned_recipe(folder, "compared")
    api.prepare(config)
    found = api.compare(config, ["recipe", "without-pruning"])["models"]
    assert found["recipe"]["metrics"].keys() == found["without-pruning"]["metrics"].keys() != set(), found
    assert found["recipe"]["metrics"] != found["without-pruning"]["metrics"]
    with pytest.raises(ConfigError, match="without-pruning: expected some of"):
        api.compare(pruned_recipe(folder, "whole", None), ["without-pruning"])


@pytest.mark.parametrize("prune", [{"share": 0}, {"share": 1}, {}, {"share": 0.1, "min_item_interactions": 0}])
def test_settings_out_of_range_are_refused(folder: Path, prune: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.prune"):
        pruned_recipe(folder, "wrong", prune)
