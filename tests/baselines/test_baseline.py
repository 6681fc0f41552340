"""The list of baselines, and the training matrix that they get."""

from __future__ import annotations

import typing

import numpy as np
import pytest
from baseline_contract import BaselineContract
from helpers import INTERACTS, ITEM, USER, split_pairs

from dist_gat.baselines.baseline import BASELINES
from dist_gat.baselines.histories import training_histories
from dist_gat.config.sections import EvaluateConfig
from dist_gat.graph.part import PreparedGraph


def test_every_baseline_may_be_configured() -> None:
    annotation = EvaluateConfig.model_fields["baselines"].annotation
    assert typing.get_args(typing.get_args(annotation)[0]) == BASELINES


@pytest.mark.parametrize("data", ["synthetic", "holed", "empty_part"])
def test_the_matrix_has_users_and_items_in_the_order_of_their_nodes(request: pytest.FixtureRequest, data: str) -> None:
    prepared: PreparedGraph = request.getfixturevalue(data)
    users, items = (BaselineContract.nodes(prepared, kind) for kind in (USER, ITEM))
    matrix = training_histories(prepared, INTERACTS).matrix()
    assert matrix.shape == (len(users), len(items))
    row, column = matrix.nonzero()
    found = np.stack([users[row], items[column]], axis=1)
    train = split_pairs(prepared, "train")
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, train.tolist()))
    assert (matrix.data == 1).all()
