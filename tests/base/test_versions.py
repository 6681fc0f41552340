"""Versions of what a run is made with."""

from __future__ import annotations

import sys

import pytest
import torch

from dist_gat.base import versions


def test_versions_are_those_that_run() -> None:
    found = versions.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"] == torch.__version__
    assert "dist_gat" in found


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PACKAGES", ("numpy", "no-such-package"))
    assert set(versions.versions()) == {"python", "numpy"}
