"""The Triton kernels against the plain torch version in float64.

On a machine with a GPU they run there. Elsewhere `test_all_of_this_in_the_interpreter` runs this file once more, in a
process where Triton executes kernels with numpy, and `test_kernels_compile` compiles them for GPUs that are not here.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from nn_cases import attention, case, every_variant, ragged_block, random_edges, run
from torch.testing import assert_close
from triton_run import HAS_TRITON, INTERPRETED, needs_triton, run_in_interpreter, triton_device

from dist_gat.kernels.weighting import Rule, Weighting
from dist_gat.nn import attention as attention_module
from dist_gat.nn.attend import attend, attend_plain, kernels
from dist_gat.nn.attend_cpu import attend_cpu
from dist_gat.nn.attention import AttentionLayer
from dist_gat.sampling.block import Block

every_rule = pytest.mark.parametrize("rule", list(Rule), ids=lambda rule: rule.name)
# shared query, mean of the heads, own, bias
KINDS = [(True, False, True, False), (False, True, False, True), (False, False, True, True)]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def device() -> str:
    return triton_device()


def attend_gpu(rows, block, weighting):
    from dist_gat.nn.attend_gpu import attend_gpu

    return attend_gpu(rows, block, weighting)


def check(device, leaves, weighting_of, block, tolerance=1e-5):
    """The kernels against the plain version on the same numbers in float64."""
    moved = [x.detach().to(device).requires_grad_() for x in leaves]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    found = run(attend_gpu, moved, weighting_of, block.to(device))
    for ours, theirs in zip(found, run(attend_plain, exact, weighting_of, block), strict=True):
        rounding = tolerance if ours.dtype == torch.float32 else 1e-2
        scale = max(float(theirs.detach().abs().max()), 1.0) if theirs.numel() else 1.0
        assert_close(ours.cpu().double(), theirs, rtol=rounding, atol=rounding * scale)
    assert [x.dtype for x in found[2:]] == [x.dtype for x in leaves]
    return found


@every_rule
@every_kind
@pytest.mark.parametrize(("num_heads", "size", "fan_out"), [(1, 4, 1), (3, 13, 5)])
def test_kernels_equal_the_plain_version_in_float64(device, rule, kind, num_heads, size, fan_out):
    block = ragged_block(fan_out, 4, 6, fan_out)
    # s exp(s) makes more of a rounding of s
    check(device, *case(size, block, rule, num_heads, size, *kind, dtype=torch.float32), block, tolerance=1e-4)


@every_rule
@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_destinations_may_be_any_rows(device, rule, kind, dtype):
    """Also the same row several times, and more destinations than rows, as a softmax a relation has them."""
    at = torch.tensor([5, 0, 2, 2, 4, 5, 0, 1])
    block = replace(ragged_block(3, 8, 6, 5), dst_at_D=at)
    leaves, weighting_of = case(3, block, rule, 2, 13, *kind, dtype=torch.float32)
    check(device, [x.detach().to(dtype) for x in leaves], weighting_of, block, tolerance=1e-4)


@every_rule
@pytest.mark.parametrize("num_heads", [2, 16])
def test_neighbourhoods_wider_than_a_tile(device, rule, num_heads):
    block = ragged_block(5, 2, 8, 70)
    shared = num_heads == 2
    leaves, weighting_of = case(5, block, rule, num_heads, 6, shared, not shared, shared, True, dtype=torch.float32)
    check(device, leaves, weighting_of, block, 1e-4)


@every_rule
@pytest.mark.parametrize("kind", KINDS[:2])
def test_bfloat16_is_summed_in_float32(device, rule, kind):
    block = ragged_block(2, 3, 6, 6)
    leaves, weighting_of = case(2, block, rule, 2, 12, *kind, dtype=torch.float32)
    narrow = [x.detach().bfloat16() for x in leaves]
    _, alpha_DFH, *_ = check(device, narrow, weighting_of, block, tolerance=1e-4)
    assert alpha_DFH.dtype == (torch.bfloat16 if rule == Rule.GIVEN else torch.float32)
    # autocast projects queries in bfloat16 while rows are in float32
    check(device, [leaves[0].detach(), *narrow[1:]], weighting_of, block, tolerance=1e-4)


@pytest.mark.parametrize(("rule", "shared"), [(Rule.GIVEN, False), (Rule.SOFTMAX, True), (Rule.LINEAR, False)])
def test_hubs_are_summed_in_windows(device, rule, shared):
    """Sources with less than one window of edges, about one, and several; they start within windows, and at one."""
    owner = torch.tensor([1] * 64 + [2] * 65 + [0] * 150 + [4] * 63 + [5] * 6 + [7] * 130 + [8] * 2)
    order = torch.randperm(len(owner), generator=torch.Generator().manual_seed(0))
    block = Block(owner[order].view(-1, 30), torch.full((16,), 30), 16)
    block.count_D[3] -= 1
    leaves, weighting_of = case(3, block, rule, 2, 5, shared, not shared, shared, not shared, dtype=torch.float32)
    check(device, leaves, weighting_of, block, tolerance=1e-4)


@every_rule
@pytest.mark.parametrize(("num_dst", "num_src", "fan_out"), [(0, 3, 4), (0, 0, 4), (3, 5, 0), (1, 1, 3)])
def test_nothing_to_attend_to(device, rule, num_dst, num_src, fan_out):
    block = Block(torch.zeros(num_dst, fan_out, dtype=torch.int64), torch.zeros(num_dst, dtype=torch.int64), num_src)
    for kind in KINDS[:2]:
        found = check(device, *case(0, block, rule, 2, 4, *kind, dtype=torch.float32), block)
        assert all(x.eq(0).all() for x in found)


@pytest.mark.parametrize("value", [-9.0, 0.0, 40.0, 40.5, 200.0])
@pytest.mark.parametrize("rule", [Rule.SOFTMAX, Rule.EXP, Rule.LINEAR], ids=lambda rule: rule.name)
def test_bends_of_the_rules(device, rule, value):
    """Where a rule changes its slope: scores of 0, the exponent's limit, sums that are not positive."""
    block = Block(torch.tensor([[0, 1], [2, 0], [1, 1]]), torch.tensor([2, 2, 1]), 3)
    leaves = [torch.tensor([[1.0], [1.0], [0.5]]), torch.full((1, 1, 1), value)]
    check(device, leaves, lambda _, query: Weighting(rule, query_QHI=query, slope=0.2), block)


