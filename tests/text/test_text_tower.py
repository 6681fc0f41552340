"""LoRA in the loop: what is trained, what is kept, and what a refresh says, on a random BERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import save_bert, save_sentence_model

from dist_gat.base.errors import ConfigError
from dist_gat.config.text_section import TextEncoderConfig, TextTuningConfig
from dist_gat.text.text_encoder import TextEncoder
from dist_gat.text.text_tower import TextTower

pytest.importorskip("peft")

TEXTS = ["red cat", "blue dog eats", "", "old river", "green fish sees the house", "new"]
CONFIG = TextTuningConfig(rank=2, nodes_per_step=3, refresh_every=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bert = save_bert(tmp_path_factory.mktemp("bert"))
    return save_sentence_model(tmp_path_factory.mktemp("sentences"), bert)


def tower_of(model: Path, seed: int = 0) -> TextTower:
    encoder = TextEncoder(model, TextEncoderConfig(encoder=str(model), device="cpu"))
    kept = torch.empty(len(TEXTS), encoder.size)
    for rows, vectors in encoder.encode(TEXTS):
        kept[rows] = torch.from_numpy(vectors)
    return TextTower(encoder, TEXTS, kept, CONFIG, seed)


NODES = torch.tensor([4, 0, 3, 1])
TRAINED = torch.tensor([True, False, True, False])


def test_at_first_the_vectors_are_those_of_the_frozen_encoder(model: Path) -> None:
    tower = tower_of(model).train()
    assert torch.allclose(tower(NODES, TRAINED), tower.kept_ND[NODES], atol=1e-6)
    assert torch.equal(tower(NODES, torch.zeros(4, dtype=torch.bool)), tower.kept_ND[NODES])


def test_the_adapters_alone_are_trained_and_through_the_chosen_nodes_alone(model: Path) -> None:
    tower = tower_of(model).train()
    names = [name for name, parameter in tower.named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    goal = torch.randn(4, tower.encoder.size, generator=torch.Generator().manual_seed(0))
    before = {name: parameter.clone() for name, parameter in tower.named_parameters()}
    optimiser = torch.optim.Adam([p for p in tower.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        vectors = tower(NODES, TRAINED)
        assert torch.equal(vectors[~TRAINED], tower.kept_ND[NODES[~TRAINED]])
        loss = (vectors - goal)[TRAINED].square().sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    changed = {name for name, parameter in tower.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed <= set(names)


def test_a_refresh_makes_kept_vectors_anew_and_says_how_stale_they_were(model: Path) -> None:
    tower = tower_of(model)
    assert [tower.is_due(epoch) for epoch in range(4)] == [False, False, True, True]
    assert abs(tower.refresh(2)) < 1e-6
    assert [tower.is_due(epoch) for epoch in (2, 3, 4)] == [False, False, True]
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if "lora_B" in name:
                parameter += 0.3
    old = tower.kept_ND.clone()
    batches: list[int] = []
    staleness = tower.refresh(4, lambda: batches.append(1))
    assert len(batches) == len(set((tower.starts[1:] - tower.starts[:-1]).tolist()))
    assert staleness == pytest.approx((1 - torch.cosine_similarity(old, tower.kept_ND)).mean().item())
    assert staleness > 0.01
    everything = torch.arange(len(TEXTS))
    assert torch.allclose(tower(everything, torch.ones(len(TEXTS), dtype=torch.bool)), tower.kept_ND, atol=1e-6)


def test_the_start_is_a_function_of_the_seed(model: Path) -> None:
    state = torch.get_rng_state()
    one, again, other = (dict(tower_of(model, seed).named_parameters()) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(parameter, again[name]) for name, parameter in one.items())
    assert any(not torch.equal(parameter, other[name]) for name, parameter in one.items())


def test_the_lowest_draws_are_chosen(model: Path) -> None:
    tower = tower_of(model)
    draws = torch.tensor([0.5, 0.1, 0.9, 0.4])
    assert tower.choose(NODES, draws).tolist() == [True, True, False, True]


def test_an_encoder_that_reads_no_tokens(model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    static = StaticEmbedding(Tokenizer.from_file(str(model / "tokenizer.json")), embedding_dim=4)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path))
    encoder = TextEncoder(tmp_path, TextEncoderConfig(encoder=str(tmp_path), device="cpu"))
    with pytest.raises(ConfigError, match="can't be trained"):
        TextTower(encoder, TEXTS, torch.zeros(len(TEXTS), 4), CONFIG, seed=0)
