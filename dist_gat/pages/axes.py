"""`Axes`: where numbers lie in a picture, its grid, ticks and names. Pictures are inline SVG.

Colours are classes, k0 to k6, that the style sheet knows for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

# a picture is scaled to its column; so narrow, its text can be read on a phone
WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 24, 46
DIGIT = 7.5  # width of a character, about
NUM_TICKS = 6  # at most, and about half as many at least
NUM_COLORS = 7

Span = tuple[float, float]


@dataclass(frozen=True)
class Axes:
    """x_span, y_span: what the edges of the picture stand for; the names say what is measured, with its unit."""

    x_span: Span
    y_span: Span
    x_name: str = ""
    y_name: str = ""

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x_span[0]) / (self.x_span[1] - self.x_span[0])
        up = (y - self.y_span[0]) / (self.y_span[1] - self.y_span[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def frame(
        self, x_ticks: Mapping[float, str] | None = None, y_ticks: Mapping[float, str] | None = None
    ) -> list[Markup]:
        """Grid, ticks and names; ticks are round numbers by default."""
        shapes = []
        for y, label in (number_ticks(self.y_span) if y_ticks is None else y_ticks).items():
            at = self.place(self.x_span[0], y)[1]
            shapes.append(
                Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(
                    LEFT, at, WIDTH - RIGHT, at
                )
            )
            shapes.append(
                Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 6, at + 4, label)
            )  # fmt: skip
        for x, label in (number_ticks(self.x_span) if x_ticks is None else x_ticks).items():
            at = self.place(x, self.y_span[0])[0]
            # a long one at the edge would be cut off
            anchor = "end" if at + len(label) * DIGIT / 2 > WIDTH else "middle"
            shapes.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                    at if anchor == "middle" else WIDTH, HEIGHT - BOTTOM + 17, anchor, label
                )
            )
        names = ((self.y_name, 4, 14, "start"), (self.x_name, WIDTH - RIGHT, HEIGHT - 8, "end"))
        return shapes + [
            Markup('<text class="name" x="{}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, name)
            for name, x, y, anchor in names
            if name
        ]


def picture(shapes: Sequence[Markup], label: str, height: float = HEIGHT) -> Markup:
    """The SVG of some shapes; the label is what somebody hears who can't see it."""
    return Markup('<svg class="chart" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, Markup("").join(shapes)
    )


def legend(names: Sequence[str]) -> Markup:
    """What the colours of several series mean; nothing of one."""
    if len(names) < 2:
        return Markup("")
    entries = [
        Markup('<span><i class="k{}"></i>{}</span>').format(number % NUM_COLORS, name)
        for number, name in enumerate(names)
    ]
    return Markup('<div class="legend">{}</div>').format(Markup("").join(entries))


def number_ticks(span: Span) -> dict[float, str]:
    return {value: f"{value:,.6g}" for value in round_ticks(*span)}


def round_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within a range."""
    rough = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def span_of(values: Sequence[float]) -> Span:
    """The range of values; some room about a single one."""
    low, high = min(values), max(values)
    # a range that is tiny beside its numbers looks like a point
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) * 0.1 or 0.5
    return low - room, low + room
