"""Peak memory sees what was freed again, and begins anew where it is reset."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dist_gat.base.peak_memory import peak_memory, reset_peak_memory
from dist_gat.launcher.host import keep_freed_memory

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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the peak is what the system tells")
def test_a_program_does_not_inherit_the_peak_of_its_starter() -> None:
    held = np.ones(BYTES // 8 * 5)
    code = "from dist_gat.base.peak_memory import peak_memory; print(peak_memory())"
    peak = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert 0 < peak < held.nbytes / 2
