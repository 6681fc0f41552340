"""`dist-gat recipes`: the recipes and cluster files that come with dist_gat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dist_gat.base.shipped_files import about, copy_shipped, find_shipped, shipped_files
from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path


def recipes(
    name: Annotated[str | None, typer.Argument(help="one of them, to be shown or copied; default: list all")] = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", parser=path, help="the file that NAME is copied to; default: print it")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """List the recipes, search spaces and cluster files that come with dist-gat, show one, or copy it."""
    with open_output(as_json) as output:
        if name is None:
            if output_file is not None:
                raise typer.BadParameter("--output: goes with the name of a recipe")
            listed = {each: about(file) for each, file in shipped_files().items()}
            rows = [[each, what] for each, what in listed.items()]
            note = "next: dist-gat recipes NAME --output configs/NAME.yaml"
            output.result(
                {"recipes": listed}, make_table("recipes and cluster files", ["name", "what"], rows), notes=note
            )
        elif output_file is None:
            text = find_shipped(name).read_text(encoding="utf-8")
            output.result({"name": name, "text": text}, notes=text.rstrip("\n"))
        else:
            copy_shipped(name, output_file, force)
            output.result({"name": name, "file": str(output_file)}, notes=f"{name} is in {output_file}")
