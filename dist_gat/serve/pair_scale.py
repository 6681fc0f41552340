"""`PairScale`: from products of a saved model's rows to predictions, in the unit of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from scipy.special import expit, logit
from torch import nn

from dist_gat.checkpoints.weight_files import DENSE, load_tensors
from dist_gat.config.task_sections import PairConfig
from dist_gat.nn.pair_head import chained
from dist_gat.serve.saved_model import SavedModel
from dist_gat.tasks.likelihood import Likelihood
from dist_gat.tasks.pair_task import build_likelihood, calibrated
from dist_gat.tasks.task_heads import likelihood_weights


@dataclass(frozen=True)
class PairScale:
    """One task that predicts pairs. saved: see `PairTask.saved`. rows: the name of its rows among the saved ones."""

    likelihood: Likelihood
    saved: Mapping[str, Any]

    @property
    def rows(self) -> str:
        return str(self.saved["rows"])

    @property
    def needs(self) -> list[str]:
        """The tasks whose values `predictions` takes before its own."""
        return list(self.saved["needs"])

    @property
    def exposure(self) -> str | None:
        """The label whose log is added to values."""
        return self.saved["task"].get("exposure")

    def values(self, products: np.ndarray) -> np.ndarray:
        """float64 of the shape of products of the task's rows: values of its own head."""
        return products / self.saved["temperature"] + self.saved["constant"]

    def predictions(self, values: list[np.ndarray]) -> np.ndarray:
        """In the unit of the labels. values: of the tasks in `needs`, and its own last."""
        value = chained([torch.from_numpy(each) for each in values]).numpy()
        predicted = calibrated(self.likelihood, value, self.saved["calibration"])
        if not self.saved["log_rate"]:
            return predicted
        # the odds among the pairs that training drew, back to those among all pairs
        return expit(logit(predicted) + self.saved["log_rate"])


def open_scales(model: SavedModel) -> dict[str, PairScale]:
    """By name, the tasks of a saved model that predict pairs; none where it ranks. Raises `StorageError`."""
    pairs = model.manifest["pairs"]
    weights = load_tensors(model.folder / DENSE) if pairs else {}
    scales = {}
    for name, saved in pairs.items():
        likelihood = build_likelihood(TypeAdapter(PairConfig).validate_python(saved["task"]), saved["labels"])
        if isinstance(likelihood, nn.Module):
            likelihood.load_state_dict(likelihood_weights(weights, name))
        scales[name] = PairScale(likelihood, saved)
    return scales
