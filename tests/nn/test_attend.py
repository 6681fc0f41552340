"""The fused kernels against the plain torch version, values and gradients."""

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_cases import PALETTE, SIZE_OF, VARIANTS, attention, case, ragged_block, random_edges, run
from torch.testing import assert_close

from dist_gat.kernels.threads import cut, in_threads
from dist_gat.kernels.weighting import Rule, Weighting
from dist_gat.nn import attend_cpu as attend_cpu_module
from dist_gat.nn import attention as attention_module
from dist_gat.nn.attend import attend, attend_plain
from dist_gat.nn.attend_cpu import DESTINATIONS_PER_TASK, PARTS_PER_THREAD
from dist_gat.nn.attention import AttentionLayer
from dist_gat.nn.project import project_heads
from dist_gat.sampling.block import Block

SCORED = [Rule.SOFTMAX, Rule.EXP, Rule.LINEAR]


@contextmanager
def torch_threads(number: int):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


RUNS, EXACT = PALETTE["float32"], PALETTE["float64"]
# heads, row size, head size
SHAPES = [
    (heads, shape.size, head_size)
    for shape in PALETTE.values()
    if shape.dtype == torch.float64
    for heads in shape.heads
    for head_size in sorted({0, shape.head_size})
]
# beyond the palette: two to six heads, rows and projected rows of odd sizes in one piece and in several
MANY_SHAPES = [(1, 1, 0), (1, 4, 66), (2, 6, 0), (3, 5, 3), (4, 66, 0), (4, 9, 4), (5, 3, 1), (6, 66, 0)]


def cases_of(shapes: list[tuple[int, int, int]]) -> st.SearchStrategy:
    return st.builds(
        lambda rule, shape, *parts: (rule, *shape[:2], *parts, torch.float64, shape[2]),
        st.sampled_from(list(Rule)), st.sampled_from(shapes), *[st.booleans()] * 4,
    )  # fmt: skip


cases = cases_of(SHAPES)
blocks = st.builds(
    lambda seed, num_dst, more, fan_out: ragged_block(seed, num_dst, num_dst + more, fan_out),
    st.integers(0, 10**6), st.integers(0, 9), st.integers(0, 5), st.integers(0, 6),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), blocks, cases)
def test_kernels_equal_the_plain_version(seed, block, settings_):
    assert_equals_plain(seed, block, settings_)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), blocks, cases_of(MANY_SHAPES))
def test_kernels_equal_the_plain_version_in_many_shapes(seed, block, settings_):
    """Each of which is compiled, and has no branch that the palette has not."""
    assert_equals_plain(seed, block, settings_)


def assert_equals_plain(seed, block, settings_):
    leaves, weighting_of = case(seed, block, *settings_)
    for fused, plain in zip(
        run(attend, leaves, weighting_of, block), run(attend_plain, leaves, weighting_of, block), strict=True
    ):
        assert_close(fused, plain)


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize(("shared", "mean", "own"), [(True, False, True), (False, True, False), (False, False, True)])
@pytest.mark.parametrize("head_size", [0, EXACT.head_size])
def test_gradients(rule, shared, mean, own, head_size):
    block = ragged_block(1, 6, 9, 4)
    leaves, weighting_of = case(1, block, rule, 2, EXACT.size, shared, mean, own, head_size=head_size)
    assert torch.autograd.gradcheck(lambda *x: attend(x[0], block, weighting_of(*x))[0], leaves)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), blocks, cases, st.integers(1, 3), st.booleans())
def test_many_small_tasks_and_shares(seed, block, settings_, per_task, moves):
    """Tasks of a few destinations, merged in several shares; `moves`: destinations that are not the first sources."""
    leaves, weighting_of = case(seed, block, *settings_)
    if moves:
        at = torch.randint(max(block.num_src, 1), (block.num_dst,), generator=torch.Generator().manual_seed(seed))
        block = replace(block, dst_at_D=at)
    expected = run(attend_plain, leaves, weighting_of, block)
    with pytest.MonkeyPatch.context() as patch, torch_threads(3):
        patch.setattr(attend_cpu_module, "DESTINATIONS_PER_TASK", per_task)
        patch.setattr(attend_cpu_module, "THREADS_PER_SHARE", 1)
        fused = run(attend, leaves, weighting_of, block)
    for a, b in zip(fused, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("own", [True, False])
def test_destinations_that_are_not_the_first_sources(rule, own):
    """The same sources in another order, with a destination that stands there twice."""
    block = ragged_block(1, 6, 9, 4)
    leaves, weighting_of = case(1, block, rule, 2, EXACT.size, True, False, own)
    order = torch.tensor([4, 8, 0, 2, 7, 1, 5, 3, 6])
    place = order.argsort()
    moved = Block(place[block.neighbors_DF], block.count_D, block.num_src, dst_at_D=place[: block.num_dst])
    there = [leaves[0].detach()[order].requires_grad_(), *leaves[1:]]
    expected = run(attend, leaves, weighting_of, block)
    for function in (attend, attend_plain):
        found = run(function, there, weighting_of, moved)
        found[2] = found[2][place]
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)
    twice = Block(block.neighbors_DF, block.count_D, 9, dst_at_D=torch.tensor([8, 3, 3, 0, 5, 1]))
    assert torch.autograd.gradcheck(lambda *x: attend(x[0], twice, weighting_of(*x))[0], leaves)


