"""The layout of a Hugging Face repository: the saved model, and a model card with metrics, data and licence.

`huggingface-cli upload NAME FOLDER` publishes it; nothing here does.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from dist_gat import __version__
from dist_gat.serve.saved_model import SavedModel


def write_hub_folder(model: SavedModel, evaluation: Mapping[str, Any], folder: Path, license: str) -> list[str]:
    """Copy the model and write README.md. Returns the names of the metrics in it.

    evaluation: of this model, as `evaluate` wrote it; empty where there is none. license: an identifier of the hub,
    such as mit or cc-by-nc-4.0.
    """
    shutil.copytree(model.folder, folder / "model")
    shutil.copyfile(model.folder / "config.yaml", folder / "config.yaml")
    split = "test" if evaluation.get("test") else "valid"
    metrics = {name: value for name, value in evaluation.get(split, {}).items() if isinstance(value, float)}
    config = model.config
    loader = jinja2.PackageLoader("dist_gat.export")
    template = jinja2.Environment(loader=loader, keep_trailing_newline=True).get_template("model_card.md")
    text = template.render(
        front=yaml.safe_dump(front_matter(model, license, split, metrics), sort_keys=False),
        name=config.name, version=__version__, relation=model.relation,
        counts={kind: model.ranges.count(kind) for kind in model.schema.node_types},
        layers=len(config.sampling.fanouts), scoring=config.model.scoring, size=model.manifest["representation_size"],
        fingerprint=model.manifest["data_fingerprint"], license=license, split=split, metrics=metrics,
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")
    return list(metrics)


def front_matter(model: SavedModel, license: str, split: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What the hub reads of a card."""
    front: dict[str, Any] = {
        "license": license, "library_name": "dist-gat", "tags": ["recommendation", "graph-machine-learning"],
    }  # fmt: skip
    if metrics:
        result = {
            "task": {"type": "recommendation", "name": "Recommendation"},
            "dataset": {"type": model.config.name, "name": model.config.name, "split": split},
            "metrics": [{"type": name, "value": round(value, 6)} for name, value in metrics.items()],
        }
        front["model-index"] = [{"name": model.config.name, "results": [result]}]
    return front
