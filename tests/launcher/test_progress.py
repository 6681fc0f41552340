"""What long work says of itself."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dist_gat.launcher import progress
from dist_gat.launcher.progress import _Bar, _Lines, tell_lines, work_in_words


@pytest.mark.parametrize(
    ("done", "total", "seconds", "expected"),
    [
        (10, 40, 20.0, "ranking: 10 of 40, 0.50 a second, 60 s left"),
        (3000, 90_000, 100.0, "ranking: 3,000 of 90,000, 30 a second, 48 min left"),
        (1, 1000, 60.0, "ranking: 1 of 1,000, 0.02 a second, 16.6 h left"),
        (4, 4, 2.0, "ranking: 4 of 4, 2.00 a second, 0 s left"),
    ],
)
def test_words_say_the_rate_and_what_is_left(done: int, total: int, seconds: float, expected: str) -> None:
    assert work_in_words("ranking", done, total, seconds) == expected


def test_lines_come_every_few_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [100.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tell = tell_lines(said.append)
    for second in range(25):
        now[0] = 100.0 + second
        tell("ranking", second, 100, float(second))
    assert [line.split(" of ")[0] for line in said] == ["ranking: 0", "ranking: 10", "ranking: 20"]


@pytest.mark.parametrize("view", [_Lines, _Bar])
def test_views_show_work_and_whose_metric_it_is(view: type[_Lines]) -> None:
    console = Console(file=io.StringIO(), width=120)
    shown = view(console)
    shown.show({"event": "work", "what": "ranking of valid", "done": 5, "total": 10, "took": 4.0})
    valid = {"event": "valid", "epoch": 2, "best": True, "metric": "ndcg@20", "value": 0.25, "took": 1.0}
    shown.show({**valid, "sample": " of 90 sampled users"})
    shown.show(valid)
    shown.show({"event": "text", "step": 3, "staleness": 0.01234, "kept_since_epoch": 1, "took": 1.0})
    shown.close()
    told = console.file.getvalue()
    assert "epoch 2: valid ndcg@20 0.2500 of 90 sampled users, best so far" in told
    assert "epoch 2: valid ndcg@20 0.2500, best so far" in told
    assert "texts encoded: vectors were stale by 0.0123 (1 - cos)" in told
    if view is _Lines:
        assert "ranking of valid: 5 of 10, 1.25 a second, 4 s left" in told


def test_nothing_is_shown_when_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = tmp_path / "progress.jsonl"
    with progress.show_progress(events, quiet=True):
        events.write_text(json.dumps({"event": "work", "what": "x", "done": 1, "total": 2, "took": 3.0}) + "\n")
    assert capsys.readouterr() == ("", "")
