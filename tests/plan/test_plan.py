"""Plans against real ranks: tables to the byte, traffic by the channels' own count; monotony; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import graph_of, recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError
from dist_gat.config.plain_yaml import dump_yaml
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import join_workers
from dist_gat.graph.part import PreparedGraph
from dist_gat.plan.constants import DEFAULT, Constants, read_constants
from dist_gat.plan.graph_shape import GraphShape, expected_messages
from dist_gat.plan.memory import graph_bytes
from dist_gat.plan.plan import Plan, make_plan
from dist_gat.sampling.loader import StepRange
from dist_gat.train.trainer import Trainer

CPU = read_constants(DEFAULT[False])


def steps(config: Config, run: str, num_steps: int) -> dict[str, int]:
    """Run some steps; bytes of this rank's tables, and those that it sent in a step."""
    worker = join_workers(torch.device("cpu"), 1, 60)
    trainer = Trainer(config.model_copy(update={"run": run}), worker)
    before = sum(channel.traffic.sent_bytes for channel in trainer.channels)
    for batch in trainer.batches(StepRange(0, 0, num_steps)):
        trainer.train_step(batch, at_end=False)
    sent = sum(channel.traffic.sent_bytes for channel in trainer.channels) - before
    moments = trainer.optimizers.row_moments(trainer.model).values()
    trainer.log.close()
    weight = trainer.model.table.weight
    dense = sum(parameter.numel() * parameter.element_size() for parameter in trainer.model.dense.parameters())
    return {
        "nodes": len(weight), "embedding": weight.nbytes, "moments": sum(x.nbytes for x in moments),
        "dense": dense, "sent": sent // num_steps,
    }  # fmt: skip


def plan(config: Config, graph: GraphShape, workers: int, **options: Any) -> Plan:
    return make_plan(config, graph, workers, CPU, **options)


@pytest.mark.parametrize(("scoring", "popularity"), [("dot", True), ("additive", False), ("degree", True)])
def test_tables_and_weights_are_those_of_a_run_to_the_byte(
    skewed: PreparedGraph, ranks: Ranks, tmp_path: Path, scoring: str, popularity: bool
) -> None:
    config = recipe(skewed, scoring=scoring, num_heads=2, decoder={"popularity": popularity})
    (held,) = ranks.run(1, steps, config, str(tmp_path), 1)
    memory = plan(config, graph_of(skewed), 1).memory
    assert (memory.embedding, memory.moments) == (held["embedding"], held["moments"])
    assert memory.model == 4 * held["dense"]
    files = ("indptr", "indices", "interacts/train", "interacts/popularity")
    arrays = [np.load(part.folder / f"{name}.npy") for part in skewed.parts for name in files]
    # each part has one row start more than nodes
    messages = expected_messages(config, graph_of(skewed))
    assert graph_bytes(graph_of(skewed), messages) == sum(array.nbytes for array in arrays) - 8 * len(skewed.parts)


@pytest.mark.parametrize(("access", "workers"), [("auto", 2), ("exchange", 2), ("exchange", 4)])
@pytest.mark.parametrize("scoring", ["dot", "degree"])
def test_bytes_exchanged_are_those_that_the_channels_count(
    skewed: PreparedGraph, ranks: Ranks, tmp_path: Path, access: str, workers: int, scoring: str
) -> None:
    config = recipe(skewed, access=access, scoring=scoring)
    held = ranks.run(workers, steps, config, str(tmp_path), 4)
    expected = workers * plan(config, graph_of(skewed), workers).traffic.counted
    assert expected == pytest.approx(sum(rank["sent"] for rank in held), rel=0.1)
    assert sum(rank["nodes"] for rank in held) == skewed.ranges.num_nodes


