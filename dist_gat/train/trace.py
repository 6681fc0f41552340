"""`Trace`: some steps of a run as a trace that Perfetto opens, and the step's bottleneck in one line."""

from __future__ import annotations

from pathlib import Path

from torch.profiler import profile, supported_activities

from dist_gat.train.stopwatch import PHASES

WARM_UP = 5
TOP = 4
ADVICE = {"stall": "the model waits for its batches: with sampling.prefetch, raise sampling.num_streams"}


class Trace:
    """Records the steps after the first few of this process, on one rank, and then is done.

    num_steps: how many; none with 0. The trace goes to `folder/rank-R.json`.
    """

    def __init__(self, folder: Path, rank: int, num_steps: int) -> None:
        self.path = folder / f"rank-{rank}.json"
        self.steps = range(WARM_UP, WARM_UP + num_steps)
        self.seen = 0
        self.recorder: profile | None = None

    def step(self) -> str | None:
        """Call before each step; returns the bottleneck in one line once the last step was recorded."""
        found = None
        if self.seen == self.steps.start and self.steps:
            self.recorder = profile(activities=supported_activities())
            self.recorder.start()
        elif self.seen == self.steps.stop and self.recorder is not None:
            self.recorder.stop()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.recorder.export_chrome_trace(str(self.path))
            found = bottleneck(self.recorder)
            self.recorder = None
        self.seen += 1
        return found


def bottleneck(recorder: profile) -> str:
    """The phase in which the loop spends most, with its share, the other phases, and the operators that cost most.

    Ends with advice, where there is some for the phase.
    """
    averages = recorder.key_averages()
    phases = {event.key: event.cpu_time_total for event in averages if event.key in PHASES}
    operators = {event.key: event.self_cpu_time_total + event.self_device_time_total for event in averages}
    costly = [f"{name} {share:.0%}" for name, share in shares(operators) if name not in PHASES][:TOP]
    (first, share), *rest = shares(phases)
    others = ", ".join(f"{name} {value:.0%}" for name, value in rest)
    found = f"bottleneck: {first}, {share:.0%} of the loop ({others}); most costly operators: {', '.join(costly)}"
    return f"{found}; {ADVICE[first]}" if first in ADVICE else found


def shares(times: dict[str, float]) -> list[tuple[str, float]]:
    """Each name's share of the sum, the largest first."""
    total = sum(times.values()) or 1.0
    return sorted(((name, value / total) for name, value in times.items()), key=lambda item: -item[1])
