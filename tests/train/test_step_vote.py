"""The vote before an update: every rank hears the same, whoever said it."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import Ranks, same_on_all

from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.exchange.stop_requests import Request
from dist_gat.train.step_vote import StepVote, vote

GOOD = {"softmax": torch.tensor(1.5), "l2": torch.tensor(0.25)}


def ballot(channel: Channel, rank: int | None = None, **changed: object) -> StepVote:
    said = {"terms": GOOD, "rows_square": 4.0, "dense_square": 5.0, "request": Request.NOTHING, "save_failed": False}
    if rank in (None, channel.rank):
        said |= changed
    squares = [torch.tensor(said.pop(name), dtype=torch.float64) for name in ("rows_square", "dense_square")]
    return vote(channel, said["terms"], *squares, said["request"], said["save_failed"])  # type: ignore[arg-type]


def on_rank(rank: int | None, changed: dict[str, object]) -> StepVote:
    return ballot(open_channel("rows", torch.device("cpu"), 30), rank, **changed)


def test_a_healthy_step_has_the_norm_of_all_ranks_rows_and_one_copy_of_the_dense_gradients(ranks: Ranks) -> None:
    assert ballot(Channel("rows")) == StepVote(3.0, "", Request.NOTHING, False)
    heard = same_on_all(ranks.run(4, on_rank, 2, {"rows_square": 8.0}))
    assert heard == StepVote(math.sqrt(4 + 4 + 8 + 4 + 5), "", Request.NOTHING, False)


@pytest.mark.parametrize(
    ("rank", "changed", "told"),
    [
        (1, {"terms": {**GOOD, "l2": torch.tensor(math.inf)}}, "loss term l2 on rank 1"),
        (0, {"rows_square": math.nan}, "gradient of the embedding rows on rank 0"),
        (None, {"dense_square": math.nan}, "gradient of the dense weights"),
        (None, {"terms": {**GOOD, "softmax": torch.tensor(math.nan)}}, "loss term softmax on rank 0, 1"),
    ],
)
def test_what_is_not_finite_is_named_with_its_ranks(
    ranks: Ranks, rank: int | None, changed: dict[str, object], told: str
) -> None:
    heard = ranks.run(2, on_rank, rank, changed)
    assert [ballot.not_finite for ballot in heard] == [told, told]


def test_the_strongest_request_and_any_failure_count_on_every_rank(ranks: Ranks) -> None:
    heard = same_on_all(ranks.run(2, on_rank, 1, {"request": Request.STOP, "save_failed": True}))
    assert (heard.request, heard.save_failed) == (Request.STOP, True)
    assert same_on_all(ranks.run(2, on_rank, 0, {"request": Request.SAVE})).request == Request.SAVE
