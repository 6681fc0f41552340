"""The row of hostile pickles: planted wherever a file is read, and never executed."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
from faults.bad_inputs import FEATURES, GOOD, BadInput
from faults.board import row
from faults.hostile import config_of, prepare_tiny, rewrite_manifest

from dist_gat import api
from dist_gat.base.errors import DistGatError
from dist_gat.checkpoints.checkpoint_store import FolderCheckpoints
from dist_gat.config.sections import Config

USERS = [f"u{number}" for number in range(6)]
UNREAD = ("edge_weight", "valid_time", "test_time", "config")  # files that no verb opens


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.marker), "w")


class Planter:
    """Plants bombs, and checks after each verb that none went off."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker
        self.num_refused = 0
        self.raw = pickle.dumps(Bomb(marker))
        array = np.empty(1, dtype=object)
        array[0] = Bomb(marker)
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=True)
        self.array = stream.getvalue()

    def check_live(self) -> None:
        """The bombs are real: unpickled, they leave their marker."""
        for explode in (lambda: pickle.loads(self.raw), lambda: np.load(io.BytesIO(self.array), allow_pickle=True)):
            explode()
            assert self.marker.exists(), "a bomb that does nothing shows nothing"
            self.marker.unlink()

    def forms(self, path: Path) -> list[bytes]:
        return [self.raw, self.array] if path.suffix == ".npy" else [self.raw]

    def must_refuse(self, what: str, *actions: Callable[[], Any]) -> None:
        """Run verbs one after another until one refuses; none may execute what was planted."""
        assert any(self.must_not_execute(what, action) for action in actions), f"{what}: read as if it were ours"
        self.num_refused += 1

    def must_not_execute(self, what: str, action: Callable[[], Any]) -> bool:
        """Run a verb; returns whether it refused, with an error of ours."""
        try:
            action()
            return False
        except DistGatError:
            return True
        finally:
            assert not self.marker.exists(), f"{what}: the pickle was executed"


@row(
    17,
    "hostile pickles planted as part, checkpoint, configuration, feature file, model",
    "never executed",
    is_quick=True,
)
def hostile_pickles(folder: Path) -> str:
    planter = Planter(folder / "executed")
    planter.check_live()
    plant_configuration(planter, folder / "recipe")
    plant_input(planter, folder / "input")
    config = prepare_tiny(folder / "run")
    api.train(config)
    plant_parts(planter, config, folder / "spare")
    plant_model(planter, config)
    plant_checkpoint(planter, config)
    return f"{planter.num_refused} pickles refused with errors of ours, none executed"


def plant_configuration(planter: Planter, folder: Path) -> None:
    folder.mkdir()
    call = f"['{planter.marker}', 'w']"
    texts = [f"!!python/object/apply:builtins.open {call}", f"name: !!python/object/new:builtins.open {call}"]
    for number, content in enumerate([planter.raw, planter.array, *(text.encode() for text in texts)]):
        path = folder / f"{number}.yaml"
        path.write_bytes(content)
        planter.must_refuse(path.name, lambda path=path: api.load_config(path))  # type: ignore[misc]
    override = f"name=!!python/object/apply:builtins.open {call}"
    (folder / "good.yaml").write_text("name: a\ndata: {interactions: a.csv}\n")
    planter.must_refuse("override", lambda: api.load_config(folder / "good.yaml", [override]))


def plant_input(planter: Planter, folder: Path) -> None:
    """As interactions and as features, under every name that is read; also in the types of a parquet file."""
    typed = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": planter.raw}
    field = pa.field("user_id", pa.string(), metadata=typed)
    table = pa.table([["a", "b"], ["x", "y"]], schema=pa.schema([field, pa.field("item_id", pa.string())]))
    pa_parquet.write_table(table, stream := pa.BufferOutputStream())
    contents = [planter.raw, planter.array]
    for number, suffix in enumerate(("csv", "tsv", "txt", "inter", "parquet", "pq", "npy", "json", "pkl")):
        for form, content in enumerate(contents):
            place = folder / f"{number}-{form}"
            config = config_of(place, BadInput("", {f"t.{suffix}": content}, ()).write(place / "in"))
            planter.must_refuse(f"interactions t.{suffix}", lambda config=config: api.prepare(config))  # type: ignore[misc]
            features = {"item_features": {**FEATURES["item_features"], "path": f"f.{suffix}"}}
            case = BadInput("", {"t.csv": GOOD, f"f.{suffix}": content}, (), settings=features)
            config = config_of(place, case.write(place / "with-features"))
            planter.must_refuse(f"features f.{suffix}", lambda config=config: api.prepare(config))  # type: ignore[misc]
    case = BadInput("", {"t.parquet": stream.getvalue().to_pybytes()}, ())
    planter.must_not_execute(
        "the type of a column", lambda: api.prepare(config_of(folder, case.write(folder / "typed")))
    )


def plant_parts(planter: Planter, config: Config, spare: Path) -> None:
    """Each file of a prepared folder, with a manifest that is true of it."""
    prepared = Path(config.data.prepared)
    shutil.copytree(prepared, spare)
    verbs = [lambda: api.train(config), lambda: api.recommend(config.run_folder, USERS)]
    files = sorted([*prepared.glob("parts/0001/**/*.npy"), *prepared.glob("ids/*"), prepared / "manifest.json"])
    for path in (path for path in files if path.stem not in UNREAD):
        for content in planter.forms(path):
            path.write_bytes(content)
            if path.name != "manifest.json":
                rewrite_manifest(prepared)
            planter.must_refuse(str(path), *verbs)
            shutil.rmtree(prepared)
            shutil.copytree(spare, prepared)

    for path in (path for path in files if path.stem in UNREAD):
        path.write_bytes(planter.array)
    rewrite_manifest(prepared)
    shutil.rmtree(config.run_folder)
    for verb in (*verbs, lambda: api.evaluate(config)):
        planter.must_not_execute("files that nothing opens", verb)


def plant_model(planter: Planter, config: Config) -> None:
    """Each file of the saved model, likewise."""
    model = config.run_folder / "model"
    spare = config.run_folder.with_name("spare-model")
    shutil.copytree(model, spare)
    verbs = [lambda: api.evaluate(config), lambda: api.recommend(config.run_folder, USERS)]
    for path in sorted(path for path in model.rglob("*") if path.is_file() and path.stem not in UNREAD):
        for content in planter.forms(path):
            path.write_bytes(content)
            if path.name != "manifest.json":
                rewrite_manifest(model)
            planter.must_refuse(str(path), *verbs)
            shutil.rmtree(model)
            shutil.copytree(spare, model)


def plant_checkpoint(planter: Planter, config: Config) -> None:
    """In the newest checkpoint of a run: each of its files, with a manifest that is true of it; then the manifest."""
    checkpoints = FolderCheckpoints(config.run_folder / "checkpoints")
    newest = checkpoints.folder(checkpoints.steps()[0])
    whole = {path: path.read_bytes() for path in newest.rglob("*") if path.is_file()}
    for path, content in whole.items():
        path.write_bytes(planter.raw)
        if path.name != "manifest.json":
            rewrite_manifest(newest)
        planter.must_refuse(f"checkpoint {path.name}", lambda: api.train(config))
        path.write_bytes(content)
        (newest / "manifest.json").write_bytes(whole[newest / "manifest.json"])
    assert api.train(config)["resumed_from"] == checkpoints.steps()[0], "the checkpoint that was put back is whole"
