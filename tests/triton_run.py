"""Where tests of Triton kernels run: on a GPU, or without one in a process where numpy executes the kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")


def triton_device() -> str:
    """Where the tensors of this process's kernels are; skips the test that asks where there is no such place."""
    if not HAS_TRITON:
        pytest.skip("Triton is not installed")
    if not INTERPRETED and not torch.cuda.is_available():
        pytest.skip("needs a GPU; the test of the interpreter runs it without one")
    return "cpu" if INTERPRETED else "cuda"


def run_in_interpreter(file: str) -> None:
    """All tests of a file once more, in the interpreter."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", "-rs", file]
    done = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
    assert "needs a GPU" not in done.stdout