@every_rule
def test_frozen_inputs_get_no_gradient(device, rule):
    block = ragged_block(1, 3, 4, 3)
    leaves, weighting_of = case(1, block, rule, 2, 5, True, False, True, True, dtype=torch.float32)
    leaves = [x.detach().to(device) for x in leaves]
    block = block.to(device)
    gradients = run(attend_gpu, [x.clone().requires_grad_() for x in leaves], weighting_of, block)[2:]
    for learnable in range(len(leaves)):
        mixed = [x.clone().requires_grad_(number == learnable) for number, x in enumerate(leaves)]
        z_DGI, alpha_DFH = attend_gpu(mixed[0], block, weighting_of(*mixed))
        z_DGI.backward(((torch.arange(z_DGI.numel(), device=device) % 7 - 3) / 4).view_as(z_DGI))
        assert not alpha_DFH.requires_grad
        assert torch.equal(mixed[learnable].grad, gradients[learnable])
        assert all(x.grad is None for number, x in enumerate(mixed) if number != learnable)


@every_rule
@every_kind
@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs one program after another")
def test_every_run_has_the_same_bits(device, rule, kind):
    block = ragged_block(4, 3000, 5000, 7)
    leaves, weighting_of = case(4, block, rule, 3, 12, *kind, dtype=torch.float32)
    leaves = [x.detach().to(device).requires_grad_() for x in leaves]
    first, *others = (run(attend_gpu, leaves, weighting_of, block.to(device)) for _ in range(9))
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@every_rule
@pytest.mark.parametrize("outside", [-1, 2**40])
def test_a_neighbour_outside_of_the_rows_is_nan(device, rule, outside):
    block = ragged_block(1, 5, 9, 4)
    block.neighbors_DF[2, 0], block.count_D[2] = outside, 9
    leaves, weighting_of = case(1, block, rule, 2, 5, True, True, True, dtype=torch.float32)
    leaves = [x.detach().to(device) for x in leaves]
    z_DGI, _ = attend_gpu(leaves[0], block.to(device), weighting_of(*leaves))
    assert z_DGI.isnan().flatten(1).all(dim=1).tolist() == [False, False, True, False, False]
    assert not z_DGI[[0, 1, 3, 4]].isnan().any()


