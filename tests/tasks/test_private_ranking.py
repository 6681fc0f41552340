"""The gradient of a private step against loops over its users, and against Opacus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, split_pairs
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from recipes import private_columns, private_recipe
from torch import Tensor, nn

from dist_gat.api import prepare
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.worker import lone_worker
from dist_gat.nn.inputs.input_encoder import Factors
from dist_gat.privacy import ledger
from dist_gat.sampling.batch import Batch
from dist_gat.tasks import input_gradients
from dist_gat.tasks.private_ranking import ClippedGradients, clipped_gradients, user_inputs
from dist_gat.tasks.private_seeds import PrivateSeeds
from dist_gat.train.trainer import Trainer

SECRET = bytes(range(32))
SCALE = 5.0  # of the rows, so that the gradients of users differ


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    write_synthetic(folder / "raw", 60, 40, 4, 9, 0.2, seed=1)
    prepare(private_recipe(folder))
    return folder


def open_trainer(folder: Path, run: Path, scoring: str = "additive", has_columns: bool = False) -> Trainer:
    """With a known secret, and a bound that cuts the gradients of half of the users of step 0."""
    model = {"scoring": scoring, "num_heads": 2 if scoring == "additive" else 1}
    sections: dict[str, Any] = {"train": {"precision": "float64"}, "model": model}
    if has_columns:
        sections |= private_columns(folder, 40)
        sections["data"]["prepared"] = str(folder / "with_columns")
    config = private_recipe(folder, **sections).model_copy(update={"run": str(run)})
    if has_columns and not Path(config.data.prepared).exists():
        prepare(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "secrets", SimpleNamespace(token_bytes=lambda size: SECRET[:size]))
        trainer = Trainer(config, lone_worker())
    with torch.no_grad():
        trainer.model.table.weight.mul_(SCALE)
        for weight in trainer.model.dense.inputs.parameters():
            # scores stay where softplus is itself, and not its argument
            weight.normal_(std=0.3)
    norm_B = clipped(trainer, batch_of(trainer, 0)).norm_B
    trainer.task = replace(trainer.task, clip=float(norm_B.median()))
    return trainer


def clipped(trainer: Trainer, batch: Batch) -> ClippedGradients:
    rows, factors = input_rows(trainer, batch).detach(), factors_of(trainer, batch)
    return clipped_gradients(scoring_of(trainer), user_inputs(rows, batch), trainer.task.clip, len(rows), factors)


def input_rows(trainer: Trainer, batch: Batch) -> Tensor:
    return trainer.model.dense.input_rows(trainer.model.table(batch.nodes_U), batch.features, batch.has_id_U)


def factors_of(trainer: Trainer, batch: Batch) -> list[Factors]:
    return trainer.model.dense.inputs.factors(batch.features, len(batch.nodes_U))


def scoring_of(trainer: Trainer) -> Any:
    return trainer.model.encoder.layers[0].scoring


@pytest.fixture(scope="module", params=["additive", "uniform", "additive, columns", "uniform, columns"])
def trainer(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trainer]:
    scoring, _, columns = request.param.partition(", ")
    trainer = open_trainer(folder, tmp_path_factory.mktemp("run"), scoring, bool(columns))
    yield trainer
    trainer.log.close()


def batch_of(trainer: Trainer, step: int) -> Batch:
    return trainer.samplers[0].sample(trainer.store, torch.tensor([0, step]))


def gradients(trainer: Trainer, loss: Tensor) -> list[Tensor]:
    """Of the table, dense, and of the weights."""
    inputs = [trainer.model.table.weight, *trainer.model.dense.parameters()]
    found = torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)
    dense = [torch.zeros_like(one) if g is None else g for one, g in zip(inputs, found, strict=True)]
    return [gradient.to_dense() if gradient.is_sparse else gradient for gradient in dense]


def loss_of_user(seeds: PrivateSeeds, rows_NR: Tensor, own_at: set[int], user: int) -> Tensor:
    """By the rows that the encoder gives."""
    targets = seeds.target_at_BP[user, : int(seeds.num_targets_B[user])].tolist()
    met, z = own_at | {*targets}, rows_NR[seeds.user_at_B[user]]
    rest = [
        z @ rows_NR[at] + log_drawn
        for at, log_drawn in zip(seeds.negative_at_N.tolist(), seeds.log_drawn_N.double(), strict=True)
        if at not in met
    ]
    scores = [torch.stack([z @ rows_NR[at], *rest]) for at in targets]
    return torch.stack([score.logsumexp(0) - score[0] for score in scores]).mean()


@pytest.mark.parametrize("step", [0, 2])
def test_a_step_adds_up_cut_gradients_of_users_that_the_encoder_represents(trainer: Trainer, step: int) -> None:
    model, batch, clip = trainer.model, batch_of(trainer, step), trainer.task.clip
    embedding_UE = model.table(batch.nodes_U, batch.lookup)
    encoded = model.dense(embedding_UE, batch.features, batch.blocks, None, batch.place_S, batch.has_id_U)
    seeds, block = batch.seeds, batch.blocks[-1]
    assert isinstance(seeds, PrivateSeeds)
    # sources are numbered like the seed nodes that they are, and behind them
    expected: list[Tensor] = []
    norms = []
    for user, at in enumerate(seeds.user_at_B.tolist()):
        own_at = {*block.neighbors_DF[at, : int(block.count_D[at])].tolist()}
        own = gradients(trainer, loss_of_user(seeds, encoded.rows_NR, own_at, user))
        norms.append(float(torch.cat([one.flatten() for one in own]).norm()))
        own = [one * min(1, clip / norms[-1]) for one in own]
        expected = own if not expected else [a + b for a, b in zip(expected, own, strict=True)]
    assert min(norms) < clip < max(norms)
    assert len(norms) > 10
    terms = trainer.task.loss(model, encoded.rows_NR, embedding_UE, batch, trainer.worker.rows)
    found = gradients(trainer, terms["softmax"])
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine * trainer.config.train.batch_size, theirs, rtol=0, atol=1e-12)
    assert clipped(trainer, batch).norm_B.tolist() == pytest.approx(norms, rel=1e-10)


def test_norms_are_the_same_for_a_few_users_at_a_time(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(trainer, 0)
    whole = clipped(trainer, batch).norm_B
    for most in (1, 3):
        monkeypatch.setattr(input_gradients, "CHUNK", most * 10 * 8)
        assert torch.allclose(clipped(trainer, batch).norm_B, whole, rtol=1e-14, atol=0)


class EqualModel(nn.Module):
    """The same ranking without a graph: a user is a list of items. Heads of the attention side by side.

    factors_SD, inputs_DE: of all encoders of columns, side by side."""

    def __init__(
        self, rows_SE: Tensor, factors_SD: Tensor, inputs_DE: Tensor, weights: dict[str, Tensor], widths: list[int]
    ) -> None:
        super().__init__()
        self.widths, self.factors_SD = widths, factors_SD
        self.inputs_DE = nn.Parameter(inputs_DE.clone())
        self.rows_SE = nn.Parameter(rows_SE.clone())
        self.value, self.source, self.query, self.bias = (
            nn.Parameter(weights[name].clone()) for name in ("value.weight", "source_HO", "query_HO", "bias")
        )

    def forward(self, packed: Tensor) -> Tensor:
        """[B]: losses. Opacus gives one tensor: own items, which of them are real, the same of targets, and how often
        each item serves as a negative, side by side."""
        own, is_own, target, is_target, allowed = packed.split(self.widths, dim=1)
        own, target, is_own = own.long(), target.long(), is_own > 0
        rows_SE = self.rows_SE + self.factors_SD @ self.inputs_DE
        own_BFE, heads = rows_SE[own], len(self.source)
        value_BFHO = (own_BFE @ self.value.T).unflatten(-1, (heads, -1))
        logit_BFH = nn.functional.leaky_relu((value_BFHO * self.source).sum(-1), 0.2)
        share_BFH = (logit_BFH.masked_fill(~is_own[..., None], -1e9).softmax(1) * is_own[..., None]).unsqueeze(-1)
        user_BE = (share_BFH * value_BFHO).sum(1).flatten(1) + self.bias + 0 * self.query.sum()
        score_BS = user_BE @ (rows_SE + self.bias).T
        rest_B1 = (score_BS.exp() * allowed).sum(1, keepdim=True)
        target_BP = score_BS.gather(1, target)
        return (((rest_B1 + target_BP.exp()).log() - target_BP) * is_target).sum(1) / is_target.sum(1)


def dense_factors(own: Factors) -> Tensor:
    """[S, D]"""
    if own.code_nL is None:
        return own.value_nL
    return own.value_nL.new_zeros(len(own.value_nL), own.size).scatter_add(1, own.code_nL, own.value_nL)


@pytest.mark.parametrize("has_columns", [False, True])
def test_opacus_has_the_same_clipped_sums(folder: Path, tmp_path: Path, has_columns: bool) -> None:
    trainer = open_trainer(folder, tmp_path, has_columns=has_columns)
    batch, scoring, clip = batch_of(trainer, 1), scoring_of(trainer), trainer.task.clip
    rows_SE = trainer.model.table.weight.detach()[batch.nodes_U]
    factors = [torch.zeros(len(rows_SE), 0, dtype=rows_SE.dtype), *map(dense_factors, factors_of(trainer, batch))]
    factors_SD, input_SE = torch.cat(factors, dim=1), input_rows(trainer, batch).detach()
    # such weights as give the input rows
    is_item_S = (batch.has_id_U if batch.has_id_U is not None else torch.ones(len(rows_SE), dtype=torch.bool))[:, None]
    inputs_DE = torch.linalg.lstsq(factors_SD, (input_SE - rows_SE) * is_item_S, driver="gelsd").solution
    assert torch.allclose(((rows_SE + factors_SD @ inputs_DE) - input_SE) * is_item_S, torch.zeros_like(input_SE))
    inputs = user_inputs(input_SE.clone(), batch)
    allowed = torch.zeros(len(inputs.own_at_BF), len(rows_SE), dtype=torch.float64)
    allowed[:, inputs.negative_at_N] = inputs.log_drawn_N.exp() * ~inputs.is_met_BN
    weights = {name: weight.detach() for name, weight in scoring.named_parameters()}
    parts = [inputs.own_at_BF, inputs.is_own_BF, inputs.target_at_BP, inputs.is_target_BP, allowed]
    equal = EqualModel(rows_SE, factors_SD, inputs_DE, weights, [part.shape[1] for part in parts])
    model = GradSampleModule(equal, force_functorch=True, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=None,
        loss_reduction="sum",
    )  # fmt: skip
    model(torch.cat([part.double() for part in parts], dim=1).requires_grad_()).sum().backward()
    optimizer.clip_and_accumulate()
    theirs = {name: one.summed_grad for name, one in model._module.named_parameters()}
    cut = clipped(trainer, batch)
    mine = [cut.rows_SE, factors_SD.T @ cut.rows_SE, *cut.weights]
    names = ["rows_SE", "inputs_DE", *(name.replace("value.weight", "value").removesuffix("_HO") for name in weights)]
    for name, own in zip(names, mine, strict=True):
        assert not own.numel() or float(theirs[name].abs().max()) > 0 or name == "query"
        # Opacus divides by the norm and 1e-6
        assert torch.allclose(own, theirs[name], rtol=2e-5, atol=1e-6), name
    trainer.log.close()


def change_without(trainer: Trainer, user: int) -> float:
    """By how much the sum of a step changes, in L2, when one drawn user is not there."""
    batch, scoring = batch_of(trainer, 0), scoring_of(trainer)
    with_graph = input_rows(trainer, batch)
    rows, factors, sums = with_graph.detach(), factors_of(trainer, batch), []
    for kept in (
        torch.ones(len(batch.seeds.user_at_B), dtype=torch.bool),
        torch.arange(len(batch.seeds.user_at_B)) != user,
    ):
        inputs = user_inputs(rows.clone(), batch)
        only = {
            name: value[kept] for name, value in inputs._asdict().items() if name.rpartition("_")[2].startswith("B")
        }
        cut = clipped_gradients(scoring, inputs._replace(**only), trainer.task.clip, len(rows), factors)
        encoders = [*trainer.model.dense.inputs.parameters()]
        by_encoders = torch.autograd.grad(with_graph, encoders, cut.rows_SE, retain_graph=True) if encoders else []
        sums.append(torch.cat([one.flatten() for one in (cut.rows_SE, *cut.weights, *by_encoders)]))
    return float((sums[0] - sums[1]).norm())


def test_one_user_changes_the_sum_by_no_more_than_the_bound(trainer: Trainer) -> None:
    changes = [change_without(trainer, user) for user in range(10)]
    assert max(changes) == pytest.approx(trainer.task.clip)
    assert all(change <= trainer.task.clip * (1 + 1e-9) for change in changes)


def test_users_are_drawn_alone_with_few_pairs_each(trainer: Trainer) -> None:
    source, drawn = trainer.task.source(trainer.store), []
    pairs = {*map(tuple, split_pairs(trainer.store.prepared, "train").tolist())}
    for step in range(200):
        step_of = source.draw(step // 3, step % 3)
        drawn.append(step_of.users)
        assert {*map(tuple, step_of.pairs.nodes.tolist())} <= pairs
        users, count = np.unique(step_of.pairs.nodes[:, 0], return_counts=True)
        assert np.array_equal(users, step_of.users)
        assert np.array_equal(count, step_of.num_targets)
        all_of = np.array([sum(pair[0] == user for pair in pairs) for user in users.tolist()])
        assert np.array_equal(count, np.minimum(4, (all_of + 1) // 2))
    counts = np.bincount(np.concatenate(drawn))[source.users[0]]
    # 200 draws at the rate 0.4, of 60 users
    assert abs(counts.mean() - 80) < 3
    assert 25 < counts.var() < 85
    assert INTERACTS.name == source.relation.name
