"""What fails on one rank fails on all."""

from __future__ import annotations

import errno

import pytest
import torch
from helpers import Ranks

from dist_gat.base.errors import ClusterError, StorageError
from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.exchange.fail_together import share_text, together


def texts(words: list[str]) -> list[str]:
    channel = open_channel("control", torch.device("cpu"), 30)
    return share_text(words[channel.rank], channel)


def test_text_is_shared(ranks: Ranks) -> None:
    words = ["", "größer", "x" * 70_000]
    assert ranks.run(3, texts, words) == [words] * 3
    assert share_text("alone", Channel("control")) == ["alone"]


def fail_on(ranks: list[int]) -> str:
    channel = open_channel("control", torch.device("cpu"), 30)
    try:
        with together(channel, "writing"):
            if channel.rank in ranks:
                raise OSError(errno.ENOSPC, "No space left on device", f"file-{channel.rank}")
    except StorageError as err:
        return f"{err} | {type(err.__cause__).__name__}"
    return "fine"


def test_a_failure_is_raised_everywhere_with_the_rank_that_had_it(ranks: Ranks) -> None:
    assert ranks.run(2, fail_on, []) == ["fine", "fine"]
    message = "writing: rank 1: [Errno 28] No space left on device: 'file-1'; free some space there"
    assert ranks.run(2, fail_on, [1]) == [f"{message} | NoneType", f"{message} | OSError"]
    both = ranks.run(2, fail_on, [0, 1])
    assert all("rank 0: " in told and "; rank 1: " in told for told in both)


def test_other_errors_keep_their_type_in_the_message_and_a_broken_collective_is_not_agreed_on() -> None:
    with pytest.raises(StorageError, match="reading: rank 0: KeyError: 'x'"), together(Channel("control"), "reading"):
        raise KeyError("x")
    with pytest.raises(ClusterError, match="rank 3 is gone"), together(Channel("control"), "reading"):
        raise ClusterError("rank 3 is gone")
