"""`dist-gat prepare`: tables to parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dist_gat.base.plural import plural
from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path
from dist_gat.config.files import load_config
from dist_gat.config.task_sections import FIRST_RELATION

UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}


def prepare(
    config: Annotated[Path, typer.Argument(parser=path, help="a recipe, for example configs/ml-100k.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings as key=value, for example parts.num_parts=8")
    ] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="drop and count bad rows instead of stopping")] = False,
    pseudonymize: Annotated[
        Path | None,
        typer.Option(parser=path, metavar="KEYFILE", help="IDs become keyed hashes; a new key where there is no file"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the result as one JSON object, and nothing else")
    ] = False,
) -> None:
    """Read interactions, split them, assign nodes to parts and write checksummed shards."""
    from dist_gat import api
    from dist_gat.data.column_layout import Column
    from dist_gat.graph.inspection import columns_in_words, describe_columns, repeated_in_words

    extra = ["data.skip_bad_rows=true"] if skip_bad_rows else []
    with open_output(as_json) as output:
        settings = load_config(config, [*(overrides or []), *extra])
        report = api.prepare(settings, output.progress, pseudonymize=pseudonymize)
        report["prepared"] = settings.data.prepared
        partition, nodes = report["partition"], report["num_nodes"]
        layouts = {kind: tuple(Column(**fields) for fields in of_type) for kind, of_type in report["columns"].items()}
        edges = {
            f"{split} {'interactions' if relation == FIRST_RELATION else relation}": sum(counts)
            for relation, splits in report["split_counts"].items()
            for split, counts in splits.items()
            if relation == FIRST_RELATION or sum(counts)
        }
        without_pairs = {name: count for name, count in report["edges"].items() if name not in report["split_counts"]}
        rows: list[list[Any]] = [
            *[[plural(kind), f"{count:,}"] for kind, count in nodes.items()],
            *[[what, f"{count:,}"] for what, count in edges.items()],
            *[[f"edges of {name}", f"{count:,}"] for name, count in without_pairs.items()],
            ["parts", f"{len(report['bounds'])} by {partition['method']}"],
            ["edge cut", f"{partition['edge_cut']:.1%} of interactions join two parts"],
            *[[f"edge cut of {name}", f"{own['edge_cut']:.1%}"] for name, own in partition["relations"].items()],
            [
                "balance",
                f"largest part {partition['node_balance']:.2f} × mean nodes, {partition['edge_balance']:.2f} × edges",
            ],
            *[list(row) for row in columns_in_words(describe_columns(layouts))],
            *[["repeated", words] for words in repeated_in_words(report["repeated"])],
            *[[f"dropped: {reason}", f"{count:,}"] for reason, count in report["dropped"].items()],
        ]
        table = make_table(f"prepared {settings.name}", ["what", "how many"], rows)
        units = {UNITS[unit] for unit in report["time_unit"].values()}
        recognised = (
            f"times are taken for {' and '.join(sorted(units))}: data.time_unit says otherwise\n" if units else ""
        )
        next_step = f"next: dist-gat train {config}" + "".join(f" {o}" for o in overrides or [])
        warnings = "".join(f"warning: {text}\n" for text in report["warnings"])
        output.result(report, table, notes=f"{warnings}{recognised}written to {settings.data.prepared}; {next_step}")
