"""`dist-gat fit`: from the table of interactions to a model that was tested once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dist_gat.base.metric_counts import is_count, sample_in_words
from dist_gat.cli.output import STOPPED, make_table, open_output
from dist_gat.cli.paths import path
from dist_gat.config.files import load_config
from dist_gat.launcher.preload import prepare_workers


def fit(
    config: Annotated[Path, typer.Argument(parser=path, help="a recipe, for example configs/ml-100k.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")] = False,
) -> None:
    """Prepare, train, train once more on the validation pairs too, and test that model once.

    Epochs and blend are chosen on validation alone. The same command goes on where it was stopped (exit code 143).
    """
    with open_output(as_json) as output:
        settings = load_config(config, overrides or [])
        prepare_workers(settings.launch)
        from dist_gat import api

        result = api.fit(settings, quiet=False, progress=output.progress)
        if result["stopped"]:
            output.result(result, notes="stopped and saved; the same command goes on")
            raise typer.Exit(STOPPED)
        rows = [[name, value] for name, value in result["metrics"].items() if not is_count(name)]
        title = f"{settings.name}: {result['split']}, looked at once{sample_in_words(result['metrics'])}"
        blend = result["chosen"]["blend"] if settings.task.kind == "ranking" else {}
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in blend.items())
        if result["chosen"]["half_life"]:
            weights += f", half-life {result['chosen']['half_life']:g}"
        output.result(
            result,
            make_table(title, ["metric", "value"], rows),
            notes=f"took {result['seconds']:.0f} s; {result['chosen']['best_epoch']} epochs; "
            f"{f'weights of the blend: {weights}; ' if weights else ''}model in {result['run']}",
        )
