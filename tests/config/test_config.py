"""Recipes are checked once, where they enter, and the errors say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from dist_gat.base.errors import ConfigError
from dist_gat.config.data_sections import PruneConfig, RelationConfig
from dist_gat.config.files import all_keys, dump_config, load_config, parse_config
from dist_gat.config.model_sections import AdapterConfig
from dist_gat.config.node_sections import NodesConfig
from dist_gat.config.privacy_section import PrivacyConfig
from dist_gat.config.sections import Config, RelationSamplingConfig
from dist_gat.config.task_sections import TaskConfig
from dist_gat.config.text_section import TextTuningConfig

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
MINIMAL = {"name": "trial", "data": {"interactions": "a.csv"}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def refused(recipe: Path, overrides: list[str], *expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, overrides)
    for text in expected:
        assert text in str(caught.value)


def parsed(**sections: Any) -> Config:
    return parse_config({**MINIMAL, **sections})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_round_trips(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    (tmp_path / "dumped.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "dumped.yaml") == config


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 3


def test_defaults_need_a_name_and_interactions_alone(recipe: Path) -> None:
    config = load_config(recipe)
    assert config.run_folder == Path("runs/trial")
    assert load_config(recipe, ["run=elsewhere"]).run_folder == Path("elsewhere")
    refused(recipe, ["data.interactions=null"], "data.split.method=random needs data.interactions")
    refused(recipe, ["data.split.method=files"], "needs data.train and data.test")


def test_overrides_are_yaml_and_the_last_one_wins(recipe: Path) -> None:
    overrides = [
        "model.num_heads=8",
        "sampling.fanouts=[5, 3]",
        "data.split={method: temporal, test_ratio: 0.3}",
        "train.learning_rate=1e-3",
        "train.max_steps=7",
        "train.max_steps=null",
        "evaluate.baselines=[popularity]",
        "data.separator=;",
        "model.decoder.kind=cosine",
    ]
    config = load_config(recipe, overrides)
    assert config.model.num_heads == 8
    assert config.sampling.fanouts == [5, 3]
    assert (config.data.split.method, config.data.split.test_ratio) == ("temporal", 0.3)
    assert config.train.learning_rate == 0.001
    assert config.train.max_steps is None
    assert config.evaluate.baselines == ["popularity"]
    assert (config.data.separator, config.model.decoder.kind) == (";", "cosine")


def test_an_override_may_contain_equal_signs(recipe: Path) -> None:
    assert load_config(recipe, ["run=a=b"]).run == "a=b"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.num_heads", "expected key=value"),
        ("=3", "expected key=value"),
        ("model.num_heads=[1", "the value is not valid YAML"),
        ("model.num_heads=!!python/name:os.system", "tag tag:yaml.org,2002:python/name"),
        ("model={num_heads: 1, num_heads: 2}", "the key 'num_heads' again"),
        (f"model.num_heads={'[' * 5000}", "nested too deeply"),
        ("name.first=x", "'name' is a value, not a section"),
    ],
)
def test_an_override_of_another_form_is_refused(recipe: Path, override: str, expected: str) -> None:
    refused(recipe, [override], f"override '{override}'", expected)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("model.embeding_size", "model.embedding_size"),
        ("model.heads", "model.num_heads"),
        ("modle.num_heads", "model"),
        ("learning_rate", "train.learning_rate"),
        ("model.decoder.temprature", "model.decoder.temperature"),
        ("data.item_titles.idcolumn", "data.item_titles.id_column"),
        ("sampling.fanout", "sampling.fanouts"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(recipe: Path, key: str, nearest: str) -> None:
    refused(recipe, [f"{key}=3"], f"unknown key {key.split('.')[0]}", f"did you mean {nearest}?", recipe.name)


def test_an_unknown_key_like_no_other_lists_the_valid_ones(recipe: Path) -> None:
    refused(recipe, ["loss.qqqqqq=1"], "unknown key loss.qqqqqq; valid here: loss.kind, loss.log_q, loss.l2")


def test_every_wrong_key_is_named_at_once(recipe: Path) -> None:
    refused(recipe, ["model.num_head=2", "train.batchsize=3"], "model.num_heads?", "train.batch_size?")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.num_heads=many", "model.num_heads: Input should be a valid integer"),
        ("model.num_heads=2.5", "model.num_heads"),
        ("model.num_heads=0", "model.num_heads: Input should be greater than 0 (got 0)"),
        ("model=5", "model: "),
        ("sampling.fanouts=[3, 0]", "sampling.fanouts.1: Input should be greater than 0"),
        ("sampling.fanouts=3", "sampling.fanouts: Input should be a valid list"),
        ("model.scoring=cosine", "model.scoring: Input should be 'dot'"),
        ("train.learning_rate=.nan", "train.learning_rate"),
        ("train.learning_rate=.inf", "train.learning_rate: Input should be a finite number"),
        ('data.prepared="a\\0b"', "data.prepared: the name of a file has no NUL byte"),
        ("data.min_weight=-.inf", "data.min_weight: Input should be a finite number"),
        ("model.negative_slope=.nan", "model.negative_slope: Input should be a finite number (got nan)"),
        ("data.encoding=klingon", "data.encoding: unknown encoding: klingon; expected one of Python"),
        ("data.split.test_ratio=1.0", "data.split.test_ratio: Input should be less than 1"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("seed=18446744073709551616", "seed: "),
        ("name=../x", "name: a name has letters"),
        ("name=.x", "name: a name has letters"),
        ("launch.num_workers=5", "launch.num_workers=5 exceeds parts.num_parts=4"),
        ("train.metric=ndcg@7", "train.metric=ndcg@7 is not one of recall@10"),
        ("train.metric=auc@20", "is not one of"),
        ("evaluate.ks=[5]", "train.metric=ndcg@20 is not one of recall@5"),
        ("negatives.num_shared=0", "there are no negatives"),
        ("model.normalization=linear model.scoring=additive", "normalization=linear is defined for scoring=dot"),
        ("model.scoring=uniform model.transform=mlp", "transform=mlp is for scoring=dot and dot_exp"),
        ("model.scoring=additive model.num_heads=7", "model.embedding_size=64 is not a multiple of num_heads=7"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(recipe: Path, override: str, expected: str) -> None:
    refused(recipe, override.split(" ") if " model" in override else [override], expected, recipe.name)


@pytest.mark.parametrize("text", ["- a", "3", "", "a: [1", "\x00"])
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    refused(path, [], "bad.yaml: ")


def test_a_long_list_of_errors_is_cut(recipe: Path) -> None:
    recipe.write_text(yaml.safe_dump({**MINIMAL, **{f"key{n}": "x" * 100 for n in range(5000)}}))
    with pytest.raises(ConfigError, match=r"unknown key key1005; .*; and 4990 more$"):
        load_config(recipe)
    refused(recipe, ["seed=" + "x" * 1000])
    with pytest.raises(ConfigError) as caught:
        parsed(seed="x" * 1000)
    assert len(str(caught.value)) < 250


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.yaml", [], "none.yaml: no such configuration file")


def test_a_recipe_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parsed().model.num_heads = 3  # type: ignore[misc]


def test_all_keys_are_those_of_a_full_dump() -> None:
    keys = all_keys()
    assert len(keys) == len(set(keys))
    tree = yaml.safe_load(dump_config(parsed(data={"interactions": "a", "item_titles": TITLES})))

    def flat(node: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for name, value in node.items():
            found += [prefix + name, *(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [])]
        return found

    assert set(flat(tree)) <= set(keys)
    features = {f"data.{kind}_features.{leaf}" for kind in ("user", "item") for leaf in (*TITLES, "standardize")}
    of_other_tasks = {f"task.{name}" for kind in get_args(get_args(TaskConfig)[0]) for name in kind.model_fields}
    relations = {f"data.relations.NAME.{key}" for key in all_keys(RelationConfig)}
    relations |= {f"data.nodes.NAME.{key}" for key in all_keys(NodesConfig)}
    relations |= {f"sampling.relations.NAME.{key}" for key in all_keys(RelationSamplingConfig)}
    found = set(keys) - set(flat(tree))
    adapter = {f"model.adapter.{key}" for key in AdapterConfig.model_fields}
    adapter |= {f"model.text.{key}" for key in TextTuningConfig.model_fields}
    privacy = {f"privacy.{key}" for key in all_keys(PrivacyConfig)}
    prune = {f"data.prune.{key}" for key in PruneConfig.model_fields}
    others = features | relations | of_other_tasks | adapter | prune | privacy
    assert found == others - {"task.kind", "task.weight", "task.relation"}


TITLES = {"path": "t", "id_column": "i", "columns": ["c"]}


def test_names_of_files_are_expanded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From text alone: what a configuration says is as it stands, and comes back from its text."""
    monkeypatch.setenv("HOME", "/home/ad$min")
    monkeypatch.setenv("DAY", "3")
    names = {"data.path": "~/tables", "data.interactions": "${DAY}/$DAY.csv", "run": "$$HOME", "data.prepared": "./~x"}
    (tmp_path / "recipe.yaml").write_text("name: a\ncheckpoint: {url: s3://bucket/$DAY}")
    config = load_config(tmp_path / "recipe.yaml", [f"{key}={value}" for key, value in names.items()])
    found = (config.data.path, config.data.interactions, config.run, config.data.prepared, config.checkpoint.url)
    assert found == ("/home/ad$min/tables", "3/3.csv", "$HOME", "./~x", "s3://bucket/3")
    assert parse_config(config.model_dump(mode="json")) == config
    (tmp_path / "dumped.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "dumped.yaml") == config
    literal = config.model_copy(update={"run": "~x"})
    (tmp_path / "dumped.yaml").write_text(dump_config(literal))
    assert load_config(tmp_path / "dumped.yaml").run == "./~x"


@pytest.mark.parametrize(
    ("name", "words"), [("$NO_SUCH/x", "NO_SUCH is not set"), ("~nobody-here/x", "no home is known for ~nobody-here")]
)
def test_a_name_that_cannot_be_expanded_is_refused(recipe: Path, name: str, words: str) -> None:
    refused(recipe, [f"data.path={name}"], "data.path", words)
