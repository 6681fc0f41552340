"""The command line: `dist-gat VERB`. It parses, calls the verb, prints, and turns errors into exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from dist_gat import __version__
from dist_gat.base.errors import DistGatError
from dist_gat.base.metric_counts import is_count, sample_in_words
from dist_gat.cli.cache_command import cache
from dist_gat.cli.encode_command import encode
from dist_gat.cli.evaluation_tables import compared_metrics, evaluation_tables, what_is_measured
from dist_gat.cli.explanation_tables import explanation_tables
from dist_gat.cli.export_command import export
from dist_gat.cli.fit_command import fit
from dist_gat.cli.forget_command import forget
from dist_gat.cli.init_command import init
from dist_gat.cli.inspect_command import inspect
from dist_gat.cli.output import STOPPED, make_table, open_output, print_what_can_be_shown
from dist_gat.cli.paths import path, place
from dist_gat.cli.plan_command import plan
from dist_gat.cli.predict_command import predict
from dist_gat.cli.prepare_command import prepare
from dist_gat.cli.recipes_command import recipes
from dist_gat.cli.recommend_command import recommend
from dist_gat.cli.rotate_key_command import rotate_key
from dist_gat.cli.serve_command import serve
from dist_gat.cli.submit_command import submit
from dist_gat.cli.tune_command import tune
from dist_gat.config.files import load_config
from dist_gat.config.task_sections import RANKING_KINDS
from dist_gat.launcher.host import let_threads_sleep
from dist_gat.launcher.preload import prepare_workers


def show_version(asked: bool) -> None:
    """Of dist-gat alone; `doctor` has those of what it stands on."""
    if asked:
        print(f"dist-gat {__version__}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train graph-attention recommenders on interaction graphs that outgrow one GPU and then one machine.",
)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=show_version, help="and exit")] = False,
) -> None:
    """Options before the verb."""


data_app = typer.Typer(no_args_is_help=True, help="Public data sets and a synthetic one.")
app.add_typer(data_app, name="data")
app.command(epilog="Example: dist-gat export runs/ml-100k --output exported --to vectors --to onnx")(export)


app.command(epilog="Example: dist-gat plan configs/ml-100k.yaml --nodes 2625 --edges 80000 --workers 2")(plan)

ConfigPath = Annotated[Path, typer.Argument(parser=path, help="a recipe, for example configs/ml-100k.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(help="settings as key=value, for example model.num_heads=4")]
RunPath = Annotated[Path, typer.Argument(parser=place, help="a run folder, or the recipe of a run")]

Verify = Annotated[bool, typer.Option("--verify", help="check the SHA-256 of every file that is read, first")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as one JSON object, and nothing else")]


app.command(epilog="Example: dist-gat init --for shop data/shop/purchases.csv --output configs/shop.yaml")(init)


app.command(epilog="Example: dist-gat recipes ml-100k --output configs/ml-100k.yaml")(recipes)


app.command(epilog="Example: dist-gat prepare configs/ml-100k.yaml parts.num_parts=8")(prepare)


app.command(
    epilog="Example: dist-gat encode items.csv --column title --encoder all-MiniLM-L6-v2 --output titles.parquet"
)(encode)


app.command(epilog="Example: dist-gat inspect data/ml-100k/prepared --html data.html")(inspect)


@app.command(epilog="Example: dist-gat train configs/ml-100k.yaml launch.launcher=local model.embedding_size=128")
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    profile: Annotated[bool, typer.Option(help="record 20 steps for Perfetto and name the bottleneck")] = False,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Train on the workers of the `launch` section and save the model of the best epoch.

    The same command goes on from the last checkpoint of a run that was stopped (exit code 143) or failed.
    """
    extra = ["train.profile=20"] if profile else []
    with open_output(as_json) as output:
        settings = load_config(config, [*(overrides or []), *extra])
        prepare_workers(settings.launch)
        # after the line above, so that its imports run beside these
        from dist_gat import api

        result = api.train(settings, quiet=False, verify=verify, progress=output.progress)
        if result["stopped"]:
            output.result(result, notes=f"stopped and saved at step {result['steps']}; the same command goes on")
            raise typer.Exit(STOPPED)
        rows = [[name, value] for name, value in result["valid"].items() if not is_count(name)]
        if result["blended"] is not None:
            rows.append([f"{settings.train.metric.rpartition('/')[2]} with the blend", result["blended"]])
        title = f"{settings.name}: best epoch {result['best_epoch']} of {result['epochs']}, validation"
        title += sample_in_words(result["valid"])
        tables = [make_table(title, ["metric", "value"], rows)] if rows else []
        folder = settings.run_folder
        notes = [
            *why_the_last_epoch(result),
            f"took {result['seconds']:.0f} s; model in {settings.model_name}",
            f"curves: tensorboard --logdir {folder / 'tensorboard'}",
        ]
        output.result(result, *tables, notes="\n".join(notes))


app.command(epilog="Example: dist-gat submit configs/ml-100k.yaml --address http://127.0.0.1:8265")(submit)


