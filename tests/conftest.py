"""Fixtures of the whole suite. Prepared folders are shared by the session and only read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Compiled kernels go by the content of their sources, here and in processes that tests start; before numba is imported.
os.environ["NUMBA_CACHE_LOCATOR_CLASSES"] = "dist_gat.kernels.compile_cache.ContentLocator,InTreeCacheLocator"

from helpers import Ranks, prepare_pairs, prepare_synthetic, random_pairs
from hypothesis import settings
from ray_head import Head, running_head
from recipes import prepare_and_train, small_recipe

from dist_gat.data.synthetic import write_synthetic
from dist_gat.graph.part import PreparedGraph

# a first example may compile a kernel
settings.register_profile("dist_gat", deadline=None)
settings.load_profile("dist_gat")

# Groups of tests that take longest, so that neither process has one of them left when the other is done.
LONG_GROUPS = ("ray", "nn/test_attend.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes one has all tests of a file, which share what they set up, and one all that start Ray."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            file = item.path.relative_to(Path(__file__).parent).as_posix()
            item.add_marker(pytest.mark.xdist_group("ray" if item.get_closest_marker("ray") else file))
    names = [group_of(item) for item in items]
    place = {name: number for number, name in enumerate(dict.fromkeys([*LONG_GROUPS, *names]))}
    items.sort(key=lambda item: place[group_of(item)])


def group_of(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.args[0])


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    ranks = Ranks()
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """The Ray head of all tests that need one; runs may also start a cluster of their own."""
    with running_head() as head:
        yield head


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    """120 users and 60 items in 4 METIS parts, with titles, times and features."""
    return prepare_synthetic(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def holed(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    """12 users and 9 items in 4 hashed parts, the second without items; two items have no training pair."""
    train = [(user, item) for user, item in random_pairs(12, 7, 0.4) if user != 3] + [(3, 0)]
    return prepare_pairs(tmp_path_factory.mktemp("holed"), train, [(0, 7)], [(1, 8), (2, 7)], seed=9)


@pytest.fixture(scope="session")
def empty_part(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    """4 users and 4 items in 4 hashed parts, the second without any node: with 4 ranks one owns nothing."""
    train = [pair for pair in random_pairs(4, 4, 0.5) if pair != (0, 3)]
    return prepare_pairs(tmp_path_factory.mktemp("empty"), train, test=[(0, 3)], seed=2)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw`, `prepared` and `run`: 150 users and 120 items, two layers of two heads, two epochs."""
    folder = tmp_path_factory.mktemp("small")
    write_synthetic(folder / "raw", 150, 120, 4, 12, 0.1, seed=1)
    prepare_and_train(small_recipe(folder))
    return folder
