"""The trace of some steps, and the bottleneck in words."""

from __future__ import annotations

import json
import re
from pathlib import Path

from faults.runs import events_of, small_run

from dist_gat import api
from dist_gat.train.profile import shares


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