@pytest.mark.parametrize("rule", SCORED)
def test_one_source_and_equal_scores(rule):
    block = Block(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([3]), 1)
    leaves, weighting_of = case(0, block, rule, 2, EXACT.size, True, False, True)
    z_DGI, alpha_DFH = attend(leaves[0], block, weighting_of(*leaves))
    assert_close(alpha_DFH, torch.full((1, 3, 2), 1 / 3, dtype=torch.float64))
    assert_close(z_DGI, leaves[0].expand(2, EXACT.size)[None])


@pytest.mark.parametrize("value", [-9.0, 0.0, 39.5, 40.0, 40.5, 200.0])
@pytest.mark.parametrize("rule", SCORED)
def test_bends_of_the_rules(rule, value):
    """Where a rule changes its slope: scores of 0 and at the exponent's limit, and sums that are not positive."""
    block = Block(torch.tensor([[0, 1, 2], [0, 0, 1]]), torch.tensor([3, 2]), 3)
    rows = torch.tensor([[value], [0.5 * value - 1], [0.1]], dtype=torch.float64, requires_grad=True)
    query = torch.ones(1, 1, 1, dtype=torch.float64, requires_grad=True)
    leaves, weighting_of = [rows, query], lambda _, q: Weighting(rule, None, q, slope=0.2)
    for fused, plain in zip(
        run(attend, leaves, weighting_of, block), run(attend_plain, leaves, weighting_of, block), strict=True
    ):
        assert_close(fused, plain)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_float32_is_within_rounding_of_float64(variant, monkeypatch):
    torch.manual_seed(0)
    size = SIZE_OF[torch.float32]
    block = ragged_block(3, 200, 600, 10)
    block = Block(block.neighbors_DF, block.count_D, block.num_src, torch.randint(1, 50, (600, 1)))
    block = replace(block, edges=random_edges(200, 10, torch.Generator().manual_seed(4)))
    rows = torch.rand(600, size, dtype=torch.float64) * 0.1
    layer = AttentionLayer(attention(**variant), size, size).double()
    with monkeypatch.context() as patch:
        patch.setattr(attention_module, "attend", attend_plain)
        exact = layer(rows, block).rows_DO
    assert_close(layer.float()(rows.float(), block).rows_DO.double(), exact, rtol=1e-5, atol=1e-6)


def large_case(rule, shared, head_size=0, shape=RUNS):
    """More tasks than three threads have parts for."""
    num_dst = DESTINATIONS_PER_TASK * (3 * PARTS_PER_THREAD + 5) + 7
    block = ragged_block(4, num_dst, 3 * num_dst, 6)
    return block, *case(
        4, block, rule, 2, shape.size, shared, not shared, shared, dtype=shape.dtype, head_size=head_size
    )


