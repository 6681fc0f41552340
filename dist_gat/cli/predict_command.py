"""`dist-gat predict`: a table of pairs in, the same rows with predictions out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dist_gat.cli.output import make_table, open_output

SHOWN = 10  # rows on the terminal


def predict(
    model: Annotated[Path, typer.Argument(help="a run folder, or the model folder in it")],
    pairs: Annotated[Path, typer.Argument(help="a table with the columns user_id and item_id: .parquet or .csv")],
    output_file: Annotated[
        Path | None, typer.Option("--output", help="where the table with a column prediction goes: .parquet or .csv")
    ] = None,
    verify: Annotated[bool, typer.Option(help="check the SHA-256 of all files first")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """Predict the rating, the probability or the expected count of given pairs, from the saved model alone."""
    from dist_gat import api

    with open_output(as_json) as output:
        table = api.predict(model, pairs, verify, output.progress)
        if output_file is not None:
            table.write_parquet(output_file) if output_file.suffix == ".parquet" else table.write_csv(output_file)
        note = f"{len(table):,} predictions" + (f" in {output_file}" if output_file else "")
        result: dict[str, Any] = {"rows": len(table), "output": str(output_file) if output_file else None}
        if output_file is None:
            result["predictions"] = table.to_dicts()
        rows = [list(row) for row in table.head(SHOWN).rows()]
        output.result(result, make_table("predictions", table.columns, rows), notes=note)
