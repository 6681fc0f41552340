"""Adapters against weights that are merged by hand, and frozen parameters against their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nn_cases import SIZE_OF
from torch.nn.utils import parametrize
from torch.testing import assert_close

from dist_gat.base.errors import ConfigError
from dist_gat.config.model_sections import AdapterConfig, ModelConfig
from dist_gat.config.sections import TrainConfig
from dist_gat.exchange.channel import Channel
from dist_gat.nn.adapters import add_adapter, matrices, merge_adapter
from dist_gat.nn.frozen import freeze, trained_share
from dist_gat.nn.recommender import Recommender, build_recommender
from dist_gat.optim.optimizer import build_optimizers
from dist_gat.sampling.block import Block
from dist_gat.sampling.ownership import Ownership

SIZE, NODES = SIZE_OF[torch.float64], 12
ADAPTER = AdapterConfig(rank=2, alpha=3)


def model_of(**settings: Any) -> Recommender:
    config = ModelConfig(embedding_size=SIZE, **settings)
    owned = Ownership(np.array([0, NODES]), 0)
    return build_recommender(config, 1, {}, owned, Channel("rows"), 0, torch.float64)


def rows_of(model: Recommender, nodes: torch.Tensor) -> torch.Tensor:
    """What a block of 4 destinations and 12 sources makes of the nodes."""
    generator = torch.Generator().manual_seed(2)
    block = Block(
        torch.randint(0, NODES, (4, 5), generator=generator), torch.tensor([5, 3, 0, 1]), NODES,
        torch.randint(1, 9, (NODES, 1), generator=generator),
        edges={"kind": torch.randint(0, 1, (4, 5), generator=generator)},
    )  # fmt: skip
    return model.dense(model.table(nodes), {}, [block]).rows_NR


def shake(model: Recommender) -> None:
    """Other values for all that is trained, which starts at 0."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.dense.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3, generator=generator)


ATTENTIONS: list[dict[str, Any]] = [
    {"scoring": "dot", "num_heads": 2, "transform": "mlp"},
    {"scoring": "additive", "num_heads": 2},
    {"scoring": "additive_v2", "num_heads": 2},
    {"scoring": "degree_dot"},
    {"scoring": "dot", "projection": "relation"},
]


@pytest.mark.parametrize("settings", ATTENTIONS, ids=str)
def test_low_rank_updates_are_merged_weights(settings: dict[str, Any]) -> None:
    plain, model, nodes = model_of(**settings), model_of(**settings), torch.arange(NODES)
    add_adapter(model, ADAPTER, seed=1)
    assert_close(rows_of(model, nodes), rows_of(plain, nodes), atol=0, rtol=0, msg="it starts as the base")
    shake(model)
    updates: dict[str, torch.Tensor] = {}
    for name, tensor in model.dense.named_parameters():
        if name.endswith(".up") and name != "row_adapter.up":
            down = model.dense.get_parameter(name.removesuffix("up") + "down")
            updates[name] = 1.5 * torch.einsum("...or,...ri->...oi", tensor, down)
    places = list(matrices(plain.dense))
    assert len(places) == len(updates) > 0
    with torch.no_grad():
        for module, name in places:
            owner = next(path for path, found in plain.dense.named_modules() if found is module)
            getattr(module, name).add_(updates[f"{owner}.parametrizations.{name}.0.up"])
        adapter = model.dense.row_adapter
        assert adapter is not None
        projection = torch.eye(SIZE, dtype=torch.float64) + 1.5 * adapter.up @ adapter.down
        plain.table.weight.copy_(plain.table.weight @ projection.T)
    expected = rows_of(plain, nodes)
    assert_close(rows_of(model, nodes), expected, atol=1e-6, rtol=1e-6)
    merge_adapter(model)
    assert model.dense.row_adapter is None
    assert not any(parametrize.is_parametrized(module) for module in model.dense.modules())
    assert_close(rows_of(model, nodes), expected, atol=1e-6, rtol=1e-6)
    assert model.dense.state_dict().keys() == plain.dense.state_dict().keys()


