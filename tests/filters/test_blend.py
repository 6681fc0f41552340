"""The filters against dense closed forms, the blend against trying every choice, the same bits on 1, 2 and 4 ranks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, ITEM, USER, Ranks, split_pairs

from dist_gat.config.sections import BlendConfig, EvaluateConfig
from dist_gat.evaluate.full_ranking import ranking_metrics
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker, join_workers
from dist_gat.filters.blend import LINEAR_CHOICES, SPECTRAL_CHOICES, Blend, build_blend
from dist_gat.filters.history_weights import HistoryWeights
from dist_gat.filters.linear_filter import LinearFilter, deflation_rows
from dist_gat.filters.linear_scores import open_linear_scores
from dist_gat.filters.own_neighbors import weighted_neighbors
from dist_gat.filters.spectral_filter import SpectralFilter
from dist_gat.filters.user_items import training_items
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.nn.inputs.id_embedding import EmbeddingShard
from dist_gat.sampling.graph_store import GraphStore, open_store

EVALUATE = EvaluateConfig(ks=[5, 10], user_chunk=7, edge_chunk=60)
RIDGE = 0.06
PLAIN = HistoryWeights({INTERACTS: 1.0})


def open_all(folder: Path, access: Any = "auto") -> tuple[Worker, GraphStore, EmbeddingShard]:
    worker = join_workers(torch.device("cpu"), 1, 30)
    prepared = open_prepared(folder)
    store = open_store(prepared, worker.sampling, access)
    return worker, store, EmbeddingShard(store.ownership, 6, worker.rows, 0, 1.0)


def nodes_of(prepared: PreparedGraph, kind: str) -> np.ndarray:
    ranges = prepared.ranges
    return np.concatenate([np.array(ranges.nodes_of_type(p, kind), int) for p in range(ranges.num_parts)])


def interactions(prepared: PreparedGraph, weights: HistoryWeights = PLAIN) -> np.ndarray:
    """float64 [N, N]: the weight of each training interaction at (user, item), by loops."""
    matrix = np.zeros((prepared.ranges.num_nodes,) * 2)
    found = [
        (user, item, share, number, part, relation)
        for relation, share in weights.relations.items()
        for part in prepared.parts
        for number, (user, item) in enumerate(part.pairs(relation, "train").tolist())
    ]
    for user, item, share, number, part, relation in found:
        weight = share
        if weights.edge_weights != "none":
            weight *= float(part.labels(relation, "train", "weight")[number])
        if weights.half_life is not None:
            time = part.times(relation, "train")[number]
            newer = sum(p.times(r, "train")[n] > time for u, _, _, n, p, r in found if u == user)
            weight *= 0.5 ** (newer / weights.half_life)
        matrix[user, item] += weight
    return matrix


def scales(matrix: np.ndarray, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    user, item = (matrix.sum(axis=axis) for axis in (1, 0))
    return tuple(np.where(degree > 0, degree, 1) ** -exponent for degree in (user, item))


def dense_linear(matrix: np.ndarray) -> np.ndarray:
    user, item = scales(matrix, 0.5)
    normal = user[:, None] * matrix * item
    return user[:, None] * (matrix @ normal.T @ normal)


def dense_spectral(matrix: np.ndarray, rank: int, alike: np.ndarray | None = None) -> np.ndarray:
    """alike: the matrix without half-life, where this one has one."""
    alike = matrix if alike is None else alike
    user, item = scales(alike, 0.25)
    _, sigma, basis = np.linalg.svd(user[:, None] * alike * item)
    user = scales(matrix, 0.25)[0]
    gain = sigma[:rank] ** 2 / (sigma[:rank] ** 2 + RIDGE * sigma[0] ** 2)
    smooth = (basis[:rank].T * gain) @ basis[:rank]
    return user[:, None] ** 2 * ((matrix * item) @ smooth) / item


def dense_deflated(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The linear filter without the leading eigenvectors of P̃."""
    user, item = scales(matrix, 0.5)
    normal = user[:, None] * matrix * item
    squares, vectors = np.linalg.eigh(normal.T @ normal)
    rest = vectors[:, : len(squares) - rank]
    return user[:, None] * (matrix @ (rest * squares[: len(squares) - rank]) @ rest.T)


