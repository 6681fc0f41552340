"""What an evaluation leaves in TensorBoard, read back from the event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.summary import compute_curve

from dist_gat.evaluate.classification import classification_details
from dist_gat.evaluate.residuals import residual_details
from dist_gat.train.run_log import log_evaluation


def logged(folder: Path, details: dict[str, Any], **result: Any) -> EventAccumulator:
    log_evaluation(folder, {"details": {"test": details}, **result})
    events = EventAccumulator(str(folder / "tensorboard" / "evaluate"))
    events.Reload()
    return events


def test_clicks_have_the_curve_that_torch_draws_of_all_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    predictions = rng.random(500)
    labels = (rng.random(500) < predictions).astype(np.float64)
    events = logged(tmp_path, classification_details(labels, predictions, None))
    (point,) = events.Tensors("precision_recall/test")
    found = np.array(point.tensor_proto.float_val).reshape([d.size for d in point.tensor_proto.tensor_shape.dim])
    if not found.size:
        found = np.frombuffer(point.tensor_proto.tensor_content, np.float32).reshape(6, -1)
    expected = compute_curve(labels, predictions, num_thresholds=101)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert events.SummaryMetadata("precision_recall/test").plugin_data.plugin_name == "pr_curves"


def test_histograms_count_and_sum_all_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.poisson(3.0, 400).astype(np.float64), rng.gamma(3.0, size=400)
    events = logged(tmp_path, residual_details(labels, predictions))
    assert set(events.Tags()["histograms"]) == {"residuals/test/residuals", "residuals/test/predictions"}
    (point,) = events.Histograms("residuals/test/residuals")
    found, residuals = point.histogram_value, labels - predictions
    assert (found.min, found.max, found.num) == (residuals.min(), residuals.max(), 400)
    assert (found.sum, found.sum_squares) == pytest.approx((residuals.sum(), (residuals**2).sum()))
    assert sum(found.bucket) == 400
    assert len(found.bucket) == len(found.bucket_limit)
    for limit, count in zip(found.bucket_limit[1:-1], np.cumsum(found.bucket)[1:-1], strict=True):
        assert count == pytest.approx((residuals < limit).sum(), abs=1)


def test_what_is_undefined_is_left_out(tmp_path: Path) -> None:
    ones = np.ones(3)
    metrics = {"auc": float("nan"), "log_loss": 0.5}
    events = logged(
        tmp_path, classification_details(ones, ones / 2, None), test=metrics, slices={"test": {"auc": None}}
    )
    assert events.Tags()["scalars"] == ["test/log_loss"]
    assert events.Tags()["histograms"] == ["classification/test/1"]
