"""The trace of some steps, and the bottleneck in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults.runs import events_of, small_run

from dist_gat import api
from dist_gat.train.trace import bottleneck, shares


def test_a_profile_is_a_trace_of_the_steps_asked_for_and_one_line(tmp_path: Path) -> None:
    config = small_run(tmp_path, launch={"num_workers": 1}, train={"num_epochs": 2, "profile": 4})
    api.train(config)
    trace = json.loads((config.run_folder / "profile" / "rank-0.json").read_text())
    names = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    assert names.count("compute") == names.count("gather") == 4
    (event,) = events_of(config, "profile")
    assert re.match(
        r"bottleneck: (compute|stall|gather), \d+% of the loop \(.*\); most costly operators: \S+ \d+%",
        event["message"],
    )


def test_shares_are_sorted() -> None:
    assert shares({"a": 1.0, "b": 3.0}) == [("b", 0.75), ("a", 0.25)]
    assert shares({}) == []


@pytest.mark.parametrize(
    ("stall", "expected"),
    [
        (
            30.0,
            "bottleneck: stall, 75% of the loop (compute 25%); most costly operators: aten::mm 100%; "
            "the model waits for its batches: with sampling.prefetch, raise sampling.num_streams",
        ),
        (1.0, "bottleneck: compute, 91% of the loop (stall 9%); most costly operators: aten::mm 100%"),
    ],
)
def test_a_loop_that_waits_for_its_batches_is_told_what_to_do(stall: float, expected: str) -> None:
    def event(key: str, total: float, own: float) -> Any:
        return SimpleNamespace(key=key, cpu_time_total=total, self_cpu_time_total=own, self_device_time_total=0.0)

    events = [event("stall", stall, 0.0), event("compute", 10.0, 0.0), event("aten::mm", 9.0, 9.0)]
    recorder: Any = SimpleNamespace(key_averages=lambda: events)
    assert bottleneck(recorder) == expected
