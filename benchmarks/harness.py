"""What the benchmarks share: timing in turn, the machine's ceiling, peak memory, and the table of results."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch

from dist_gat.base.peak_memory import peak_memory, reset_peak_memory
from dist_gat.launcher.host import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD

OURS = "dist_gat"
SETTLE_S = 0.02  # for steps of milliseconds
Step = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One line of results.

    ratio: how many times better than the peer, the median over pairs measured one after the other. spread: the first
    and third quartile of those ratios. bar: what the ratio should reach. ceiling_share: the least time that the machine
    needs for the work, over our time; None where that is unknown or memory is measured.
    """

    line: str
    peer: str
    ratio: float
    bar: float
    ceiling_share: float | None
    spread: tuple[float, float]


def seconds_of(step: Step, device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call; on a GPU between two events, because a call returns before its kernels have run."""
    if device == "cpu":
        started = clock()
        step()
        return clock() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def seconds_in_turn(
    steps: Mapping[str, Step],
    repeats: int,
    warmup: int = 3,
    device: str = "cpu",
    settle_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every step, each timed once a round, so that other work on the machine hits all of them alike.

    Each round shuffles the order, because a step that follows a peer in another process finds cold caches.

    settle_s: seconds of untimed calls before each timed one. Steps of milliseconds need them, because a turn starts
    unlike any training: threads of a peer with OpenMP's defaults spin on for milliseconds, and on a virtual machine
    Linux wakes a sleeping thread on the core of its waker and moves it to the idle core some 4 ms later.

    clock: of the CPU; `time.process_time` counts this process's work alone, where others use the machine.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    shuffle = random.Random(0).shuffle
    for round_number in range(warmup + repeats):
        order = list(steps.items())
        shuffle(order)
        for name, step in order:
            settled = time.perf_counter() + settle_s
            while time.perf_counter() < settled:
                step()
            taken = seconds_of(step, device, clock)
            if round_number >= warmup:
                seconds[name].append(taken)
    return seconds


def compare(line: str, seconds: Mapping[str, Sequence[float]], bar: float, least_seconds: float | None) -> list[Line]:
    """A line for every peer in `seconds`; `least_seconds` is the time of the machine's ceiling, where that is known."""
    ours = seconds[OURS]
    lines = []
    for peer in seconds:
        if peer != OURS:
            ratios = [theirs / own for theirs, own in zip(seconds[peer], ours, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            share = None if least_seconds is None else least_seconds / statistics.median(ours)
            lines.append(Line(line, peer, middle, bar, share, (low, high)))
    return lines


def copy_bandwidth(num_bytes: int = 1 << 28, repeats: int = 9, device: str = "cpu") -> float:
    """Bytes read and written a second by a copy that no cache holds, the best of some; torch's threads."""
    source, target = (torch.ones(num_bytes, dtype=torch.uint8, device=device) for _ in range(2))
    best = min(seconds_in_turn({"copy": lambda: target.copy_(source)}, repeats, device=device)["copy"])
    return 2 * num_bytes / best


def product_rate(size: int = 2048, repeats: int = 9) -> float:
    """Operations a second of a large float32 matrix product, the best of some; torch's threads."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds_in_turn({"product": lambda: left @ right}, repeats)["product"])


def peak_extra_bytes(step: Step, warmup: int = 3) -> int:
    """How far the resident memory of this process rises during one step, as the kernel counts it.

    For a process of its own: from here on every block of 64 KiB or more is a mapping that the allocator returns
    when it is freed, so that the peak is what is alive at once, whichever library allocated it.
    """
    libc = ctypes.CDLL(None)
    for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        libc.mallopt(option, 1 << 16)
    for _ in range(warmup):
        step()
    gc.collect()
    before = start_peak()
    step()
    return peak_memory() - before


def peak_extra_gpu_bytes(step: Step, warmup: int = 3) -> int:
    """How far the GPU memory that torch has allocated rises during one step, in bytes."""
    for _ in range(warmup):
        step()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def start_peak() -> int:
    """Reset the `peak_memory` of this process; returns its resident bytes now."""
    reset_peak_memory()
    return resident_bytes()


def resident_bytes() -> int:
    """Resident bytes of this process now."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def memory_of(pid: int, kinds: Sequence[str]) -> int:
    """Bytes of a process and its children."""
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.partition(":")[0] in kinds)
    except (psutil.NoSuchProcess, OSError):
        pass
    return total


def new_parser(text: str | None, repeats: int, on_graph: bool = True) -> argparse.ArgumentParser:
    """The options that all benchmarks have; those on the standard graph can change its size."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    if on_graph:
        parser.add_argument("--nodes", type=int, default=1_000_000)
        parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser


def run_alone(module: str, *arguments: object) -> list[str]:
    """The words of the last line that `python -m module arguments` prints: a measurement in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1].split()


def compare_peaks(line: str, peaks: Mapping[str, float], bar: float) -> Line:
    """A line for the peak extra bytes of ours and of one peer; also prints both."""
    print(", ".join(f"{name}: {value / 1e6:,.1f} MB at its peak" for name, value in peaks.items()))
    (peer,) = peaks.keys() - {OURS}
    ratio = peaks[peer] / peaks[OURS]
    return Line(line, peer, ratio, bar, None, (ratio, ratio))


def report(lines: Sequence[Line], path: Path | None) -> None:
    """Print the table, and write it where a file was asked for."""
    print_table(lines)
    if path is not None:
        save_lines(lines, path)


def print_table(lines: Sequence[Line]) -> None:
    print(f"{'line':34} {'peer':18} {'ratio':>6} {'bar':>5} {'quartiles':>13} {'ceiling':>8}")
    for x in lines:
        share = "" if x.ceiling_share is None else f"{100 * x.ceiling_share:.0f} %"
        print(f"{x.line:34} {x.peer:18} {x.ratio:6.2f} {x.bar:5.1f} {x.spread[0]:6.2f}-{x.spread[1]:<6.2f} {share:>8}")


def save_lines(lines: Sequence[Line], path: Path) -> None:
    path.write_text(json.dumps([asdict(x) for x in lines], indent=1) + "\n")
