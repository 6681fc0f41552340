"""The texts by which `make guards` takes guards out are there, so that a change of the source can't hide one."""

from __future__ import annotations

import pytest
from faults.guards import GUARDS, SOURCE, Guard


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: f"{guard.row}: {guard.what}")
def test_the_text_of_a_guard_stands_once_in_its_file(guard: Guard) -> None:
    for file, text, instead in guard.edits:
        assert (SOURCE / file).read_text(encoding="utf-8").count(text) == 1, f"{file}: {text}"
        assert instead != text