def test_positions_beyond_32_bits(device):
    """2^31 numbers, 4 GiB of bfloat16; without a GPU, of pages that are never touched."""
    if device == "cuda" and torch.cuda.mem_get_info()[0] < 6 << 30:
        pytest.skip("needs 6 GiB of free GPU memory")
    num_rows, size = (1 << 25) + 8, 64
    rows_SI = torch.empty(num_rows, size, dtype=torch.bfloat16, device=device)
    ends = [*range(4), *range(num_rows - 4, num_rows)]
    rows_SI[ends] = torch.rand(8, size, device=device).bfloat16()
    near = torch.tensor([[4, 7, 1], [5, 2, 6]])
    count = torch.tensor([3, 2])
    query = torch.rand(1, 2, size, device=device)
    far = Block(torch.tensor(ends)[near], count, num_rows).to(device)
    z_DGI, alpha_DFH = attend_gpu(rows_SI, far, Weighting(Rule.SOFTMAX, query_QHI=query))
    same_z_DGI, same_alpha_DFH = attend_gpu(
        rows_SI[ends], Block(near, count, 8).to(device), Weighting(Rule.SOFTMAX, query_QHI=query)
    )
    assert torch.equal(alpha_DFH, same_alpha_DFH)
    assert torch.equal(z_DGI, same_z_DGI)


