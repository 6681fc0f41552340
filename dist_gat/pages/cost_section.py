"""What did it cost? Time, memory, and where the time of a step went."""

from __future__ import annotations

import math
from typing import Any

from dist_gat.pages.bar_chart import Bar, bar_chart
from dist_gat.pages.chart import Curve
from dist_gat.pages.figures import duration, memory, percent, three_digits
from dist_gat.pages.run_files import number_in, text_in
from dist_gat.pages.wording import PHASES

# runs in the background, beside the others
BACKGROUND = "sample"


def cost_section(curves: dict[str, Curve], events: list[dict[str, Any]], comparison: Any) -> dict[str, Any]:
    """`rows`: a name and a text each; `shares`: a picture or None; `verdict`: the bottleneck."""
    shares = {
        tag.removeprefix("share/"): value
        for tag, curve in curves.items()
        if tag.startswith("share/") and (value := _mean(curve)) is not None
    }
    peak = next((n for e in reversed(events) if (n := number_in(e, "peak_memory_bytes")) is not None), None)
    peak = peak if peak is not None else number_in(comparison, "models", "recipe", "peak_memory_bytes")
    seeds, sent = _mean(curves.get("speed/seeds_per_s", [])), _mean(curves.get("speed/exchanged_bytes_per_step", []))
    workers = next((n for e in reversed(events) if (n := number_in(e, "workers")) is not None), None)
    validating = sum(number_in(event, "took") or 0.0 for event in events if event.get("event") == "valid")
    trained = training_seconds(events)
    rows = [
        ("Time of training", duration(trained) if trained else None),
        ("of which validations", duration(validating) if validating else None),
        ("Peak memory, all workers", memory(peak) if peak is not None else None),
        ("Workers", three_digits(workers) if workers else None),
        ("Speed", f"{three_digits(float(f'{seeds:.3g}'))} pairs a second" if seeds else None),
        ("Sent between workers", f"{memory(sent)} a step" if sent else None),
    ]
    profiled = [text_in(event, "message") for event in events if event.get("event") == "profile"]
    return {
        "rows": [(name, text) for name, text in rows if text],
        "verdict": verdict(shares),
        "shares": _chart(shares) if any(shares.values()) else None,
        "profiled": profiled[-1] if profiled else "",
    }


def training_seconds(events: list[dict[str, Any]]) -> float:
    """Over all attempts: the clock of each starts at 0 anew."""
    total = last = 0.0
    for event in events:
        if event.get("event") == "work":
            # evaluations tell of it too, on a clock of theirs
            continue
        if event.get("event") == "start":
            total, last = total + last, 0.0
        last = max(last, number_in(event, "seconds") or 0.0)
    return total + last


def verdict(shares: dict[str, float]) -> str:
    """The phase that the loop spends most in."""
    waited = {name: share for name, share in shares.items() if name != BACKGROUND}
    if not any(waited.values()):
        return ""
    first = max(waited, key=lambda name: waited[name])
    advice = " The model waits for its batches: raise sampling.num_streams." if first == "stall" else ""
    return f"The bottleneck: {PHASES.get(first, first).lower()}, {percent(waited[first])} of a step.{advice}"


def _chart(shares: dict[str, float]) -> Any:
    notes = {BACKGROUND: "in the background"}
    bars = [
        Bar(PHASES.get(name, name), 100 * share, notes.get(name, ""), kind="other" if name == BACKGROUND else "own")
        for name, share in sorted(shares.items(), key=lambda entry: -entry[1])
    ]
    return bar_chart(bars, "share of the step by phase", show=lambda share: percent(share / 100))


def _mean(curve: Curve) -> float | None:
    known = [value for _, value in curve if math.isfinite(value)]
    return sum(known) / len(known) if known else None
