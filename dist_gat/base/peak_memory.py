"""Peak memory of this process."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path


def reset_peak_memory() -> None:
    """Start a new peak. Where the system does not allow that, `peak_memory` still covers the whole process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        # glibc may keep what earlier work of this process has freed
        trim(0)
    with suppress(OSError):
        # proc(5): 5 sets the peak of the resident set to its present size
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Bytes of the largest resident set.

    Linux reports it in /proc for this process alone. `getrusage`, used elsewhere, also covers the process before it
    started its present program.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
