"""`dist-gat predict`: a table of pairs in, the same rows with predictions out."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path, place
from dist_gat.config.sections import LaunchConfig
from dist_gat.launcher.preload import prepare_workers

SHOWN = 10  # rows on the terminal


class UnknownIds(str, Enum):
    """The choices of --unknown."""

    error = "error"
    null = "null"


def predict(
    model: Annotated[Path, typer.Argument(parser=place, help="a run folder, or the model folder in it")],
    pairs: Annotated[
        Path, typer.Argument(parser=path, help="a table with the columns user_id and item_id: .parquet, .csv or .tsv")
    ],
    output_file: Annotated[
        Path | None,
        typer.Option("--output", parser=path, help="where the table with a column prediction goes: of any size"),
    ] = None,
    unknown: Annotated[
        UnknownIds, typer.Option(help="a user or item that training never saw: an error, or no prediction")
    ] = UnknownIds.error,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes, with --output; default: 1, more for a large file")
    ] = None,
    verify: Annotated[bool, typer.Option(help="check the SHA-256 of all files first")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """Predict the rating, the probability or the expected count of given pairs, from the saved model alone.

    With --output, batch by batch in bounded memory; the output has its name only when it is whole.
    """
    with open_output(as_json) as output:
        prepare_workers(LaunchConfig(launcher="local", num_workers=workers or 1))
        # after the line above, so that its imports run beside these
        from dist_gat import api

        if output_file is None:
            table = api.predict(model, pairs, verify, output.progress, unknown=unknown.value)
            rows = [list(row) for row in table.head(SHOWN).rows()]
            shown = make_table("predictions", table.columns, rows)
            result = {"rows": len(table), "output": None, "predictions": table.to_dicts() if as_json else []}
            output.result(result, shown, notes=f"{len(table):,} predictions; --output FILE keeps them")
            return
        done = api.predict(
            model, pairs, verify, output.progress, unknown=unknown.value, output=output_file, workers=workers
        )
        without = f", {done['unknown']:,} of them without a prediction" if done["unknown"] else ""
        output.result(done, notes=f"{done['rows']:,} rows{without} in {output_file}, {done['seconds']:.1f} s")
