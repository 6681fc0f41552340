"""What TensorBoard and the report have of learned terms, after training on a small world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from recipes import prepare_and_train
from small_world import world_recipe, write_world
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dist_gat import api
from dist_gat.explain.trained_run import open_trained_run
from dist_gat.nn.learned_terms import learned_curves, learned_numbers


def test_each_validation_records_the_curves_of_the_model(tmp_path: Path) -> None:
    write_world(tmp_path / "raw")
    config = world_recipe(
        tmp_path,
        model={"terms": ["relation", "weight", "age", "rank", "degree"], "scoring": "dot"},
        train={"num_epochs": 1},
    )
    prepare_and_train(config)
    encoder = open_trained_run(config).model.encoder
    curves = {f"attention_{one.term}/layer_{one.layer}/{one.edge_type}": one for one in learned_curves(encoder)}
    assert "attention_age/layer_2/interacts" in curves
    events = EventAccumulator(str(config.run_folder / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["histograms"]) == set(curves)
    for tag, curve in curves.items():
        (point,) = events.Histograms(tag)
        np.testing.assert_allclose(point.histogram_value.bucket, np.nan_to_num(curve.factors))
        np.testing.assert_allclose(
            np.array(point.histogram_value.bucket_limit) - curve.knots, np.diff(curve.knots)[0] / 2
        )
    numbers = learned_numbers(encoder)
    assert numbers
    for tag, value in numbers.items():
        assert np.isclose(events.Scalars(tag)[-1].value, value)
    page = api.report(config).read_text()
    assert "What did attention learn of edges?" in page
    assert "Rank in the history" in page