app.command(epilog="Example: dist-gat fit configs/ml-100k.yaml data.path=FOLDER")(fit)


@app.command(epilog="Example: dist-gat evaluate configs/ml-100k.yaml --baseline popularity --baseline itemknn --json")
def evaluate(
    config: ConfigPath,
    overrides: Overrides = None,
    baseline: Annotated[list[str] | None, typer.Option(help="a name of evaluate.baselines; may be repeated")] = None,
    slices: Annotated[bool, typer.Option("--slices", help="also by activity and popularity, and diversity")] = False,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Rank all items for every user, exactly, or predict all held-out pairs, and print the metrics of the task."""
    extra = [f"evaluate.baselines=[{', '.join(baseline)}]"] if baseline else []
    with open_output(as_json) as output:
        settings = load_config(config, [*(overrides or []), *extra])
        prepare_workers(settings.launch)
        from dist_gat import api

        ranks = settings.task.kind in RANKING_KINDS
        at_most = settings.evaluate.num_users
        whom = f"at most {at_most:,} sampled users" if at_most else "every user"
        what = f"ranking all items for {whom}" if ranks else "predicting the held-out pairs"
        output.progress(f"{what} with {settings.launch.num_workers} workers")
        result = api.evaluate(settings, quiet=False, verify=verify, progress=output.progress)
        if result["stopped"]:
            output.result(result, notes="stopped; nothing was written")
            raise typer.Exit(STOPPED)
        split = "test" if "test" in result else "valid"
        tables = evaluation_tables(settings, result, split, slices)
        baselines = result.get("baselines", {})
        notes = [f"{name}: {found['note']}" for name, found in baselines.items() if found["note"]]
        output.result(result, *tables, notes="\n".join([*notes, f"took {result['seconds']:.0f} s"]))


@app.command(epilog="Example: dist-gat compare configs/ml-100k.yaml --models popularity,ease,gfcf,recipe")
def compare(
    config: ConfigPath,
    overrides: Overrides = None,
    models: Annotated[str | None, typer.Option(help="names with commas between them; default: all")] = None,
    model: Annotated[list[str] | None, typer.Option(help="one name; may be repeated")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank with baselines and with the recipe's relatives, on the same split with the same metrics.

    popularity, userknn, itemknn, als, ease, gfcf and linear; where there are times itemknn-recent, ease-recent and
    markov; then mf (no layers), lightgcn, gat and the recipe, which train. The same command goes on where it was
    stopped (exit code 143).
    """
    from dist_gat import api

    listed = [name.strip() for name in (models or "").split(",")]
    chosen = [*filter(None, listed), *(model or [])]
    with open_output(as_json) as output:
        settings = load_config(config, overrides or [])
        result = api.compare(settings, chosen or None, quiet=False, progress=output.progress)
        # as many as 80 columns hold; --json has all
        names = compared_metrics(settings)
        rows = [
            [
                name,
                *[row["metrics"].get(metric, "") for metric in names],
                round(row["seconds"]),
                "" if row["peak_memory_bytes"] is None else round(row["peak_memory_bytes"] / 1e6),
            ]
            for name, row in result["models"].items()
        ]
        measured: dict[str, float] = next((row["metrics"] for row in result["models"].values() if row["metrics"]), {})
        title = f"{result['split']}, {what_is_measured(settings)}{sample_in_words(measured)}"
        table = make_table(title, ["model", *names, "seconds", "peak MB"], rows)
        notes = [f"{name}: {row['note']}" for name, row in result["models"].items() if row["note"]]
        output.result(result, table, notes="\n".join([*notes, f"took {result['seconds']:.0f} s"]))
        if result["stopped"]:
            raise typer.Exit(STOPPED)


app.command(epilog="Example: dist-gat tune configs/ml-100k.yaml configs/spaces/default.yaml --trials 30")(tune)


app.command(epilog="Example: dist-gat recommend runs/ml-100k --user 196 --user 7 --k 10")(recommend)
app.command(epilog="Example: dist-gat serve runs/ml-100k --port 8000")(serve)
app.command(epilog="Example: dist-gat predict runs/ratings pairs.csv --output predictions.csv")(predict)


app.command(epilog="Example: dist-gat cache --clear")(cache)


app.command(epilog="Example: dist-gat forget runs/ml-100k --user 196")(forget)


app.command(epilog="Example: dist-gat rotate-key runs/ml-100k --key old.key --new-key new.key")(rotate_key)


@app.command(epilog="Example: dist-gat explain runs/ml-100k --user 196 --html why.html")
def explain(
    run: RunPath,
    user: Annotated[str, typer.Option(help="the user's ID as in the input")],
    overrides: Overrides = None,
    item: Annotated[str | None, typer.Option(help="an item's ID; by default the user's best new item")] = None,
    top: Annotated[int, typer.Option(min=1, help="interactions to show")] = 10,
    html: Annotated[Path | None, typer.Option(parser=path, help="write a page with a picture to this file")] = None,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Show what each interaction contributes to the score of an item, and whether deleting them bears it out."""
    from dist_gat import api

    with open_output(as_json) as output:
        result = api.explain(run, user, item, top, html, overrides or [], verify, output.progress)
        output.result(result, *explanation_tables(result), notes=f"picture in {html}" if html else "")


@app.command(epilog="Example: dist-gat report runs/ml-100k")
def report(
    run: RunPath,
    overrides: Overrides = None,
    html: Annotated[
        Path | None, typer.Option(parser=path, help="the file to write; default: report.html in the run folder")
    ] = None,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page of a run: is it good, still learning, for whom is it bad, what did it cost."""
    from dist_gat import api

    with open_output(as_json) as output:
        path = api.report(run, html, overrides or [], verify, output.progress)
        output.result({"report": str(path)}, notes=f"written to {path}; open it in a browser")


@app.command(epilog="Example: dist-gat doctor --json")
def doctor(as_json: AsJson = False) -> None:
    """Print versions, devices, threads and the health of DGL, torch.distributed and Ray, and what to do."""
    from dist_gat.launcher.doctor import examine

    with open_output(as_json) as output:
        findings = examine()
        rows = [[f.name, f.status, f.found, f.advice] for f in findings]
        result = {
            "healthy": all(f.status != "bad" for f in findings),
            "findings": {f.name: {"status": f.status, "found": f.found, "advice": f.advice} for f in findings},
        }
        output.result(result, make_table("doctor", ["what", "status", "found", "what to do"], rows))
    if not result["healthy"]:
        raise typer.Exit(1)


@data_app.command("list", epilog="Example: dist-gat data list")
def data_list(as_json: AsJson = False) -> None:
    """List the public data sets that dist-gat knows, with source, licence and how to get them."""
    from dist_gat.data.registry import PUBLIC_DATASETS, how_to_get

    with open_output(as_json) as output:
        rows = [[e.name, "fetch" if e.is_automatic else "by hand", e.source, e.licence] for e in PUBLIC_DATASETS]
        folder = Path("data")
        result = {
            e.name: {
                "source": e.source,
                "licence": e.licence,
                "automatic": e.is_automatic,
                "sha256": dict(e.files),
                "by_hand": how_to_get(e, folder / e.name),
            }
            for e in PUBLIC_DATASETS
        }
        output.result(result, make_table("public data sets", ["name", "how", "source", "licence"], rows))


@data_app.command("fetch", epilog="Example: dist-gat data fetch movielens-100k --folder data")
def data_fetch(
    name: Annotated[str, typer.Argument(help="a name that `dist-gat data list` prints")],
    folder: Annotated[Path, typer.Option(parser=path, help="where the data set's own folder is made")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Fetch a public data set and check its SHA-256."""
    from dist_gat.data.registry import fetch

    with open_output(as_json) as output:
        path = fetch(name, folder)
        output.result({"name": name, "folder": str(path)}, notes=f"{name} is in {path}")


@data_app.command("synthetic", epilog="Example: dist-gat data synthetic --users 2000 --items 1000 --communities 10")
def data_synthetic(
    folder: Annotated[Path, typer.Option(parser=path, help="where interactions.csv and items.csv are written")] = Path(
        "data/synthetic"
    ),
    users: Annotated[int, typer.Option(min=1)] = 1000,
    items: Annotated[int, typer.Option(min=1)] = 800,
    communities: Annotated[int, typer.Option(min=1, help="planted groups of users and items")] = 8,
    interactions: Annotated[int, typer.Option(min=1, help="of each user")] = 20,
    noise: Annotated[float, typer.Option(min=0.0, max=1.0, help="share outside the user's community")] = 0.1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic data set with planted user and item communities."""
    from dist_gat.data.synthetic import write_synthetic

    with open_output(as_json) as output:
        path = write_synthetic(folder, users, items, communities, interactions, noise, seed)
        note = f"written to {path}; next: dist-gat prepare configs/synthetic.yaml"
        output.result({"folder": str(path), "interactions": users * interactions}, notes=note)


def why_the_last_epoch(result: dict[str, Any]) -> list[str]:
    """Why the saved model is that of the last epoch; of a private run with what it has spent."""
    privacy = result["privacy"]
    if privacy is None:
        last = f"no validation interactions: the model is that of epoch {result['epochs']}, the last"
        return [] if result["valid"] else [last]
    spent = f"ε = {privacy['epsilon_spent']:.3f} of {privacy['epsilon']:g} spent (δ = {privacy['delta']:.2e})"
    more = f", in {privacy['runs']} runs of this folder" if privacy["runs"] > 1 else ""
    return [f"privacy: {spent}{more}; the model is that of the last step. docs/privacy.md says what may be shown"]


def main() -> None:
    """Entry point: errors that the user can act on become one message and exit code 1."""
    let_threads_sleep()
    print_what_can_be_shown()
    try:
        app()
    except DistGatError as err:
        Console(stderr=True, highlight=False).print("error:", style="bold red", end=" ")
        Console(stderr=True, highlight=False).print(Text(str(err)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