def test_a_bias_adapter_trains_what_is_added_alone() -> None:
    model = model_of(scoring="additive", terms=["relation"])
    add_adapter(model, AdapterConfig(kind="bias"), seed=0)
    trained = {name for name, parameter in model.dense.named_parameters() if parameter.requires_grad}
    layer = "encoder.layers.0.scoring"
    assert trained == {f"{layer}.bias", f"{layer}.terms.relation_KH", "row_adapter.bias"}
    shake(model)
    before, nodes = rows_of(model, torch.arange(NODES)), torch.arange(NODES)
    merge_adapter(model)
    assert_close(rows_of(model, nodes), before)


def test_layers_without_matrices_have_nothing_to_adapt() -> None:
    with pytest.raises(ConfigError, match="no matrices; add embeddings"):
        add_adapter(model_of(scoring="degree"), AdapterConfig(of=["attention"]), seed=0)


def step(model: Recommender) -> None:
    optimizers = build_optimizers(model, TrainConfig(learning_rate=0.1), 3)
    for _ in range(3):
        optimizers.zero_grad()
        rows_of(model, torch.arange(NODES)).square().sum().backward()
        optimizers.step()
    frozen = [parameter for parameter in model.dense.parameters() if not parameter.requires_grad]
    assert all(parameter.grad is None for parameter in frozen)
    dense = set() if optimizers.dense is None else set(optimizers.dense.state)
    assert not dense & set(frozen), "moments of a frozen parameter"
    assert bool(optimizers.row_moments(model)) == model.table.weight.requires_grad


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["embeddings"], {"table"}),
        (["encoder.*.key_HII"], {"encoder.layers.0.scoring.key_HII"}),
        (["encoder.*"], {"encoder.layers.0.scoring.key_HII", "encoder.layers.0.scoring.terms.relation_KH"}),
    ],
)
def test_frozen_parameters_keep_their_bits(patterns: list[str], frozen: set[str]) -> None:
    model = model_of(scoring="dot", terms=["relation"])
    freeze(model, patterns)
    parameters = {**dict(model.dense.named_parameters()), "table": model.table.weight}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    step(model)
    assert {name for name, old in before.items() if torch.equal(old, parameters[name])} == frozen


@pytest.mark.parametrize("config", [ADAPTER, AdapterConfig(kind="bias")], ids=["low_rank", "bias"])
def test_id_rows_may_train_beside_an_adapter(config: AdapterConfig) -> None:
    model = model_of(scoring="dot", terms=["relation"])
    nodes = torch.arange(NODES)
    before, key = model.table.weight.detach().clone(), model.dense.encoder.layers[0].scoring.key_HII.detach().clone()
    add_adapter(model, config.model_copy(update={"rows": "trained"}), seed=0)
    step(model)
    assert not torch.equal(model.table.weight, before)
    held = dict(model.dense.named_parameters())
    (name,) = (name for name in held if name.endswith(("key_HII", "key_HII.original")))
    assert torch.equal(held[name], key)
    rows = rows_of(model, nodes)
    merge_adapter(model)
    assert_close(rows_of(model, nodes), rows, atol=1e-6, rtol=1e-6)


def test_an_adapter_freezes_its_base() -> None:
    model = model_of(scoring="dot")
    before = model.table.weight.detach().clone(), model.dense.encoder.layers[0].scoring.key_HII.detach().clone()
    add_adapter(model, ADAPTER, seed=0)
    step(model)
    assert torch.equal(model.table.weight, before[0])
    scoring = model.dense.encoder.layers[0].scoring
    assert torch.equal(scoring.parametrizations.key_HII.original, before[1])
    assert not torch.equal(scoring.key_HII, before[1])
    share = trained_share(model, Channel("control"))
    assert share.trained_rows == 0
    assert share.trained_dense == 2 * 2 * 2 * SIZE
    assert "of ID embeddings" in share.in_words()


def test_what_can_not_be_frozen_is_told() -> None:
    model = model_of(scoring="dot")
    with pytest.raises(ConfigError, match=r"head\* matches no parameter; .*embeddings, encoder.layers.0.scoring.key"):
        freeze(model, ["head*"])
    freeze(model, ["*", "embeddings"])
    with pytest.raises(ConfigError, match="all parameters are frozen"):
        trained_share(model, Channel("control"))
