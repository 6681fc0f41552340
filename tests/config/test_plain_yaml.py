"""The YAML of recipes: plain values, and our own error for anything else."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dist_gat.base.errors import ConfigError
from dist_gat.config.plain_yaml import MAX_BYTES, dump_yaml, parse_yaml, read_yaml

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


def test_plain_values() -> None:
    text = "a: [1, 2.5, x]\nb: {c: null, d: 'true', e: true}\nf: |\n  two\n  lines\n"
    assert parse_yaml(text, "it") == {
        "a": [1, 2.5, "x"], "b": {"c": None, "d": "true", "e": True}, "f": "two\nlines\n",
    }  # fmt: skip


def test_what_is_dumped_can_be_read_though_an_object_stands_in_it_twice() -> None:
    shared = ["x"]
    assert parse_yaml(dump_yaml({"b": shared, "a": shared}), "it") == {"b": ["x"], "a": ["x"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: !!python/object/apply:os.system ['touch marker']", "line 1: tag tag:yaml.org,2002:python/object/apply"),
        ("a: !!python/name:os.system", "tag"),
        ("x: 1\na: !!binary aGVsbG8=", "line 2: tag tag:yaml.org,2002:binary; a recipe has plain values"),
        ("a: !!int ''", "tag"),
        ("a: &x 1\nb: *x", "line 2: alias *x; write the value again"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "alias"),
        (LAUGHS, "alias *a0"),
        ("a: &x [*x]", "alias *x"),
        ("a: 1\nb: {c: 1, 'c': 2}", "line 2: the key 'c' again; keep one of them"),
        ("a: 1\nb: 2\na: 1", "line 3: the key 'a' again"),
        ("[" * 100_000, "nested too deeply"),
        ("{a: " * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        ("a: " + "9" * 10_000, "not valid YAML"),
        ("a: 2020-13-45", "month"),
        ("a: 0x_", "not valid YAML"),
        ("a: " + ":".join(["59"] * 400) + ".5", "not valid YAML"),
        ("{[1]: 2}", "not valid YAML"),
        ("a: [1", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="^it is not valid YAML: ") as caught:
        parse_yaml(text, "it")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: \xff\xfe", "expected text in UTF-8"),
        ("name: x".encode("utf-16"), "expected text in UTF-8"),
        (pickle.dumps({"name": "x"}), "not valid YAML"),
        (b" " * (MAX_BYTES + 1), "a recipe has at most 1,048,576"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"r\.yaml: .*{expected}"):
        read_yaml(tmp_path / "r.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_yaml(tmp_path)


@given(st.text(alphabet="ab0159.:_-+eExX[]{},'\"&*!<>|%@`#?\n \t=~/T\x07é", max_size=40))
@example("._")
@example("-.:5")
@example("? ")
@example("=")
@example("<<: 3")
@example("<<: [3]")
def test_random_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        parse_yaml(text, "it")
