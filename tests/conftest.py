"""Fixtures of the whole suite. Prepared folders are shared by the session and only read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

# Of files, whose tests run in one process and one after another: Ray never beside Ray.
RAY = (
    "launcher/test_doctor.py", "launcher/test_ray.py", "launcher/test_hosts.py", "launch/test_submit.py",
    "tune/test_tuner.py",
)  # fmt: skip
# they begin, so that neither process has much left when the other is done
LONGEST = (*RAY, "nn/test_attend.py", "nn/test_attend_gpu.py")


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].removeprefix("tests/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes one has all tests of a file, which share what they set up, and one all of RAY.

    xdist's own groups, `--dist loadgroup`, do nothing with pytest 9.2: they set an attribute that it does not read.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if file_of(nodeid) in RAY else file_of(nodeid)

    config.option.loadscopereorder = False
    return Files(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    stray = {file_of(item.nodeid) for item in items if item.get_closest_marker("ray")} - {*RAY}
    assert not stray, f"{stray} start Ray: name them in RAY, in tests/conftest.py"
    items.sort(key=lambda item: file_of(item.nodeid) not in LONGEST)


@pytest.fixture(autouse=True)
def _no_other_ray(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test that starts Ray has it for itself; this fails where the processes of a session don't keep to that."""
    if not request.node.get_closest_marker("ray") or not hasattr(request.config, "workerinput"):
        yield
        return
    with (tmp_path_factory.getbasetemp().parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


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
