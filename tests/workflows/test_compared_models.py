"""What `compare` puts side by side: the recipes of the models, and which names there are."""

from __future__ import annotations

from typing import Any

import pytest

from dist_gat.base.errors import ConfigError
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import RankingTask
from dist_gat.workflows.compared_models import MODELS, choose_models, compared_models, model_recipe


def recipe(**sections: Any) -> Config:
    sections = {
        "model": {"num_heads": 4, "scoring": "dot", "normalization": "linear", "combination": "concat"}
        | sections.pop("model", {}),
        **sections,
    }
    tree = {"name": "mine", "data": {"interactions": "a.csv"}, "evaluate": {"baselines": ["ease"]}, **sections}
    return parse_config(tree)


def differing(name: str, config: Config) -> dict[str, Any]:
    """Settings, by dotted key, in which a model's recipe is not the one that it comes from."""

    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        pairs = [(prefix + key, value) for key, value in tree.items()]
        return {
            name: found
            for key, value in pairs
            for name, found in (flat(value, f"{key}.") if isinstance(value, dict) else {key: value}).items()
        }

    before, after = (flat(c.model_dump()) for c in (config, model_recipe(name, config)))
    assert before.keys() == after.keys()
    return {key: value for key, value in after.items() if value != before[key]}


def test_a_model_differs_from_the_recipe_in_what_makes_it_and_in_its_folder() -> None:
    config = recipe(model={"decoder": {"popularity": True}, "projection": "relation"})
    own = {"evaluate.baselines": []}
    assert differing("recipe", config) == own
    place = {name: own | {"name": f"mine-{name}", "run": f"runs/mine/compare/{name}"} for name in MODELS}
    assert differing("mf", config) == place["mf"] | {"model.decoder.popularity": False, "sampling.fanouts": []}
    assert differing("gat", config) == place["gat"] | {
        "model.scoring": "additive",
        "model.normalization": "softmax",
        "model.projection": "none",
        "model.decoder.popularity": False,
        "train.dense_learning_rate": 0.002,
    }
    assert differing("lightgcn", config) == place["lightgcn"] | {
        "model.decoder.popularity": False,
        "model.scoring": "degree",
        "model.num_heads": 1,
        "model.normalization": "softmax",
        "model.projection": "none",
        "model.residual": False,
        "model.combination": "mean",
    }


def test_checkpoints_elsewhere_are_apart_too() -> None:
    config = recipe(checkpoint={"url": "s3://bucket/mine/"})
    urls = [model_recipe(name, config).checkpoint.url for name in MODELS]
    assert urls == [*(f"s3://bucket/mine/compare/{name}" for name in ("mf", "lightgcn", "gat")), "s3://bucket/mine/"]


def test_settings_that_do_not_fit_a_model_are_told() -> None:
    config = recipe(model={"embedding_size": 10})
    with pytest.raises(ConfigError, match="gat: model.embedding_size=10 is not a multiple of num_heads=4"):
        model_recipe("gat", config)


def test_names_are_checked_and_taken_once() -> None:
    assert choose_models(None, RankingTask()) == list(compared_models(RankingTask()))
    assert choose_models(["recipe", "ease", "recipe"], RankingTask()) == ["recipe", "ease"]
    with pytest.raises(ConfigError, match=r"models: svd: expected some of popularity, .*recipe"):
        choose_models(["ease", "svd"], RankingTask())
    with pytest.raises(ConfigError, match="models: none"):
        choose_models([], RankingTask())
