"""`dist-gat encode`: texts or images to vectors."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.output import STOPPED, open_output
from dist_gat.cli.paths import path
from dist_gat.config.section import expand
from dist_gat.config.text_section import TextEncoderConfig


class Device(str, Enum):
    """The choices of --device."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Store(str, Enum):
    """The choices of --store."""

    float32 = "float32"
    float16 = "float16"


def encode(
    source: Annotated[Path, typer.Argument(parser=path, help="a table with texts, or with --images a folder of them")],
    encoder: Annotated[
        str, typer.Option(help="a model's folder, its name in the hub, or package:NAME/FOLDER of a Python package")
    ],
    output_file: Annotated[
        Path, typer.Option("--output", parser=path, help="vectors.npy, or .parquet: the table with a column `vector`")
    ],
    column: Annotated[str | None, typer.Option(help="of texts; with --images of file names beside the table")] = None,
    images: Annotated[bool, typer.Option("--images", help="encode images, with a model such as CLIP")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="that are read of a text, at most")] = 128,
    prompt: Annotated[
        str | None, typer.Option(help="stands before every text; default: what the model asks for")
    ] = None,
    store: Annotated[Store, typer.Option(help="numbers of the cache")] = Store.float32,
    device: Annotated[Device, typer.Option(help="auto takes a GPU where there is one")] = Device.auto,
    cache: Annotated[Path, typer.Option(parser=path, help="folder of vectors that were made before")] = Path(
        "data/vectors"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """Encode texts or images with a pre-trained model, each content once.

    What was made is kept in --cache: the same command goes on where it was stopped (exit code 143) or killed, and takes
    seconds where nothing is new.
    """
    from dist_gat.exchange.long_work import Stopped
    from dist_gat.launcher.stop_signals import SignalRequests
    from dist_gat.workflows.encode_file import encode_file

    with open_output(as_json) as output:
        config = TextEncoderConfig(
            encoder=_expanded(encoder), max_tokens=max_tokens, prompt=prompt, store=store.value, device=device.value
        )
        requests = SignalRequests()
        try:
            with requests.heard():
                done = encode_file(source, column, config, output_file, cache, images, output.progress, requests)
        except Stopped:
            note = f"stopped; what was encoded is kept in {cache}, and the same command goes on"
            output.result({"stopped": True}, notes=note)
            raise typer.Exit(STOPPED) from None
        without = f", {done['without_vector']:,} of them without a vector" if done["without_vector"] else ""
        notes = (
            f"{done['rows']:,} rows{without}, {done['size']} numbers each, in {output_file}; {done['seconds']:.1f} s"
        )
        output.result({**done, "stopped": False}, notes=notes)


def _expanded(name: str) -> str:
    try:
        return expand(name)
    except ValueError as err:
        raise typer.BadParameter(str(err)) from None