@settings(max_examples=40)
@given(st.integers(1, 63), st.integers(10, 10**8), st.sampled_from(["auto", "exchange"]))
def test_more_workers_never_hold_more_each(workers: int, nodes: int, access: str) -> None:
    config, graph = recipe(num_parts=64, access=access), GraphShape(nodes, max(1, min(20 * nodes, nodes * nodes // 5)))
    few, many = (plan(config, graph, count).memory for count in (workers, workers + 1))
    for name in ("embedding", "moments", "model", "graph", "batch", "process"):
        assert getattr(many, name) <= getattr(few, name), name


@settings(max_examples=40)
@given(st.integers(1, 64), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_slower_network_never_makes_a_step_faster(workers: int, one: float, other: float) -> None:
    slow, fast = sorted([one, other])
    config, graph = recipe(num_parts=64), GraphShape(10**6, 10**7)
    steps = [plan(config, graph, workers, bandwidth=1e9 * gigabytes).time.step for gigabytes in (slow, fast)]
    assert steps[0] >= steps[1]


def test_more_cores_never_make_a_step_slower_and_few_hold_it_back() -> None:
    config, graph = recipe(batch_size=4096), GraphShape(10**6, 10**7)
    step = [plan(config, graph, 4, cores=cores).time.step for cores in (1, 2, 4, 8, 64)]
    assert step == sorted(step, reverse=True)
    assert step[0] == pytest.approx(2 * step[1])


def test_streams_sample_at_once_as_far_as_a_worker_has_cores_and_hold_batches() -> None:
    graph, slow = GraphShape(10**6, 10**7), CPU.model_copy(update={"sample_s_per_edge": 1e-5, "stream_gain": 0.5})

    def plan_of(num_streams: int, cores: int, workers: int = 1, prefetch: bool = True) -> Plan:
        config = recipe(batch_size=4096)
        update = {"num_streams": num_streams, "prefetch": prefetch}
        config = config.model_copy(update={"sampling": config.sampling.model_copy(update=update)})
        return make_plan(config, graph, workers, slow, cores=cores)

    one, two, four = (plan_of(number, cores=64) for number in (1, 2, 4))
    assert one.time.step == pytest.approx(one.time.sampling)
    assert two.time.step == pytest.approx(one.time.step / 1.5)
    assert four.time.step == pytest.approx(one.time.step / 2.5)
    assert one.memory.batch < two.memory.batch < four.memory.batch
    # two workers share four cores, two each
    assert plan_of(4, 4, workers=2).time.step == pytest.approx(plan_of(2, 64, workers=2).time.step)
    assert plan_of(4, 64, prefetch=False).time.step == plan_of(1, 64, prefetch=False).time.step


def test_one_worker_exchanges_nothing_and_is_its_own_measure() -> None:
    found = plan(recipe(access="exchange"), GraphShape(1000, 5000), 1)
    assert found.efficiency == 1
    assert found.traffic.counted == found.traffic.dense == found.remote_share == 0


@pytest.mark.parametrize(
    ("workers", "options", "word"),
    [
        (0, {}, "workers=0"),
        (5, {}, "parts.num_parts=5"),
        (2, {"num_hosts": 3}, "hosts=3"),
        (2, {"cores": 0}, "cores=0"),
        (2, {"bandwidth": 0.0}, "bandwidth"),
        (2, {"bandwidth": float("nan")}, "bandwidth"),
    ],
)
def test_impossible_machines_are_refused(workers: int, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        plan(recipe(), GraphShape(1000, 5000), workers, **options)


@pytest.mark.parametrize("name", ["sample_s_per_edge", "step_s", "device"])
def test_constants_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "constants.yaml"
    file.write_text(dump_yaml({**CPU.model_dump(), name: -1.0}))
    with pytest.raises(ConfigError, match=f"(?s)constants.yaml.*{name}.*benchmarks.cost"):
        read_constants(file)


def test_shipped_constants_say_whether_they_were_measured() -> None:
    found: dict[bool, Constants] = {gpu: read_constants(file) for gpu, file in DEFAULT.items()}
    assert "assumed, not measured" in found[True].origin
    assert found[False].origin.endswith(", measured")
    config = recipe().model_copy(update={"launch": recipe().launch.model_copy(update={"use_gpu": True})})
    assert api.plan(config, 1000, 5000, 2)["constants"] == found[True].origin
