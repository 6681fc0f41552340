"""Two trees of settings compared whole: sections, optional ones, mappings of them, and keys of one side alone."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic.fields import FieldInfo

from dist_gat.config.differences import differing_settings, resume_rule
from dist_gat.config.section import FREE, LENGTH, Section
from dist_gat.config.sections import Config


class Node(Section):
    size: int = 8
    path: Annotated[str, FREE] = "here"
    columns: list[str] = []


class Toy(Section):
    seed: int = 0
    steps: Annotated[int, LENGTH] = 1
    nodes: dict[str, Node] = {}
    extra: Node | None = None
    plain: dict[str, Any] = {}


def differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return differing_settings(saved, now, lambda key, field: resume_rule(field) == FREE, Toy)


def tree(**settings: Any) -> dict[str, Any]:
    return Toy.model_validate(settings).model_dump(mode="json")


def test_equal_trees_have_no_differences() -> None:
    assert differences(tree(nodes={"user": {}}), tree(nodes={"user": {}})) == []


@pytest.mark.parametrize(
    ("saved", "now", "expected"),
    [
        ({"seed": 1}, {"seed": 2}, ["seed: saved 1, now 2"]),
        ({"steps": 1}, {"steps": 2}, ["steps: saved 1, now 2"]),
        # a setting inside a mapping of sections
        ({"nodes": {"user": {"size": 8}}}, {"nodes": {"user": {"size": 16}}}, ["nodes.user.size: saved 8, now 16"]),
        ({"nodes": {"user": {"path": "a"}}}, {"nodes": {"user": {"path": "b"}}}, []),
        ({"extra": {"size": 3}}, {"extra": {"size": 4, "path": "b"}}, ["extra.size: saved 3, now 4"]),
        ({"plain": {"a": {"b": 1}}}, {"plain": {"a": {"b": 2}}}, ["plain.a.b: saved 1, now 2"]),
    ],
)
def test_a_setting_is_found_wherever_it_stands_and_may_be_free(
    saved: dict[str, Any], now: dict[str, Any], expected: list[str]
) -> None:
    assert differences(tree(**saved), tree(**now)) == expected


def test_a_name_of_one_side_alone_is_a_difference() -> None:
    (added,) = differences(tree(nodes={"user": {}}), tree(nodes={"user": {}, "item": {}}))
    (gone,) = differences(tree(nodes={"user": {}, "item": {}}), tree(nodes={"user": {}}))
    assert added.startswith("nodes.item: saved None, now {")
    assert gone.startswith("nodes.item: saved {")
    (optional,) = differences(tree(), tree(extra={}))
    assert optional.startswith("extra: saved None, now {")
    (unknown,) = differences({**tree(), "newer": {"x": 1}}, tree())
    assert unknown == "newer: saved {'x': 1}, now None"


def test_a_setting_that_is_newer_than_the_saved_tree_had_its_default() -> None:
    saved = tree(nodes={"user": {}})
    for name in ("seed", "extra"):
        del saved[name]
    del saved["nodes"]["user"]["columns"]
    assert differences(saved, tree(nodes={"user": {}})) == []
    now = tree(nodes={"user": {"columns": ["a"]}}, seed=3)
    assert differences(saved, now) == ["seed: saved 0, now 3", "nodes.user.columns: saved [], now ['a']"]


def test_every_setting_says_what_a_resumed_run_may_do_with_it() -> None:
    """Those that are free are listed here once more, so that a new one is decided about."""

    def marked(kind: type[Section], prefix: str = "") -> dict[str, str]:
        found = {}
        for name, field in kind.model_fields.items():
            if rule := resume_rule(field):
                found[prefix + name] = rule.name
            elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                found |= marked(field.annotation, f"{prefix}{name}.")
        return found

    assert isinstance(Config.model_fields["seed"], FieldInfo)
    free = [
        *("name", "run", "data", "parts", "launch", "checkpoint", "evaluate", "blend"),
        *(f"sampling.{name}" for name in ("prefetch", "num_streams", "access", "cache_bytes")),
        *(
            f"train.{name}"
            for name in ("stop_epoch", "patience", "until", "min_gain", "validate_every", "log_every", "profile")
        ),
    ]
    length = ["train.num_epochs", "train.max_steps"]
    assert marked(Config) == {**dict.fromkeys(free, "FREE"), **dict.fromkeys(length, "LENGTH")}
