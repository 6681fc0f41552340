"""The most memory that this process held at a time."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path


def reset_peak_memory() -> None:
    """Let the peak begin anew; where the system does not allow it, it stays that of the process so far."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        # glibc may keep what earlier work of this process has freed
        trim(0)
    with suppress(OSError):
        # proc(5): 5 sets the peak of the resident set to its present size
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Bytes of the largest resident set.

    Linux tells it for the memory of this process alone. What `getrusage` tells goes on, after a start of another
    program, with the peak of the process that started it.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