def in_order_of_appearance(block):
    """The same edges with sources numbered as a sampler does: destinations first, then whoever comes."""
    order = torch.cat([torch.arange(block.num_dst), block.neighbors_DF[block.mask_DF()], torch.arange(block.num_src)])
    nodes = list(dict.fromkeys(order.tolist()))
    return Block(torch.tensor(nodes).argsort()[block.neighbors_DF], block.count_D, block.num_src)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("is_projected", "renumber"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("rule", list(Rule))
def test_the_same_bits_for_any_number_of_threads(rule, shared, is_projected, renumber):
    block, leaves, weighting_of = large_case(rule, shared, RUNS.head_size * is_projected)
    block = in_order_of_appearance(block) if renumber else block
    results = []
    for threads in (1, 2, 3, 9, 2):
        with torch_threads(threads):
            results.append(run(attend, leaves, weighting_of, block))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    _, exact, weighting_of = large_case(rule, shared, EXACT.head_size * is_projected, EXACT)
    fused, plain = (run(function, exact, weighting_of, block) for function in (attend, attend_plain))
    for a, b in zip(fused, plain, strict=True):
        assert_close(a, b)


def test_two_threads_may_enter_at_once():
    block, leaves, weighting_of = large_case(Rule.SOFTMAX, True)
    expected = run(attend, leaves, weighting_of, block)
    found: list[bool] = []

    def enter():
        for _ in range(10):
            got = run(attend, leaves, weighting_of, block)
            found.append(all(torch.equal(a, b) for a, b in zip(expected, got, strict=True)))

    with torch_threads(2):
        threads = [threading.Thread(target=enter) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [True] * 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"value_XI": torch.ones(16, 15)}, "as many rows"),
        ({"value_XI": torch.ones(17, 16)}, "as many rows"),
        ({"value_XI": torch.ones(0, 16)}, "as many rows"),
        ({"rule": Rule.GIVEN}, "rule makes them"),
        ({"alpha_DFH": torch.ones(6, 4, 2), "query_QHI": None, "own_HI": None}, "weights are given"),
        ({"value_XI": torch.ones(16, 16), "mean": True}, "not their mean"),
        ({"query_QHI": torch.ones(1, 2, 15)}, "size of a row"),
        ({"query_QHI": torch.ones(3, 2, 16)}, "one a destination"),
        ({"own_HI": torch.ones(1, 16)}, "bias"),
        ({"rule": Rule.GIVEN, "alpha_DFH": torch.ones(6, 3, 2), "query_QHI": None, "own_HI": None}, "weight an edge"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    """The kernels do not look, and would read past the end."""
    block, rows = ragged_block(1, 6, 9, 4), torch.ones(9, 16)
    good = Weighting(Rule.SOFTMAX, None, torch.ones(1, 2, 16), torch.ones(2, 16), value_XI=torch.ones(16, 16))
    assert attend(rows, block, good)[0].shape == (6, 16)
    with pytest.raises(AssertionError, match=message):
        attend(rows, block, replace(good, **changed))
    few = replace(block, dst_at_D=torch.tensor([0, 1]))
    with pytest.raises(AssertionError, match="position a destination"):
        attend(rows, few, good)


def test_frozen_rows_get_no_gradient():
    block, (rows, query, own), weighting_of = large_case(Rule.SOFTMAX, True)
    z_DGI, alpha_DFH = attend(rows.detach(), block, weighting_of(None, query, own))
    z_DGI.sum().backward()
    assert query.grad.isfinite().all()
    assert rows.grad is None
    assert not alpha_DFH.requires_grad


@pytest.mark.parametrize(
    ("neighbors", "count", "num_rows"),
    [
        ([[0, 3]], [2], 3),
        ([[0, -1]], [2], 3),
        ([[0, 1]], [-1], 3),
        ([[0, 1]], [3], 3),
        ([[0, 0]] * 2, [1, 1], 1),
        ([[0, 1]], [1, 1], 3),
    ],
)
def test_kernels_never_leave_their_arrays(neighbors, count, num_rows):
    block = Block(torch.tensor(neighbors), torch.tensor(count), num_rows)
    with pytest.raises(AssertionError, match="point outside"):
        attend(torch.rand(num_rows, 4), block, Weighting(Rule.GIVEN, alpha_DFH=torch.rand(len(neighbors), 2, 1)))


def test_other_types_take_the_plain_path():
    block = ragged_block(5, 4, 6, 3)
    query = torch.rand(1, 2, 8, dtype=torch.bfloat16)
    rows = torch.rand(6, 8, dtype=torch.bfloat16)
    assert attend(rows, block, Weighting(Rule.SOFTMAX, query_QHI=query))[0].dtype == torch.bfloat16


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_project_heads(num_dst, num_heads, in_size, head_size):
    z = torch.rand(num_dst, num_heads, in_size, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(num_heads * head_size, in_size, dtype=torch.float64, requires_grad=True)
    expected = torch.einsum("dhi,hoi->dho", z, weight.unflatten(0, (num_heads, head_size))).flatten(1)
    assert_close(project_heads(z, weight), expected)
    assert torch.autograd.gradcheck(project_heads, (z, weight))


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_tasks_cover_everything_once(size):
    seen: list[int] = []
    with torch_threads(3):
        in_threads(lambda part: seen.extend(range(part.start, part.stop)), cut(size, 2))
    assert sorted(seen) == list(range(size))


def test_an_error_of_a_helper_is_raised():
    caller = threading.get_ident()
    helper_came = threading.Event()

    def task(part: slice) -> None:
        if threading.get_ident() != caller:
            helper_came.set()
            raise ValueError("helper")
        helper_came.wait(10)

    with torch_threads(2), pytest.raises(ValueError, match="helper"):
        in_threads(task, cut(4, 1))


def test_a_forked_child_has_helpers_of_its_own():
    waited = threading.Event()
    with torch_threads(2):
        in_threads(lambda part: None, cut(2, 1))
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            caller = threading.get_ident()
            # ends well only if a helper runs in the child, too
            in_threads(lambda part: waited.wait(10) if threading.get_ident() == caller else waited.set(), cut(2, 1))
            os._exit(0 if waited.is_set() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
