"""LoRA in the loop: what is trained, and what is remembered of the kept vectors, on a random BERT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import save_bert, save_sentence_model

from dist_gat.base.errors import ConfigError
from dist_gat.config.text_section import TextEncoderConfig, TextTuningConfig
from dist_gat.text.text_encoder import TextEncoder
from dist_gat.text.text_tower import TextTower
from dist_gat.text.tokens import token_rows

pytest.importorskip("peft")

TEXTS = ["red cat", "blue dog eats", "old river", "green fish sees the house", "new"]
CONFIG = TextTuningConfig(rank=2, nodes_per_step=3, refresh_every=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bert = save_bert(tmp_path_factory.mktemp("bert"))
    return save_sentence_model(tmp_path_factory.mktemp("sentences"), bert)


def encoder_of(model: Path) -> TextEncoder:
    return TextEncoder(model, TextEncoderConfig(encoder=str(model), device="cpu"))


def tower_of(model: Path, seed: int = 0) -> TextTower:
    return TextTower(encoder_of(model), CONFIG, seed)


def tokens_of(tower: TextTower) -> torch.Tensor:
    return torch.from_numpy(token_rows(pl.Series(TEXTS), tower.encoder))


def move(tower: TextTower) -> None:
    with torch.no_grad():
        for name, weight in tower.updates.items():
            if "lora_B" in name:
                weight += 0.3


def test_tokens_are_all_that_the_model_reads(model: Path) -> None:
    encoder = encoder_of(model)
    found = token_rows(pl.Series(["red cat", None, " ", "the old river"]), encoder)
    expected = encoder.tokens(["red cat", "the old river"])["input_ids"]
    assert found.dtype == np.int32
    assert found.tolist() == [[*expected[0], -1], [-1] * 5, [-1] * 5, expected[1]]
    assert token_rows(pl.Series([None], dtype=pl.String), encoder).tolist() == [[-1]]


def test_at_first_the_vectors_are_those_of_the_frozen_encoder(model: Path) -> None:
    tower, frozen = tower_of(model).train(), torch.empty(len(TEXTS), 8)
    for rows, vectors in encoder_of(model).encode(TEXTS):
        frozen[rows] = torch.from_numpy(vectors)
    assert torch.allclose(tower(tokens_of(tower)), frozen, atol=1e-6)
    assert tower(tokens_of(tower)[:0]).shape == (0, 8)


def test_the_updates_alone_are_parameters_and_learn(model: Path) -> None:
    tower = tower_of(model).train()
    assert {name.partition(".")[0] for name, _ in tower.named_parameters()} == {"updates"}
    assert all("lora_" in name for name, _ in tower.named_parameters())
    frozen = {name: weight.clone() for name, weight in tower.encoder.model.named_parameters() if "lora" not in name}
    goal = torch.nn.functional.normalize(torch.randn(len(TEXTS), 8, generator=torch.Generator().manual_seed(0)))
    tokens = tokens_of(tower)
    optimiser = torch.optim.Adam(tower.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = (tower(tokens) - goal).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    now = dict(tower.encoder.model.named_parameters())
    assert all(torch.equal(weight, now[name]) for name, weight in frozen.items())
    # whoever encodes texts with the encoder itself has them too
    for rows, vectors in tower.encoder.encode(TEXTS):
        assert np.allclose(vectors, tower(tokens)[rows].detach(), atol=1e-5)


def test_nothing_reaches_every_update(model: Path) -> None:
    tower = tower_of(model)
    tower.nothing().backward()
    assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in tower.updates.values())


def test_the_updates_of_the_kept_vectors_are_remembered(model: Path) -> None:
    tower = tower_of(model)
    tokens = tokens_of(tower)
    assert [tower.is_due(epoch) for epoch in range(4)] == [False, False, True, True]
    move(tower)
    kept = tower(tokens)
    tower.keep(2)
    assert [tower.is_due(epoch) for epoch in (2, 3, 4)] == [False, False, True]
    move(tower)
    present = tower(tokens)
    assert not torch.allclose(kept, present, atol=0.01)
    other = tower_of(model, seed=1)
    other.load_state_dict(tower.state_dict())
    with other.as_kept():
        assert torch.equal(other(tokens), kept)
    assert torch.equal(other(tokens), present)
    assert other.is_due(4)
    assert not other.is_due(3)
    other.expire()
    assert other.is_due(0)


def test_the_start_is_a_function_of_the_seed(model: Path) -> None:
    state = torch.get_rng_state()
    one, again, other = (dict(tower_of(model, seed).named_parameters()) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(parameter, again[name]) for name, parameter in one.items())
    assert any(not torch.equal(parameter, other[name]) for name, parameter in one.items())


def test_an_encoder_that_reads_no_tokens(model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    static = StaticEmbedding(Tokenizer.from_file(str(model / "tokenizer.json")), embedding_dim=4)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path))
    encoder = TextEncoder(tmp_path, TextEncoderConfig(encoder=str(tmp_path), device="cpu"))
    for refused in (lambda: TextTower(encoder, CONFIG, seed=0), lambda: token_rows(pl.Series(TEXTS), encoder)):
        with pytest.raises(ConfigError, match="can't be trained"):
            refused()
