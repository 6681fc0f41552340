"""`dist-gat export`: a saved model as files that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path, place


def export(
    model: Annotated[
        Path, typer.Argument(parser=place, help="a run folder, the model folder in it, or the recipe of a run")
    ],
    output_folder: Annotated[Path, typer.Option("--output", parser=path, help="the folder that is written")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings of the recipe as key=value")] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="vectors, onnx, tower, index, projector, hub or publishable; may be repeated; default: vectors"
        ),
    ] = None,
    license: Annotated[str, typer.Option(help="hub: the model's licence, such as mit or cc-by-nc-4.0")] = "",
    verify: Annotated[bool, typer.Option("--verify", help="check the SHA-256 of every file first")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object")] = False,
) -> None:
    """Export vectors, ONNX graphs, an index, TensorBoard's projector or a folder for the Hugging Face Hub.

    vectors: parquet of users and items. onnx: exact top K. tower: the vector of a new user from what it has met. index:
    faiss. publishable: of a private run, what its promise covers. Each is checked against the model before the folder
    appears.
    """
    from dist_gat import api

    with open_output(as_json) as output:
        kinds = to or ["vectors"]
        done = api.export(model, output_folder, kinds, license, overrides or [], verify, output.progress)
        rows = [[kind, name, value] for kind in kinds for name, value in done[kind].items()]
        note = f"scores of these files leave out {done['left_out']}" if done["left_out"] else ""
        output.result(done, make_table(f"exported to {output_folder}", ["what", "of it", ""], rows), notes=note)
