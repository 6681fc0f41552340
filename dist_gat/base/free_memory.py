"""How much memory is free for this process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# where the system does not tell
UNKNOWN_BYTES = 4 << 30
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory() -> int:
    """Bytes that are free or can be freed at once, in this host and in the container's limit, if it has one."""
    found = []
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for limit, used in LIMITS:
        # "max", where there is no limit, is no number
        with suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(min(found, default=UNKNOWN_BYTES), 1 << 28)