def scores_of(
    folder: Path, rank: int, access: Any = "auto", weights: HistoryWeights = PLAIN
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """This rank's spectral rows and those that deflate, and for each of its users the linear scores of all items."""
    worker, store, _ = open_all(folder, access)
    profiles = training_items(store, weights)
    neighbors = undecayed = None
    if weights != PLAIN:
        neighbors = weighted_neighbors(profiles, store, worker, INTERACTS)
        alike = training_items(store, replace(weights, half_life=None))
        undecayed = weighted_neighbors(alike, store, worker, INTERACTS)
    spectral = SpectralFilter(store, worker, INTERACTS, rank, RIDGE, 40, 3, undecayed)
    rows = torch.cat(
        [
            spectral.rows(None if weights.half_life is None else neighbors),
            deflation_rows(store, worker, INTERACTS, rank, 40, 3, neighbors),
        ],
        dim=1,
    )
    ranges = store.ranges
    linear = LinearFilter(profiles, ranges.num_parts, ranges.num_nodes, own_parts=store.own_parts)
    found: dict[int, np.ndarray] = {}
    for block in range(ranges.num_parts):
        items = ranges.nodes_of_type(block, ITEM)
        columns = linear.columns(items.start, items.stop)
        for part in store.own_parts:
            for user, row in zip(
                ranges.nodes_of_type(part, USER), linear.scores(linear.kept[part], columns), strict=True
            ):
                found.setdefault(user, np.zeros(ranges.num_nodes))[items.start : items.stop] = row
    return rows.numpy(), found


def test_the_linear_filter_is_its_closed_form(holed: PreparedGraph) -> None:
    _, found = scores_of(holed.folder, 2)
    users, items, expected = nodes_of(holed, USER), nodes_of(holed, ITEM), dense_linear(interactions(holed))
    assert expected[np.ix_(users, items)].max() > 0
    for user in users:
        np.testing.assert_allclose(found[user][items], expected[user][items], rtol=1e-5, atol=1e-7)


def test_few_users_get_the_scores_of_all(synthetic: PreparedGraph) -> None:
    _, store, _ = open_all(synthetic.folder)
    ranges = store.ranges
    linear = LinearFilter(training_items(store, PLAIN), ranges.num_parts, ranges.num_nodes, own_parts=[1])
    profile, items = linear.kept[1][[0, 3]], ranges.nodes_of_type(2, ITEM)
    few = open_linear_scores(training_items(store, PLAIN), ranges.num_parts, ranges.num_nodes)
    companions, nodes = few.companions(profile), np.array(items)
    by_users = few.scores(companions, nodes)
    by_items = linear.scores(profile, linear.columns(items.start, items.stop))
    assert by_items.max() > 0
    np.testing.assert_allclose(by_users, by_items, rtol=1e-5)
    chosen = np.array([5, 0, 9, 2])
    assert np.array_equal(few.scores(companions, nodes[chosen]), by_users[:, chosen])
    assert np.array_equal(few.scores(few.companions(profile[[1]]), nodes[3:]), by_users[1:, 3:])


# 9 items and 12 users: rank 4 cuts the spectrum, and 20 has more columns than there are directions
@pytest.mark.parametrize("rank", [4, 20])
def test_the_spectral_filter_is_its_closed_form(holed: PreparedGraph, rank: int) -> None:
    rows = scores_of(holed.folder, rank)[0][:, :rank]
    users, items = nodes_of(holed, USER), nodes_of(holed, ITEM)
    np.testing.assert_allclose(
        rows[users] @ rows[items].T, dense_spectral(interactions(holed), rank)[np.ix_(users, items)], atol=2e-5
    )


@pytest.mark.parametrize("rank", [4, 20])
def test_deflation_takes_the_leading_directions_out_of_the_linear_filter(holed: PreparedGraph, rank: int) -> None:
    rows, linear = scores_of(holed.folder, rank)
    users, items = nodes_of(holed, USER), nodes_of(holed, ITEM)
    found = np.stack([linear[user] for user in users])[:, items] + rows[users, rank:] @ rows[items, rank:].T
    expected = dense_deflated(interactions(holed), rank)[np.ix_(users, items)]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    # the first direction alone is as large as the score, and with all of them nothing is left
    assert (abs(expected).max() > 0.02) == (rank == 4)


def test_the_filters_have_the_bits_of_one_rank(synthetic: PreparedGraph, ranks: Ranks) -> None:
    rows, linear = scores_of(synthetic.folder, 8)
    for world_size, access in ((2, "auto"), (4, "exchange")):
        parted = ranks.run(world_size, scores_of, synthetic.folder, 8, access)
        assert np.array_equal(np.concatenate([rank[0] for rank in parted]), rows)
        found = {user: row for rank in parted for user, row in rank[1].items()}
        assert found.keys() == linear.keys()
        assert all(np.array_equal(found[user], linear[user]) for user in linear)


def choose(folder: Path, settings: dict[str, Any], metric: str = "ndcg@10") -> tuple[dict[str, float], float]:
    """The weights for random representations, and the validation metric of the blend."""
    worker, store, table = open_all(folder)
    rows_OR = table.weight.detach()
    config = BlendConfig.model_validate({"spectral_rank": 6, "linear": True, **settings})
    blend = build_blend(rows_OR, store, worker, INTERACTS, config, EVALUATE, metric, seed=3)
    return blend.weights, metric_of(blend, rows_OR, store, worker, metric)


def metric_of(blend: Blend, rows_OR: torch.Tensor, store: GraphStore, worker: Worker, metric: str) -> float:
    sample = sample_users(store.prepared, INTERACTS, "valid", store.own_parts, None, 3, worker.control)
    rankings = blend.rank(rows_OR, store, worker, INTERACTS, "valid", EVALUATE, sample.users)
    return ranking_metrics(rankings, store.prepared, Channel("test") if worker.world_size == 1 else worker.control,
                           INTERACTS, "valid", EVALUATE.ks)[metric]  # fmt: skip


@pytest.mark.parametrize("deflation", [0, 3])
def test_no_other_choice_is_better_on_validation(synthetic: PreparedGraph, deflation: int) -> None:
    weights, best = choose(synthetic.folder, {"linear_deflation": deflation})
    worker, store, table = open_all(synthetic.folder)
    rows_OR = table.weight.detach()
    alone = metric_of(Blend(rows_OR[:, :0], rows_OR[:, :0], None), rows_OR, store, worker, "ndcg@10")
    assert best > alone
    blend = build_blend(
        rows_OR, store, worker, INTERACTS,
        BlendConfig(spectral_rank=6, linear=True, linear_deflation=deflation, spectral_weight=1, linear_weight=1),
        EVALUATE, "ndcg@10", seed=3,
    )  # fmt: skip
    # not of the closed form, which the rows are near to: weights that differ a little let near items change places
    spectral = blend.spectral_Ok.double().numpy() @ blend.spectral_Ok.double().numpy().T
    matrix = interactions(synthetic)
    assert unit_of(synthetic, spectral) == pytest.approx(unit_of(synthetic, dense_spectral(matrix, 6)), rel=0.01)
    linear = dense_deflated(matrix, deflation)
    unit = {"spectral": unit_of(synthetic, spectral), "linear": unit_of(synthetic, linear)}
    for name, choices in (("spectral", SPECTRAL_CHOICES), ("linear", LINEAR_CHOICES)):
        assert min(abs(weights[name] / unit[name] - choice) for choice in choices) < 1e-5
    tried = []
    for s, w in product(SPECTRAL_CHOICES, LINEAR_CHOICES):
        other = Blend(blend.spectral_Ok, blend.deflation_Oj, blend.linear, s * unit["spectral"], w * unit["linear"])
        tried.append(metric_of(other, rows_OR, store, worker, "ndcg@10"))
    assert best == pytest.approx(max(tried), abs=1e-6)
    assert len(set(tried)) > 5


def unit_of(prepared: PreparedGraph, scores_NN: np.ndarray) -> float:
    """The weight with which scores vary like the model's over the items of a user."""
    items = nodes_of(prepared, ITEM)
    judged = np.unique(split_pairs(prepared, "valid")[:, 0])
    table = open_all(prepared.folder)[2].weight.detach().double().numpy()
    model, other = (scores[np.ix_(judged, items)] for scores in (table @ table.T, scores_NN))
    return np.sqrt(model.var(axis=1).mean() / other.var(axis=1).mean())


@pytest.mark.parametrize("name", ["spectral", "linear"])
def test_of_two_weights_one_may_be_given(synthetic: PreparedGraph, name: str) -> None:
    weights, best = choose(synthetic.folder, {f"{name}_weight": 0.7})
    assert weights[name] == 0.7
    other = {"spectral": "linear", "linear": "spectral"}[name]
    without = choose(synthetic.folder, {f"{name}_weight": 0.7, f"{other}_weight": 0.0})[1]
    assert without <= best, "the other one is chosen on validation"


def test_ranks_choose_as_one_does(synthetic: PreparedGraph, ranks: Ranks) -> None:
    alone = choose(synthetic.folder, {"num_users": 40})
    for world_size in (2, 4):
        assert ranks.run(world_size, choose, synthetic.folder, {"num_users": 40}) == [alone] * world_size


@pytest.mark.parametrize("deflation", [60, 200])
def test_a_filter_that_deflation_leaves_nothing_of_is_left_out(synthetic: PreparedGraph, deflation: int) -> None:
    """60 items have 60 directions at most: what is left is rounding, which no two ways of adding agree on."""
    settings = {"linear_deflation": deflation, "spectral_rank": 0}
    assert choose(synthetic.folder, settings)[0] == {"spectral": 0, "linear": 0}
    assert choose(synthetic.folder, settings | {"linear_deflation": 3})[0]["linear"] > 0


def test_filters_without_a_weight_are_not_made(synthetic: PreparedGraph) -> None:
    worker, store, table = open_all(synthetic.folder)
    rows_OR = table.weight.detach()
    for settings, kept in (
        ({"spectral_weight": 0, "linear_weight": 2}, (0, 3, True)),
        ({"spectral_weight": 2, "linear_weight": 0}, (6, 0, False)),
        ({"spectral_weight": 2, "linear_weight": 2, "linear": False}, (6, 0, False)),
        ({"spectral_weight": 2, "linear_weight": 2, "spectral_rank": 0}, (0, 3, True)),
    ):
        config = BlendConfig.model_validate({"spectral_rank": 6, "linear": True, "linear_deflation": 3, **settings})
        blend = build_blend(rows_OR, store, worker, INTERACTS, config, EVALUATE, "ndcg@10", seed=3)
        assert (blend.spectral_Ok.shape[1], blend.deflation_Oj.shape[1], blend.linear is not None) == kept
        assert blend.weights == {"spectral": 2.0 * (kept[0] > 0), "linear": 2.0 * kept[2]}
        assert blend.weighted_rows.shape[1] == kept[0] + kept[1]


def test_given_weights_are_kept_and_without_validation_the_model_is_alone(
    synthetic: PreparedGraph, empty_part: PreparedGraph
) -> None:
    given = {"spectral_weight": 1.5, "linear_weight": 0.25}
    assert choose(synthetic.folder, given)[0] == {"spectral": 1.5, "linear": 0.25}
    assert choose(synthetic.folder, {"spectral_rank": 0, "linear": False})[0] == {"spectral": 0, "linear": 0}
    assert not empty_part.num_pairs(INTERACTS, "valid")
    assert choose(empty_part.folder, {})[0] == {"spectral": 0, "linear": 0}
