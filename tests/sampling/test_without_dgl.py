"""The classes that stand in for DGL's: the contract of both, and training with ours against training with DGL's."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import hashes_of
from processes import becomes_true
from recipes import recipe
from safetensors.torch import load_file
from torch.utils.data import IterableDataset

from dist_gat import api
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.worker import join_workers
from dist_gat.jobs.training import train_worker
from dist_gat.sampling import dgl as loaded
from dist_gat.sampling.loader import open_loader
from dist_gat.sampling.without_dgl import BlockSampler, DataLoader

needs_dgl = pytest.mark.skipif(loaded.dgl is None, reason=f"DGL can't be loaded: {loaded.WHY_NOT_DGL}")
LOADERS = [DataLoader, pytest.param(loaded.DataLoader, marks=needs_dgl)]
TESTS = Path(__file__).parents[1]


class Steps(IterableDataset):
    """The steps 0 to n - 1, counted as they are asked for."""

    device = torch.device("cpu")

    def __init__(self, num_steps: int) -> None:
        self.num_steps, self.asked = num_steps, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for step in range(self.num_steps):
            self.asked += 1
            yield torch.tensor([7, step])


@dataclass
class Graph:
    """Whatever the sampler is given as its graph."""

    number: int


class Plus(loaded.BlockSampler):
    """Adds the number of the graph to the seeds; fails at a step, where it is told to."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.fails_at, self.threads = fails_at, set[str]()

    def sample(self, g: Graph, seeds: torch.Tensor, exclude_eids: Any = None) -> torch.Tensor:
        self.threads.add(threading.current_thread().name)
        if seeds[-1] == self.fails_at:
            raise ValueError("no such step")
        return seeds + g.number


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__module__.partition(".")[0])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`open_loader` with one of the two loaders."""
    monkeypatch.setattr("dist_gat.sampling.loader.DataLoader", request.param)

    def open_one(seeds: Any, sampler: Any, prefetch: bool, **options: Any) -> Any:
        return open_loader(Graph(10), seeds, sampler, prefetch, device=torch.device("cpu"), **options)

    return open_one


@pytest.mark.parametrize("prefetch", [False, True])
def test_batches_come_in_order_from_the_thread_that_was_asked_for(loader: Any, prefetch: bool) -> None:
    sampler = Plus()
    batches = loader(Steps(5), sampler, prefetch)
    for _ in range(2):
        assert [batch.tolist() for batch in batches] == [[17, 10 + step] for step in range(5)]
    assert (threading.current_thread().name in sampler.threads) is not prefetch


def test_a_tensor_of_seeds_is_cut_into_batches(loader: Any) -> None:
    batches = list(loader(torch.arange(7), Plus(), False, batch_size=3))
    assert [batch.tolist() for batch in batches] == [[10, 11, 12], [13, 14, 15], [16]]


def test_two_batches_are_in_flight_and_no_more(loader: Any) -> None:
    """One waits in the queue, and one more was made: what `IN_FLIGHT` counts on."""
    steps = Steps(100)
    batches = iter(loader(steps, Plus(), True))
    for taken in range(3):
        assert becomes_true(lambda taken=taken: steps.asked == taken + 2, 10)
        time.sleep(0.1)
        assert steps.asked == taken + 2
        next(batches)


@pytest.mark.parametrize("prefetch", [False, True])
def test_an_error_comes_in_its_turn(loader: Any, prefetch: bool) -> None:
    batches = iter(loader(Steps(5), Plus(fails_at=2), prefetch))
    assert [next(batches).tolist(), next(batches).tolist()] == [[17, 10], [17, 11]]
    with pytest.raises(ValueError, match="no such step"):
        next(batches)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_who_lets_go_ends_the_thread(loader: Any, taken: int) -> None:
    before = threading.active_count()
    batches = iter(loader(Steps(5), Plus(), True))
    assert len([next(batches) for _ in range(taken)]) == taken
    del batches
    assert becomes_true(lambda: threading.active_count() == before, 10)


def test_after_the_end_there_is_nothing_more() -> None:
    batches = iter(DataLoader(Graph(10), Steps(1), Plus(), use_prefetch_thread=True))
    assert len(list(batches)) == 1
    assert list(batches) == []


def test_the_last_epoch_leaves_torchs_random_numbers_as_dgls_loader_does(loader: Any) -> None:
    torch.manual_seed(5)
    list(loader(Steps(2), Plus(), True))
    found = torch.rand(3)
    torch.manual_seed(5)
    list(DataLoader(Graph(10), Steps(2), Plus()))
    assert torch.equal(found, torch.rand(3))


WITHOUT_DGL = """
import json, sys
sys.modules["dgl"] = None  # importing it is an error
import torch
from processes import AskedAt
from dist_gat.config.files import load_config
from dist_gat.exchange.worker import join_workers
from dist_gat.jobs.training import train_worker
from dist_gat.sampling.dgl import WHY_NOT_DGL, DataLoader

attempts = [
    train_worker(load_config(sys.argv[1]), join_workers(torch.device("cpu"), 1, 30, AskedAt(stop_at)))
    for stop_at in (3, 0)
]
print(json.dumps([WHY_NOT_DGL, DataLoader.__module__, *([a["stopped"], a["steps"], a["losses"]] for a in attempts)]))
"""


@needs_dgl
def test_training_stopped_and_resumed_without_dgl_has_the_bits_of_training_with_it(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "raw", 80, 60, 4, 12, 0.1, seed=3)
    sections: dict[str, Any] = {
        "sampling": {"fanouts": [4, 4], "num_streams": 2},
        "negatives": {"num_shared": 16},
        "train": {"num_epochs": 2, "batch_size": 256},
    }
    whole, without = (recipe(tmp_path, name, base=sections) for name in ("with", "without"))
    api.prepare(whole)
    expected = train_worker(whole, join_workers(torch.device("cpu"), 1, 30))

    (tmp_path / "without.yaml").write_text(dump_config(without))
    without.run_folder.mkdir()
    path = [str(folder) for folder in (TESTS.parent, TESTS)]
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = {path}\n{WITHOUT_DGL}",
        str(tmp_path / "without.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    why, module, stopped, resumed = json.loads(done.stdout.splitlines()[-1])
    assert ("dgl" in why, module) == (True, "dist_gat.sampling.without_dgl")
    assert stopped[0]
    assert 0 < stopped[1] < expected["steps"]
    assert resumed == [False, expected["steps"], expected["losses"]]
    assert weights_of(without) == weights_of(whole)


def weights_of(config: Config) -> dict[str, str]:
    files = sorted((config.run_folder / "model").rglob("*.safetensors"))
    assert files
    return hashes_of({str(file.relative_to(config.run_folder)): load_file(file) for file in files})


def test_a_sampler_says_how_it_samples() -> None:
    with pytest.raises(NotImplementedError):
        BlockSampler().sample(None, torch.zeros(1))
