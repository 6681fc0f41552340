"""Numbers for people."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dist_gat.pages.figures import duration, memory, percent, three_digits, with_error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"), (0.3, "0.300"), (12.345, "12.3"), (1234.5, "1,230"), (0.99999, "1.000"),
        (-0.05678, "-0.0568"), (0.000123, "0.000123"), (0.0000123, "1.23e-05"), (7, "7"), (50796.0, "50,796"),
        (0, "0"), (1e20, "1.00e+20"), (math.nan, "–"), (math.inf, "–"), (None, "–"), ("a", "–"), (True, "–"),
    ],
)  # fmt: skip
def test_three_digits(value: Any, text: str) -> None:
    assert three_digits(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.37, 0.0096, "0.370 ± 0.010"), (0.9, 0.0004, "0.9000 ± 0.0004"), (123.4, 20.0, "123 ± 20"),
        (1428.7, 308.0, "1,430 ± 310"),
        (0.37, None, "0.370"), (0.37, math.nan, "0.370"), (0.37, 0.0, "0.370"), (None, 0.1, "–"),
        (0.5, 1e-12, "0.500"),
    ],
)  # fmt: skip
def test_a_number_and_its_error_have_the_same_decimals(value: Any, error: Any, text: str) -> None:
    assert with_error(value, error).replace("\N{NO-BREAK SPACE}", " ") == text


def test_units() -> None:
    found = [memory(n) for n in (512, 785_600_000, 3.2e9, 5e15)]
    assert found == ["512 bytes", "786 MB", "3.20 GB", "5,000 TB"]
    found = [duration(s) for s in (5.904, 119, 600, 9000, 1e8)]
    assert found == ["5.90 s", "119 s", "10 min", "2 h 30 min", "1,157 days"]
    assert [percent(s) for s in (0, 0.008, 0.0996, 0.82, 1)] == ["0%", "0.8%", "10%", "82%", "100%"]
