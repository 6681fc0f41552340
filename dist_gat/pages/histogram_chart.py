"""`histogram_chart`: counts in bins of equal width, of one or two series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dist_gat.pages.axes import NUM_COLORS, Axes, Span, legend, picture
from dist_gat.pages.chart import NOTHING

MAX_BARS = 25


def histogram_chart(
    series: Mapping[str, Sequence[float]], span: Span, x_name: str, x_labels: Mapping[float, str] | None = None
) -> Markup:
    """Each series' counts by name, as shares of its own sum, in bins that cut `span` evenly.

    x_labels: ticks of the x axis, by their x; by default round numbers.
    """
    shares = {
        name: _merged([count / sum(counts) for count in counts]) for name, counts in series.items() if sum(counts)
    }
    if not shares:
        return NOTHING
    axes = Axes(span, (0.0, max(map(max, shares.values()))), x_name, "share of them")
    shapes = axes.frame(x_labels)
    for number, bars in enumerate(shares.values()):
        width = (span[1] - span[0]) / len(bars)
        for place, share in enumerate(bars):
            left, top = axes.place(span[0] + place * width, share)
            right, bottom = axes.place(span[0] + (place + 1) * width, 0.0)
            shapes.append(
                Markup('<rect class="k{} step" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    number % NUM_COLORS, left, top, right - left - 0.5, bottom - top
                )
            )
    return picture(shapes, f"{x_name}: {', '.join(shares)}") + legend(list(shares))


def _merged(shares: list[float]) -> list[float]:
    """As many neighbouring bins in one that `MAX_BARS` or fewer are left, where their number can be divided."""
    size = next((n for n in range(1, len(shares)) if len(shares) % n == 0 and len(shares) // n <= MAX_BARS), 1)
    return [sum(shares[start : start + size]) for start in range(0, len(shares), size)]
