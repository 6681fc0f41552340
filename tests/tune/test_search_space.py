"""A search space is checked before anything starts: its keys, its distributions, and that its values are possible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.base.errors import ConfigError
from dist_gat.config.files import load_config, parse_config
from dist_gat.tune.search_space import Distribution, configure, dump_space, read_space

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = parse_config({"name": "searched", "data": {"interactions": "a.csv"}})
FINITE = st.floats(-1e300, 1e300)


def read(folder: Path, tree: Any) -> dict[str, Distribution]:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(tree))
    return read_space(path, CONFIG)


@pytest.mark.parametrize("path", sorted((CONFIGS / "spaces").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("recipe", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_spaces_here_fit_the_recipes_here(path: Path, recipe: Path) -> None:
    assert len(read_space(path, load_config(recipe))) > 3


def test_a_space_reads_back_as_it_was_written(tmp_path: Path) -> None:
    tree = {
        "model.embedding_size": {"choice": [64, 128]},
        "sampling.fanouts": {"choice": [[10, 10], [5]]},
        "model.decoder.temperature": {"log_uniform": [0.05, 0.5]},
        "model.init_std": {"uniform": [0.01, 0.2]},
        "train.warmup_steps": {"integer": [0, 100]},
    }
    space = read(tmp_path, tree)
    assert dump_space(space) == tree
    tree = configure(CONFIG, {"model.decoder.temperature": 0.3, "sampling.fanouts": [5]})
    config = parse_config(tree)
    assert (config.model.decoder.temperature, config.sampling.fanouts) == (0.3, [5])
    assert config.train == CONFIG.train


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, ["a map from dotted keys"]),
        (["train"], ["a map from dotted keys"]),
        ({"model.embeding_size": {"choice": [8]}}, ["unknown key model.embeding_size", "mean model.embedding_size?"]),
        ({"model.decodr.temperature": {"uniform": [0.1, 1]}}, ["unknown key model.decodr", "mean model.decoder?"]),
        ({"train.learning_rate.x": {"uniform": [0.1, 1]}}, ["'learning_rate' is a value, not a section"]),
        ({"data.min_weight": {"uniform": [1, 2]}}, ["data.min_weight", "the same in all trials"]),
        ({"train.metric": {"choice": ["ndcg@20"]}}, ["train.metric", "the same in all trials"]),
        ({"train.learning_rate": 0.1}, ["train.learning_rate", "log_uniform: [LOW, HIGH]"]),
        ({"train.learning_rate": {"log_unifrom": [0.1, 1]}}, ["train.learning_rate.log_unifrom", "log_uniform: [LOW"]),
        ({"train.learning_rate": {"uniform": [0.1]}}, ["train.learning_rate.uniform", "at least 2"]),
        ({"train.learning_rate": {"uniform": [0.1, "x"]}}, ["train.learning_rate.uniform.1", "valid number"]),
        ({"train.learning_rate": {"uniform": [0.2, 0.1]}}, ["the low end, 0.2, is not below the high one, 0.1"]),
        ({"train.learning_rate": {"log_uniform": [0, 1]}}, ["the low end, 0.0, is not above 0"]),
        ({"train.learning_rate": {"uniform": [0.1, 1], "choice": [1]}}, ["not exactly one distribution"]),
        ({"train.learning_rate": {"uniform": None}}, ["not exactly one distribution"]),
        ({"train.learning_rate": {"uniform": [-1, 1]}}, ["train.learning_rate", "greater than 0 (got -1.0)"]),
        ({"train.warmup_steps": {"integer": [0, 1.5]}}, ["train.warmup_steps.integer.1", "valid integer"]),
        ({"model.embedding_size": {"uniform": [8, 64]}}, ["model.embedding_size", "fractional part"]),
        ({"model.embedding_size": {"choice": [8, 0]}}, ["model.embedding_size", "greater than 0 (got 0)"]),
        ({"model.scoring": {"choice": ["dot", "cosine"]}}, ["model.scoring", "'additive'", "(got 'cosine')"]),
        ({"model": {"choice": [{}]}, "model.num_heads": {"choice": [1]}}, ["model.num_heads: a part of model"]),
        ({"negatives.num_shared": {"choice": [0]}}, ["there are no negatives"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_key_and_what_was_expected(
    tmp_path: Path, tree: Any, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, tree)
    for word in ["space.yaml", *words]:
        assert word in str(caught.value)


def test_a_value_may_need_another_of_the_space(tmp_path: Path) -> None:
    read(tmp_path, {"negatives.num_shared": {"choice": [0, 64]}, "negatives.in_batch": {"choice": [False, True]}})


@given(
    st.one_of(
        st.lists(st.one_of(st.integers(), st.text(), st.booleans()), min_size=1).map(lambda v: {"choice": v}),
        st.lists(FINITE, min_size=2, max_size=2).map(lambda v: {"uniform": v}),
        st.lists(FINITE, min_size=2, max_size=2).map(lambda v: {"log_uniform": v}),
        st.lists(st.integers(-(2**60), 2**60), min_size=2, max_size=2).map(lambda v: {"integer": v}),
    )
)
def test_a_distribution_is_valid_or_refused_and_contains_its_examples(tree: dict[str, list[Any]]) -> None:
    ((kind, values),) = tree.items()
    possible = kind == "choice" or values[0] < values[1]
    possible = possible and (kind != "log_uniform" or values[0] > 0)
    possible = possible and (kind != "integer" or max(map(abs, values)) <= 2**53)
    if not possible:
        with pytest.raises(ValueError, match="Distribution"):
            Distribution.model_validate(tree)
        return
    distribution = Distribution.model_validate(tree)
    assert distribution.kind == kind
    assert distribution.model_dump(exclude_unset=True) == tree
    for value in distribution.examples():
        assert distribution.contains(value)
    if kind != "choice":
        assert not distribution.contains(math.nextafter(values[1], math.inf))
