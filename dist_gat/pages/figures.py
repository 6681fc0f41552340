"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Any

UNDEFINED = "–"
MAX_DECIMALS = 6  # of a number with an error


def three_digits(value: Any) -> str:
    """Three significant digits; whole numbers in full, with commas. A dash for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNDEFINED
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    size = math.floor(math.log10(abs(value)))
    if not -4 <= size < 15:
        return f"{value:.2e}"
    return f"{round(value, 2 - size):,.{max(2 - size, 0)}f}"


def with_error(value: Any, error: Any) -> str:
    """A number ± its error, with the same decimals: three digits of the number, and one of the error at least."""
    known = [isinstance(number, int | float) and math.isfinite(number) for number in (value, error)]
    if not all(known) or not value or not error:
        return three_digits(value)
    decimals = max(2 - math.floor(math.log10(abs(value))), -math.floor(math.log10(abs(error))))
    if decimals > MAX_DECIMALS:
        return three_digits(value)
    whole, rest = (f"{round(number, decimals):,.{max(decimals, 0)}f}" for number in (value, error))
    # a narrow column may break the line before ±
    return f"{whole} ±\N{NO-BREAK SPACE}{rest}"


def memory(num_bytes: float) -> str:
    """In the decimal unit that leaves one to three digits before the point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{three_digits(num_bytes)} {unit}"
        num_bytes /= 1000
    return f"{three_digits(num_bytes)} TB"


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, hours below a week, else days."""
    if seconds < 120:
        return f"{three_digits(seconds)} s"
    if seconds >= 7 * 86400:
        return f"{seconds / 86400:,.0f} days"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def percent(share: float) -> str:
    """A share of 1, whole; with one digit below 10%."""
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"
