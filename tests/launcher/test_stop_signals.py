"""Requests to save and to stop: signals, the stop file, pre-emption."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dist_gat.exchange.stop_requests import Request, Requests
from dist_gat.launcher import stop_signals as requests
from dist_gat.launcher.stop_signals import FileRequests, SignalRequests, StopFile


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_while_the_job_listens(number: signal.Signals) -> None:
    asked, before = SignalRequests(), signal.getsignal(number)
    with asked.heard():
        assert asked.poll() == Request.NOTHING
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert asked.poll() == Request.STOP
    assert signal.getsignal(number) == before


def test_a_file_asks_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "LOOK_EVERY_S", 0.0)
    asked = FileRequests(StopFile(tmp_path), lambda: True)
    (tmp_path / "stop").touch()
    assert asked.poll() == Request.STOP


def test_a_notice_asks_to_save_until_it_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "LOOK_EVERY_S", 0.0)
    notices = [False, True, True]
    asked = FileRequests(StopFile(tmp_path), lambda: notices.pop(0))
    assert [asked.poll(), asked.poll()] == [Request.NOTHING, Request.PREEMPT]
    asked.heed(Request.SAVE)  # of the clock, and so before the notice
    assert asked.poll() == Request.PREEMPT
    asked.heed(Request.PREEMPT)
    assert asked.poll() == Request.NOTHING


def test_a_notice_that_another_rank_heard_first_is_not_heeded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LOOK_EVERY_S", 0.0)
    asked = FileRequests(StopFile(tmp_path), lambda: True)
    asked.heed(Request.PREEMPT)
    assert asked.poll() == Request.NOTHING


def test_the_file_is_looked_for_once_a_second_at_most(tmp_path: Path) -> None:
    asked = FileRequests(StopFile(tmp_path), lambda: False)
    asked.poll()
    (tmp_path / "stop").touch()
    assert asked.poll() == Request.NOTHING


def test_nobody_asks_by_default() -> None:
    asked = Requests()
    with asked.heard():
        assert asked.poll() == Request.NOTHING


def test_a_stop_at_the_url_of_a_run_reaches_other_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "LOOK_THERE_EVERY_S", 0.0)
    monkeypatch.setattr(requests, "LOOK_EVERY_S", 0.0)
    url = (tmp_path / "there").as_uri()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, elsewhere = StopFile(tmp_path / "a", url), StopFile(tmp_path / "b", url)
    asked = FileRequests(elsewhere, lambda: False)
    assert asked.poll() == Request.NOTHING
    here.touch()
    assert asked.poll() == Request.STOP
    here.remove()
    assert asked.poll() == Request.NOTHING
