"""A request that ranks hear of at different steps."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from helpers import Ranks
from recipes import recipe

from dist_gat import api
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.stop_requests import Request, Requests
from dist_gat.exchange.worker import join_workers
from dist_gat.jobs.training import train_worker
from dist_gat.train.event_log import PROGRESS_FILE

HEARD_AT = (3, 4)  # by rank


class Notice(Requests):
    """A pre-emption notice that this rank hears at a step of its own, and hears on until it is heeded."""

    def __init__(self, heard_at: int) -> None:
        self.heard_at, self.step, self.is_heeded = heard_at, 0, False

    def poll(self) -> Request:
        self.step += 1
        return Request.PREEMPT if self.step >= self.heard_at and not self.is_heeded else Request.NOTHING

    def heed(self, request: Request) -> None:
        self.is_heeded = self.is_heeded or request == Request.PREEMPT


def on_rank(config: Config) -> bool:
    notice = Notice(HEARD_AT[torch.distributed.get_rank()])
    train_worker(config, join_workers(torch.device("cpu"), 1, 30, notice))
    return notice.is_heeded


def test_a_notice_is_heeded_on_all_ranks_when_the_first_hears_it(ranks: Ranks, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "raw", 60, 40, 3, 10, 0.1, seed=2)
    config = recipe(
        tmp_path,
        sampling={"fanouts": []},
        negatives={"num_shared": 16},
        train={"num_epochs": 1, "batch_size": 20, "max_steps": 8},
    )
    api.prepare(config)
    assert ranks.run(2, on_rank, config) == [True, True]
    events = [json.loads(line) for line in (config.run_folder / PROGRESS_FILE).read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "save"] == [3, 8]
