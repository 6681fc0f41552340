from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import TrainConfig
from dist_gat.exchange.channel import Channel
from dist_gat.nn.recommender import Recommender, build_recommender
from dist_gat.optim.gradient_rules import build_gradient_rules
from dist_gat.optim.optimizer import build_optimizers, gradient_squares, schedule_factor
from dist_gat.sampling.ownership import Ownership


def small_model() -> Recommender:
    model = ModelConfig(embedding_size=4, scoring="dot")
    return build_recommender(model, 1, {}, Ownership(np.array([0, 6]), 0), Channel("test"), 0, torch.float64)


def backward(model: Recommender) -> None:
    """A gradient for rows 1 (twice) and 4, and for the dense weights."""
    rows = model.table(torch.tensor([1, 4, 1]))
    dense = sum((parameter**2).sum() for parameter in model.dense.parameters())
    (3 * rows.sum() + dense).backward()


def test_schedules_follow_their_formulas() -> None:
    linear = TrainConfig(schedule="linear", warmup_steps=4)
    assert [schedule_factor(linear, step, 14) for step in (0, 1, 3, 4, 9, 14)] == pytest.approx(
        [0.25, 0.5, 1, 1, 0.5, 0]
    )
    cosine = TrainConfig(schedule="cosine")
    assert [schedule_factor(cosine, step, 8) for step in (0, 2, 4)] == pytest.approx(
        [1, (1 + math.cos(math.pi / 4)) / 2, 0.5]
    )
    assert schedule_factor(TrainConfig(), 100, 10) == 1.0


@pytest.mark.parametrize("clip_norm", [None, 0.5, 1e6])
def test_the_norm_spans_rows_and_dense_weights(clip_norm: float | None) -> None:
    model = small_model()
    backward(model)
    gradients = [model.table.weight.grad.to_dense(), *(p.grad.clone() for p in model.dense.parameters())]
    expected = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    rows_square, dense_square = gradient_squares(model)
    assert math.sqrt(rows_square + dense_square) == pytest.approx(expected)
    if clip_norm is not None:
        (rule,) = build_gradient_rules(TrainConfig(clip_norm=clip_norm))
        rule.apply(model, expected, 0)
    after = [model.table.weight.grad.to_dense(), *(p.grad for p in model.dense.parameters())]
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in after))
    assert norm == pytest.approx(min(expected, clip_norm or expected))


def test_a_step_moves_only_rows_with_a_gradient_and_sets_both_rates() -> None:
    model = small_model()
    before = model.table.weight.detach().clone()
    optimizers = build_optimizers(model, TrainConfig(learning_rate=0.1, dense_learning_rate=0.02), 10)
    assert optimizers.set_learning_rate(0) == 0.1
    backward(model)
    dense_before = [parameter.detach().clone() for parameter in model.dense.parameters()]
    optimizers.step()
    moved = (model.table.weight.detach() - before).abs().amax(dim=1)
    # the first step of Adam moves every touched weight by the learning rate
    assert moved.tolist() == pytest.approx([0, 0.1, 0, 0, 0.1, 0], abs=1e-6)
    for parameter, old in zip(model.dense.parameters(), dense_before, strict=True):
        touched = old != 0
        assert (parameter.detach() - old)[touched].abs().tolist() == pytest.approx(
            [0.02] * int(touched.sum()), abs=1e-6
        )