@every_variant
@pytest.mark.parametrize("mixed", [False, True])
def test_layers(device, monkeypatch, variant, mixed):
    """All of a layer, also in mixed precision, against itself in float64 on the CPU."""
    torch.manual_seed(0)
    block = ragged_block(3, 7, 15, 4)
    edges = random_edges(7, 4, torch.Generator().manual_seed(4))
    block = Block(block.neighbors_DF, block.count_D, block.num_src, torch.randint(1, 9, (15, 1)), edges=edges)
    layer = AttentionLayer(attention(**variant), 12, 12)
    rows = torch.rand(15, 12) * 0.5
    upstream = torch.rand(7, 12)

    def gradients(layer, rows, upstream, block):
        rows = rows.detach().requires_grad_()
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=mixed and rows.dtype == torch.float32):
            rows_DO = layer(rows, block).rows_DO
        parameters = list(layer.parameters())
        return [rows_DO, *torch.autograd.grad(rows_DO, [rows, *parameters], upstream.to(rows_DO.dtype))]

    exact = gradients(layer.double(), rows.double(), upstream.double(), block)
    monkeypatch.setattr(attention_module, "attend", attend_gpu)
    found = gradients(layer.float().to(device), rows.to(device), upstream.to(device), block.to(device))
    for ours, theirs in zip(found, exact, strict=True):
        rounding = 5e-2 if mixed else 1e-4
        assert_close(
            ours.cpu().double(), theirs, rtol=rounding, atol=rounding * max(float(theirs.detach().abs().max()), 0.1)
        )


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
@pytest.mark.timeout(1800)  # a minute on an idle core
def test_all_of_this_in_the_interpreter():
    run_in_interpreter(__file__)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("rule", "kind", "dtype", "fan_out", "capability"),
    [
        (Rule.SOFTMAX, (True, False, True, True), torch.float32, 10, 90),
        (Rule.EXP, (False, True, False, True), torch.bfloat16, 10, 80),
        (Rule.LINEAR, (False, True, False, False), torch.float32, 70, 80),
        (Rule.GIVEN, (False, False, False, False), torch.bfloat16, 10, 90),
    ],
)
def test_kernels_compile(monkeypatch, tmp_path, rule, kind, dtype, fan_out, capability):
    """To machine code, which needs no GPU: what the interpreter lets pass may still be no Triton."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as compile_kernel
    from triton.runtime.jit import JITFunction

    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32"}
    compiled: list[str] = []

    def compile_only(kernel, *arguments, grid, warmup, num_warps, **constants):
        values = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
        signature = {}
        for parameter in kernel.params:
            value = values[parameter.name]
            if isinstance(value, torch.Tensor):
                signature[parameter.name] = types[value.dtype]
            else:
                signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            if parameter.is_constexpr or value is None:
                signature[parameter.name] = "constexpr"
        fixed = {name: values[name] for name, kind in signature.items() if kind == "constexpr"}
        target = GPUTarget("cuda", capability, 32)
        code = compile_kernel(ASTSource(kernel, signature, fixed), target=target, options={"num_warps": num_warps})
        assert code.asm["cubin"]
        compiled.append(kernel.__name__)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", compile_only)
    block = ragged_block(1, 40, 60, fan_out)
    leaves, weighting_of = case(1, block, rule, 3, 12, *kind, dtype=torch.float32)
    run(attend_gpu, [x.detach().to(dtype).requires_grad_() for x in leaves], weighting_of, block)
    assert compiled == ["forward", "backward", "sum_windows", "sum_sources"]


def test_kernels_are_chosen_by_device_and_type(monkeypatch):
    assert kernels("cpu", torch.float32) is attend_cpu
    assert (
        kernels("cuda", torch.float64)
        is kernels("cpu", torch.bfloat16)
        is kernels("meta", torch.float32)
        is attend_plain
    )
    if HAS_TRITON:
        assert {kernels("cuda", x).__name__ for x in (torch.float32, torch.bfloat16)} == {"attend_gpu"}
    monkeypatch.setitem(sys.modules, "triton", None)
    assert kernels("cuda", torch.float32) is attend_plain


def test_the_cpu_needs_no_triton():
    code = """
import sys
sys.modules["triton"] = None
import torch
from dist_gat.config.model_sections import AttentionConfig
from dist_gat.nn.attention import AttentionLayer
from dist_gat.sampling.block import Block
layer = AttentionLayer(AttentionConfig(num_heads=2), 16, 16)
layer(torch.rand(3, 16), Block(torch.tensor([[1, 2]]), torch.tensor([2]), 3)).rows_DO.sum().backward()
assert "dist_gat.kernels.attend_triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="layers take these kernels on a GPU alone")
def test_attend_on_a_gpu(device):
    """As layers call it: the kernels' bits, and the plain version's numbers in the same precision."""
    block = ragged_block(7, 300, 1000, 10)
    leaves, weighting_of = case(7, block, Rule.SOFTMAX, 4, 64, True, False, True, True, dtype=torch.float32)
    leaves = [x.detach().to(device).requires_grad_() for x in leaves]
    found = run(attend, leaves, weighting_of, block.to(device))
    assert all(
        torch.equal(a, b) for a, b in zip(found, run(attend_gpu, leaves, weighting_of, block.to(device)), strict=True)
    )
    for fused, plain in zip(found, run(attend_plain, leaves, weighting_of, block.to(device)), strict=True):
        assert_close(fused, plain, rtol=1e-4, atol=1e-3)
