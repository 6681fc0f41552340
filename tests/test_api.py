"""What the verbs check before any worker starts, and where they neither read nor write."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.hostile import contents, prepare_tiny, rewrite_manifest

from dist_gat import api
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import END_BYTES
from dist_gat.config.sections import Config

LARGE = 4 * END_BYTES


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A prepared data set and its model, each with a file that is larger than its two ends."""
    config = prepare_tiny(tmp_path_factory.mktemp("api"))
    for folder in (Path(config.data.prepared), config.run_folder / "model"):
        if folder.name == "model":
            api.train(config)
        (folder / "large.bin").write_bytes(bytes(LARGE))
        rewrite_manifest(folder)
    return config


@pytest.fixture
def config(trained: Config, tmp_path: Path) -> Config:
    """A copy of it, to be damaged."""
    shutil.copytree(trained.run_folder.parent, tmp_path / "copy")
    data = trained.data.model_copy(update={"prepared": str(tmp_path / "copy" / "out" / "prepared")})
    return trained.model_copy(update={"data": data, "run": str(tmp_path / "copy" / "run")})


VERBS: dict[str, Callable[..., Any]] = {
    "inspect": lambda config, **options: api.inspect(config.data.prepared, **options),
    "train": api.train,
    "evaluate": api.evaluate,
    "recommend": lambda config, **options: api.recommend(config.run_folder, ["u1"], **options),
    "explain": lambda config, **options: api.explain(config, "u1", **options),
    "report": api.report,
}
BOTH = ["model", "prepared"]
READS = {
    "inspect": ["prepared"],
    "train": ["prepared"],
    "evaluate": BOTH,
    "recommend": ["model"],
    "explain": BOTH,
    "report": BOTH,
}


@pytest.mark.parametrize("verb", VERBS)
def test_verification_reads_what_the_verb_reads(config: Config, verb: str) -> None:
    said: list[str] = []
    VERBS[verb](config, verify=True, progress=said.append)
    checked = [message.rpartition("/")[2] for message in said if message.startswith("checking the SHA-256 of ")]
    assert checked == READS[verb]
    assert " files, 0.000" in said[0]


@pytest.mark.parametrize(("verb", "folder"), [(verb, folder) for verb, folders in READS.items() for folder in folders])
def test_a_byte_flipped_inside_a_file_is_found_on_demand(config: Config, verb: str, folder: str) -> None:
    path = Path(config.data.prepared) if folder == "prepared" else config.run_folder / "model"
    content = bytearray(LARGE)
    content[LARGE // 2] = 1
    (path / "large.bin").write_bytes(content)
    VERBS[verb](config)
    events = (config.run_folder / "progress.jsonl").read_text()
    with pytest.raises(StorageError, match=r"large\.bin: expected SHA-256 .*run `dist-gat (prepare|train)`"):
        VERBS[verb](config, verify=True)
    assert (config.run_folder / "progress.jsonl").read_text() == events, "a worker started"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "inspect"])  # which reads no run
@pytest.mark.parametrize("name", ["model", "checkpoints", "progress.jsonl", "checkpoints/step-00000002"])
def test_a_link_out_of_the_run_folder_is_not_followed(config: Config, verb: str, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (config.run_folder / name).rename(outside)
    (config.run_folder / name).symlink_to(outside)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match=f"{name}: this link leads to .*outside, out of .*/run; .*remove the link"):
        VERBS[verb](config)
    assert contents(tmp_path) == before


def test_a_run_folder_may_be_a_link_itself(config: Config, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(config.run_folder)
    linked = config.model_copy(update={"run": str(tmp_path / "alias")})
    for verb in VERBS.values():
        verb(linked)


def test_a_model_folder_of_others_is_not_replaced(config: Config, tmp_path: Path) -> None:
    (tmp_path / "work" / "model").mkdir(parents=True)
    (tmp_path / "work" / "model" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="run: .*model was not written by `dist-gat train`"):
        api.train(config.model_copy(update={"run": str(tmp_path / "work")}))
    assert contents(tmp_path / "work").keys() == {"model/thesis.txt"}


def test_input_files_may_be_anywhere_that_the_recipe_says(config: Config, tmp_path: Path) -> None:
    """A recipe is the user's own; names in a manifest, which may come from anybody, are not free."""
    for name in (str(Path(config.data.path).resolve() / "t.csv"), "../in/t.csv"):
        data = config.data.model_copy(update={"interactions": name, "prepared": str(tmp_path / "new")})
        assert api.prepare(config.model_copy(update={"data": data}))["num_nodes"] == {"user": 6, "item": 6}


def test_prepared_may_be_the_folder_one_stands_in(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    data = config.data.model_copy(update={"prepared": "."})
    api.prepare(config.model_copy(update={"data": data}))
    assert (tmp_path / "here" / "manifest.json").exists()
