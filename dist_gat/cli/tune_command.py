"""`dist-gat tune`: a search for the best configuration, on the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dist_gat.cli.output import STOPPED, make_table, open_output
from dist_gat.cli.paths import path
from dist_gat.config.files import load_config

SHOWN = 10  # trials in the table


def tune(
    config: Annotated[Path, typer.Argument(parser=path, help="a recipe, for example configs/ml-100k.yaml")],
    space: Annotated[Path, typer.Argument(parser=path, help="a search space, for example configs/spaces/default.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value, the same in all trials")] = None,
    trials: Annotated[int, typer.Option(min=1, help="trials in all, with those of earlier calls")] = 20,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="trials at a time; default: as cores allow, to 4")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="stop after so long; the same command goes on")] = None,
    workers: Annotated[int, typer.Option(min=1, help="local workers of a trial; the results don't depend on it")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """Search for the settings with the best validation metric, with Optuna and early stopping (ASHA) on Ray Tune.

    Writes the best as a recipe for `dist-gat train`. The same command goes on where it was stopped (exit code 143).
    """
    from dist_gat import api

    with open_output(as_json) as output:
        settings = load_config(config, overrides or [])
        result = api.tune(settings, space, trials, concurrent, minutes, workers, output.progress)
        found = sorted(result["trials"], key=lambda trial: rank(trial, settings.higher_is_better))
        keys = list(found[0]["values"]) if found else []
        short = [key.rpartition(".")[2] for key in keys]
        columns = short if len(set(short)) == len(keys) else keys
        rows = [
            [
                trial["number"],
                "" if trial["value"] is None else trial["value"],
                f"{trial['epoch']} of {trial['epochs']}",
                round(trial["seconds"]),
                trial["status"],
                *[plain(trial["values"][key]) for key in keys],
            ]
            for trial in found[:SHOWN]
        ]
        title = f"{settings.name}: best of {len(found)} trials, validation"
        if settings.evaluate.num_users is not None:
            title += f" of at most {settings.evaluate.num_users:,} sampled users"
        table = make_table(title, ["trial", result["metric"], "best epoch", "seconds", "status", *columns], rows)
        again = "stopped; the same command goes on" if result["stopped"] else ""
        recipe = result["recipe"]
        after = f"best settings in {recipe}; next: dist-gat train {recipe}" if recipe else "no trial ended well"
        output.result(result, table, notes="\n".join(filter(None, [again, after, f"took {result['seconds']:.0f} s"])))
        if result["stopped"]:
            raise typer.Exit(STOPPED)


def rank(trial: dict[str, Any], higher_is_better: bool) -> tuple[bool, bool, float]:
    """Good ones first, those without a value and those that failed last."""
    value = trial["value"] or 0.0
    return trial["status"] == "failed", trial["value"] is None, -value if higher_is_better else value


def plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
