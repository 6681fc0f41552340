"""What a run says of hosts that come and go, look by look."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from dist_gat.launcher.host_watch import PATIENT_LOOKS, HostWatch
from dist_gat.launcher.ray import has_events
from dist_gat.train.event_log import PROGRESS_FILE, EventLog


def told(*looks: Mapping[str, int], wanted: int = 2) -> list[list[str]]:
    """What each look says."""
    said: list[str] = []
    found: list[list[str]] = []
    waiting = iter(looks)
    watch = HostWatch(lambda: next(waiting), wanted, said.append, clock=lambda: "12:00:00")
    for _ in looks:
        watch.look()
        found.append([*said])
        said.clear()
    return found


def test_a_host_that_is_lost_and_replaced_is_told_once_each() -> None:
    both, one, other = {"a": 1, "b": 1}, {"a": 1}, {"a": 1, "c": 1}
    assert told(both, both, one, one, other, other) == [
        [],
        [],
        ["12:00:00: lost host b", "12:00:00: waiting for room: 2 workers wanted, room for 1"],
        [],
        ["12:00:00: host c joined, with room for 1 worker", "12:00:00: there is room for 2 workers again"],
        [],
    ]


def test_a_run_that_begins_without_room_says_so() -> None:
    assert told({"a": 1}, {"a": 1}, {"a": 4}) == [
        ["12:00:00: waiting for room: 2 workers wanted, room for 1"],
        [],
        ["12:00:00: there is room for 2 workers again"],
    ]


def test_hosts_that_a_run_does_not_need_are_told_too() -> None:
    assert told({"a": 4, "b": 1}, {"a": 4}) == [[], ["12:00:00: lost host b"]]


def test_a_look_that_fails_is_passed_over() -> None:
    done, said = threading.Event(), []

    def gone() -> Mapping[str, int]:
        done.set()
        raise ConnectionError("the cluster is gone")

    HostWatch(gone, 1, said.append).until(done)
    assert not said


def test_workers_that_have_room_and_do_not_begin_are_told_once_and_not_while_they_wait_for_room() -> None:
    said, begun = list[str](), list[bool]()
    room = {"a": 1}
    watch = HostWatch(lambda: room, 2, said.append, lambda: bool(begun), clock=lambda: "12:00:00")
    for _ in range(3 * PATIENT_LOOKS):
        watch.look()
    assert said == ["12:00:00: waiting for room: 2 workers wanted, room for 1"]
    room["b"] = 1
    for _ in range(3 * PATIENT_LOOKS):
        watch.look()
    *_, last = told_then = list(said)
    assert len(told_then) == 4
    assert last.startswith("12:00:00: there is room for 2 workers, but for 90 s they have not begun; Ray goes on")
    early = HostWatch(lambda: room, 2, said.append, lambda: True)
    for _ in range(3 * PATIENT_LOOKS):
        early.look()
    assert said == told_then


def test_only_what_workers_add_to_the_events_of_a_run_is_a_beginning(tmp_path: Path) -> None:
    with EventLog(tmp_path, rank=0) as log:
        log.event("step", step=1)
        path = tmp_path / PROGRESS_FILE
        before = path.stat().st_size
        assert not has_events(path, before)
        log.event("told", message="waiting")
        assert not has_events(path, before)
        log.event("step", step=2)
        assert has_events(path, before)
