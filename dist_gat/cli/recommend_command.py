"""`dist-gat recommend`: the best new items of some users, or of all, from a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dist_gat.base.errors import ConfigError
from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path, place


def recommend(
    model: Annotated[
        Path, typer.Argument(parser=place, help="a run folder, the model folder in it, or the recipe of a run")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings of the recipe as key=value")] = None,
    user: Annotated[list[str] | None, typer.Option(help="a user's ID as in the input; may be repeated")] = None,
    users: Annotated[
        Path | None, typer.Option(parser=path, help="a file of IDs: one a line, or a table with a column user_id")
    ] = None,
    new_users: Annotated[
        Path | None,
        typer.Option(
            "--new-users",
            parser=path,
            help='users whom training never saw: lines of {"user": "x", "items": ["a"], "columns": {}}, or a table',
        ),
    ] = None,
    new_items: Annotated[
        Path | None,
        typer.Option(
            "--new-items",
            parser=path,
            help='candidates that training never saw: lines of {"item": "x", "columns": {"year": 2024}}, or a table',
        ),
    ] = None,
    new_edges: Annotated[
        list[str] | None,
        typer.Option(
            "--new-edges",
            help="RELATION=FILE, edges of the new items, in the form of the relation's own table; may be repeated",
        ),
    ] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="everybody whom the model knows")] = False,
    output_file: Annotated[
        Path | None, typer.Option("--output", parser=path, help="where the table goes: .parquet, .csv or .tsv")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(parser=path, help="the key file of a model with pseudonyms: IDs are those of the tables then"),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="items a user")] = 10,
    verify: Annotated[bool, typer.Option("--verify", help="check the SHA-256 of every file first")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object")] = False,
) -> None:
    """Recommend the best new items, from the saved model alone.

    With --output, of --users or --all-users, a table with the columns user_id, item_id, score and rank, in bounded
    memory.
    """
    from dist_gat import api

    if bool(user) + (users is not None) + (new_users is not None) + all_users != 1:
        raise ConfigError("give one of --user ID, --users FILE, --new-users FILE and --all-users")
    if all_users and output_file is None or (user or new_users) and output_file is not None:
        raise ConfigError("--output TABLE goes with --all-users, and with --users FILE; --user and --new-users print")
    if key is not None and (output_file is not None or new_users is not None):
        raise ConfigError("--key goes with --user ID and --users FILE; a table has pseudonyms")
    edges = tables_by_relation(new_edges or [])
    with open_output(as_json) as output:
        if output_file is not None:
            done = api.recommend_to(
                model, output_file, users, k, overrides or [], verify, output.progress, new_items, edges
            )
            left = done["met_everything"]
            others = f"; {left:,} users have met every item, so there is nothing to recommend to them" if left else ""
            told = f"{done['rows']:,} rows of {done['users']:,} users in {output_file}, {done['seconds']:.1f} s{others}"
            output.result(done, notes=told)
            return
        if new_users is not None:
            table = api.recommend(
                model, (), k, verify, output.progress, overrides or [], new_users, new_items, None, edges
            )
            shown = make_table("recommendations", table.columns, [list(row) for row in table.rows()])
            output.result({"recommendations": table.to_dicts()}, shown)
            return
        asked = user or ([] if users is None else [str(one) for one in api.read_users(users)])
        table = api.recommend(model, asked, k, verify, output.progress, overrides or [], None, new_items, key, edges)
        found = {str(one) for one in table["user_id"]}
        without = [one for one in asked if one not in found]
        output.result(
            {"recommendations": table.to_dicts(), "met_everything": without},
            make_table("recommendations", table.columns, [list(row) for row in table.rows()]),
            notes="\n".join(f"user {one} has met every item: there is nothing to recommend" for one in without),
        )


def tables_by_relation(given: list[str]) -> dict[str, Path]:
    """Of RELATION=FILE. Raises `ConfigError`."""
    found: dict[str, Path] = {}
    for one in given:
        relation, equals, file = one.partition("=")
        if not relation or not file or relation in found:
            raise ConfigError(f"--new-edges {one}: expected RELATION=FILE, as tags=new_tags.csv, each relation once")
        found[relation] = path(file)
    return found
