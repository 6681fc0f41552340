"""`dist-gat inspect`: what is in a prepared folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dist_gat.base.plural import plural
from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import place

MAX_PARTS = 16  # on the terminal


def inspect(
    prepared: Annotated[Path, typer.Argument(parser=place, help="the folder that `prepare` wrote, or its URL")],
    html: Annotated[Path | None, typer.Option(help="write a page with pictures to this file")] = None,
    verify: Annotated[bool, typer.Option(help="check the SHA-256 of all files first")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """Show what is in a prepared folder: counts, degrees, cold and isolated nodes, labels, times, parts."""
    from dist_gat import api
    from dist_gat.pages.inspection_page import bin_name, count_rows, remarks

    with open_output(as_json) as output:
        found = api.inspect(prepared, html, verify, output.progress)
        labels = [
            [f"{name} of {relation}", f"mean {label['mean']:.4g}, from {label['min']:.4g} to {label['max']:.4g}"]
            for relation, known in found["labels"].items()
            for name, label in known.items()
        ]
        counts = [list(row) for row in count_rows(found)]
        output.result(
            found,
            make_table(f"prepared {found['name']}", ["what", "how many"], counts + labels),
            make_table("look at twice", ["what", "found"], [list(row) for row in remarks(found)] or [["nothing", ""]]),
            make_table(*_degrees(found["degrees"], bin_name)),
            make_table(*_parts(found)),
            notes=f"pictures in {html}" if html else "--html FILE writes a page with pictures",
        )


def _degrees(degrees: dict[str, Any], bin_name: Any) -> tuple[str, list[str], list[list[Any]]]:
    """Title, columns and rows."""
    longest = max((of_kind["histogram"] for of_kind in degrees.values()), key=len)
    counts = [[row["nodes"] for row in of_kind["histogram"]] for of_kind in degrees.values()]
    rows = [
        [bin_name(row), *(of_kind[number] if number < len(of_kind) else 0 for of_kind in counts)]
        for number, row in enumerate(longest)
    ]
    return "messages a node", ["messages", *(plural(kind) for kind in degrees)], rows


def _parts(found: dict[str, Any]) -> tuple[str, list[str], list[list[Any]]]:
    kinds = list(found["num_nodes"])
    rows = [
        [part["part"], *part["nodes"].values(), part["pairs"]["train"], part["messages"],
         "" if part["remote"] is None else f"{part['remote']:.1%}"]
        for part in found["parts"][:MAX_PARTS]
    ]  # fmt: skip
    partition = found["partition"] or {"method": "an unknown method", "edge_cut": float("nan")}
    shown = f", the first {MAX_PARTS}" if len(found["parts"]) > MAX_PARTS else ""
    title = f"{len(found['parts'])} parts by {partition['method']}, edge cut {partition['edge_cut']:.1%}{shown}"
    return title, ["part", *(plural(kind) for kind in kinds), "training pairs", "messages", "remote"], rows
