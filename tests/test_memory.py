"""Peak memory sees what was freed again, and begins anew where it is reset."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dist_gat.launcher.host import keep_freed_memory
from dist_gat.memory import peak_memory, reset_peak_memory

BYTES = 200_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the reset is Linux's")
def test_the_peak_is_what_was_held_since_the_reset() -> None:
    """Also where the allocator keeps what was freed, as it does in a worker."""
    keep_freed_memory()
    reset_peak_memory()
    before = peak_memory()
    np.ones(BYTES // 8).sum()
    assert BYTES * 0.9 < peak_memory() - before < BYTES * 1.5
    reset_peak_memory()
    assert peak_memory() < before + BYTES / 2
