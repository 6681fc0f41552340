"""`Likelihood`: what a value of a pair says of its label, and how well it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from dist_gat.evaluate.classification import LabelledPredictions


class Likelihood(Protocol):
    """One kind of label. As an `nn.Module` it may have parameters, which are trained with the rest.

    loss_name: of its term in the logs. expected: what labels are, for messages.
    """

    @property
    def loss_name(self) -> str: ...

    @property
    def expected(self) -> str: ...

    def loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        """[B]: of each pair, differentiable."""

    def predict(self, values: np.ndarray) -> np.ndarray:
        """float64 of the shape of float64 values: in the unit of the labels."""

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> Mapping[str, float]:
        """Of float64 [m] labels and predictions of pairs; sources: int64 [m], the node that each belongs to."""

    def details(self, labels: np.ndarray, predictions: np.ndarray, valid: LabelledPredictions | None) -> dict[str, Any]:
        """What a person looks at, as JSON data with a `kind`; `valid`, of the validation pairs, settles what is to be
        chosen."""

    def are_labels(self, labels: np.ndarray) -> np.ndarray:
        """bool [m]: which of float64 [m] numbers can be labels."""
