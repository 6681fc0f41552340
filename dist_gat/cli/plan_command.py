"""`dist-gat plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dist_gat.base.errors import ConfigError
from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path
from dist_gat.config.files import load_config


def plan(
    config: Annotated[Path, typer.Argument(parser=path, help="a recipe, for example configs/ml-100k.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    nodes: Annotated[int, typer.Option(help="users and items")] = ...,  # type: ignore[assignment]
    edges: Annotated[int, typer.Option(help="training interactions; each is two messages")] = ...,  # type: ignore[assignment]
    workers: Annotated[int, typer.Option(help="ranks")] = ...,  # type: ignore[assignment]
    bandwidth: Annotated[float | None, typer.Option(help="GB/s that a worker can send; default: no limit")] = None,
    hosts: Annotated[int | None, typer.Option(help="default: what the constants' workers per host need")] = None,
    cores: Annotated[int | None, typer.Option(help="of a host; default: the constants'")] = None,
    users: Annotated[float, typer.Option(help="share of users among the nodes")] = 0.5,
    user_skew: Annotated[float, typer.Option(help="degree of the user of rank r falls as r ** -skew")] = 0.6,
    item_skew: Annotated[float, typer.Option(help="the same of items")] = 0.8,
    edge_cut: Annotated[float | None, typer.Option(help="share of interactions between ranks; default: random")] = None,
    relation: Annotated[
        list[str] | None, typer.Option(help="NAME=EDGES of one of data.relations, or of a piece: kg-item-entity=EDGES")
    ] = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="NAME=NODES of a further node type")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="TYPE.NAME=NUMBER of a column: categories, or the length of vectors"),
    ] = None,
    relation_skew: Annotated[float, typer.Option(help="the same as --user-skew, along further relations")] = 0.6,
    constants: Annotated[
        Path | None, typer.Option(parser=path, help="a file that `python -m benchmarks.cost` wrote")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object")] = False,
) -> None:
    """Predict memory a worker, bytes exchanged, step time and scaling efficiency, before there is data or a machine."""
    from dist_gat import api

    with open_output(as_json) as output:
        result = api.plan(
            load_config(config, overrides or []), nodes, edges, workers, bandwidth_gbps=bandwidth, hosts=hosts,
            cores=cores, users=users, user_skew=user_skew, item_skew=item_skew, edge_cut=edge_cut, constants=constants,
            relations=counts_of("--relation", relation), types=counts_of("--type", type_), relation_skew=relation_skew,
            columns=counts_of("--column", column),
        )  # fmt: skip
        output.result(result, *plan_tables(result), notes=f"constants: {result['constants']}")


def counts_of(option: str, given: list[str] | None) -> dict[str, int]:
    """By name, what was given as NAME=NUMBER. Raises `ConfigError`."""
    found = {}
    for text in given or []:
        name, _, number = text.partition("=")
        if not name or not number.isdecimal():
            raise ConfigError(f"{option} {text}: expected NAME=NUMBER, such as tags=100000")
        found[name] = int(number)
    return found


def plan_tables(result: dict[str, Any]) -> list[Any]:
    """Memory, traffic and time of one worker, in GB, MB and milliseconds."""
    sent, seconds, work = result["sent_bytes"], result["seconds"], result["workload"]
    memory = [[name, f"{size / 1e9:,.2f}"] for name, size in result["memory_bytes"].items()]
    traffic = [[n, f"{sent[n] / 1e6:,.2f}"] for n in ("ids", "rows", "gradients", "negatives", "sampling", "dense")]
    times = [[name.replace("_", " "), f"{1e3 * value:,.2f}"] for name, value in seconds.items()]
    step = [
        ["distinct nodes", f"{work['rows']:,.0f}"],
        ["of them remote", f"{work['remote_share']:.1%}"],
        ["sampled edges", f"{sum(work['edges']):,.0f}"],
        ["seeds a second, all workers", f"{result['seeds_per_s']:,.0f}"],
        ["scaling efficiency", f"{result['efficiency']:.0%}"],
    ]
    title = f"{result['num_workers']} workers on {result['num_hosts']} hosts"
    return [
        make_table(f"{title}: memory a worker", ["what", "GB"], memory),
        make_table("sent a worker and step", ["what", "MB"], traffic),
        make_table("time of a step", ["what", "ms"], times),
        make_table("a worker's step", ["what", "how many"], step),
    ]
