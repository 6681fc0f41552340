"""What needs a library of an extra says which, and which extra has it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.base.extra import need
from dist_gat.baselines.als import fit_als
from dist_gat.config.sections import BaselineConfig
from dist_gat.config.text_section import TextEncoderConfig, TextTuningConfig
from dist_gat.data.pseudonyms import Pseudonyms
from dist_gat.export.scoring_onnx import write_scoring
from dist_gat.privacy.accountant import Spending, spent
from dist_gat.privacy.noise import normal_noise
from dist_gat.serve.item_index import build_index
from dist_gat.text.image_encoder import ImageEncoder
from dist_gat.text.model_files import find_model
from dist_gat.text.text_encoder import open_model
from dist_gat.text.text_tower import TextTower
from dist_gat.tune.search import load_tuner

USES: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "als": ("implicit", "baselines", lambda: fit_als(csr_array(np.eye(2)), BaselineConfig())),
    "an index": ("faiss", "index", lambda: build_index(cast(Any, None), 1)),
    "ONNX": ("onnx", "export", lambda: write_scoring(Path("x.onnx"), torch.zeros(1, 1), torch.zeros(1, 1))),
    "accounting": ("dp_accounting", "privacy", lambda: spent([Spending(1.0, 0.1, 3)], 1e-5)),
    "noise": ("cryptography", "privacy", lambda: normal_noise(bytes(32), 0, 0, 1, 1)),
    "pseudonyms": ("cryptography", "privacy", lambda: Pseudonyms(bytes(32)).seal("user", "7")),
    "an encoder": ("huggingface_hub", "text", lambda: find_model("no-such-model")),
    "tune": ("optuna", "tune", load_tuner),
}


# several libraries are asked for, of which one is not installed
SEVERAL: dict[str, tuple[str, Callable[[], Any]]] = {
    "als": ("threadpoolctl", USES["als"][2]),
    "an image encoder": ("transformers", lambda: ImageEncoder("no-such-model", "cpu")),
    "a trained encoder": ("peft", lambda: TextTower(cast(Any, None), TextTuningConfig(), 0)),
}


@pytest.mark.parametrize("use", USES)
def test_a_missing_library_is_named_with_its_extra(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, extra, call = USES[use]
    for module in [name for name in sys.modules if name.split(".")[0] == library or name == "dist_gat.tune.tuner"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"needs the library \S+: pip install 'dist-gat\[{extra}\]'"):
        call()


@pytest.mark.parametrize("use", SEVERAL)
def test_of_several_libraries_the_one_that_is_missing_is_named(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, call = SEVERAL[use]
    if use == "als":
        # which asks for the same library itself, and half of it would stay behind
        pytest.importorskip("implicit.cpu.als")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=f"needs the library {library}: pip install"):
        call()


def test_what_an_installed_library_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "sentence_transformers"]:
        monkeypatch.delitem(sys.modules, module)
    (tmp_path / "sentence_transformers.py").write_text("import transformers_lost.models\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match="^encoder=x needs the library transformers-lost: pip install 'dist-gat.text.'"
    ):
        open_model("x", TextEncoderConfig(encoder="x"), torch.device("cpu"))
    (tmp_path / "halves.py").write_text("import transformers_lost\n")
    with pytest.raises(ConfigError, match="^halves needs the library transformers-lost: "):
        need("halves", "halves", "text")


def test_what_is_installed_is_given() -> None:
    assert need("json", "a test", "none").loads("[1]") == [1]
    with pytest.raises(ConfigError, match=r"^a test needs the library nowhere: pip install 'dist-gat\[none\]'$"):
        need("nowhere.at.all", "a test", "none")
