"""What a run says of hosts that come and go, look by look."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from dist_gat.launcher.host_watch import HostWatch


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
