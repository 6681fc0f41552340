"""`dist-gat init`: a recipe for a table, with comments."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path


class Field(str, Enum):
    """The choices of --for."""

    shop = "shop"
    social = "social"
    music = "music"
    video = "video"
    news = "news"


def init(
    tables: Annotated[
        list[str],
        typer.Argument(help="a table of interactions, or several of its files: .parquet, .csv, .tsv, .jsonl, ..."),
    ],
    field: Annotated[Field, typer.Option("--for", help="what the interactions are of; picks defaults")],
    output_file: Annotated[
        Path | None, typer.Option("--output", parser=path, help="where the recipe goes; default: configs/NAME.yaml")
    ] = None,
    user: Annotated[str | None, typer.Option(help="the column of users, instead of a guess")] = None,
    item: Annotated[str | None, typer.Option(help="the column of items")] = None,
    label: Annotated[str | None, typer.Option(help="the column of ratings, clicks or counts, or none")] = None,
    time: Annotated[str | None, typer.Option(help="the column of times, or none")] = None,
    header: Annotated[
        str | None, typer.Option(help="names of all columns, with commas, of a file without a line of names")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """Guess what the columns of a table are, and write a recipe for it that runs, with comments."""
    from dist_gat import api

    named = {"user": user, "item": item, "label": label, "time": time}
    given = {role: column for role, column in named.items() if column is not None}
    with open_output(as_json) as output:
        names = header.split(",") if header else []
        result = api.write_first_recipe(
            field.value, [str(path(table)) for table in tables], output_file, given, force, names
        )
        rows = [[guess["what"], guess["guess"], guess["why"]] for guess in result["guesses"]]
        output.result(
            result,
            make_table("guesses", ["what", "guess", "why"], rows),
            notes=f"written to {result['recipe']}; look it over. Another column: --user, --item, --label, --time NAME; "
            f"again with --force\nnext: dist-gat fit {result['recipe']}",
        )
