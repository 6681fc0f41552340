"""`attend` on a GPU: Triton kernels, and their own backward.

One pass over a destination's neighbours scores their rows, turns scores into weights and sums the rows; nothing of
the size [D, F, I] exists. The backward gathers again, by destination for the gradients of weights, scores, query and
own; then it sums the gradients of each source's row over an index of the edges sorted by source. There are no
atomics and no tuning by measurement: every number is summed in an order that the block and the sizes alone fix, so
every run on the same kind of GPU has the same bits.

Shape legend: S sources, D destinations (the first D sources), F fan-out, H heads, I row size, Q queries (D or 1),
G heads of the aggregate (H or 1), P programs, E = D * F edges (with padding), W windows of edges, R neighbours or
edges that a tile holds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_gat.kernels.attend_triton import WINDOW, backward, forward, sum_sources, sum_windows
from dist_gat.kernels.weighting import Rule, Weighting
from dist_gat.nn.project import projected
from dist_gat.sampling.block import Block

# A tile has at most so many products [R, H, I]; 64 of them and 16 numbers of each sum [H, I] a lane fit its registers
# without spilling. Many small programs on each multiprocessor, rather than few large ones, hide the gathers' latency.
MAX_PRODUCTS, PRODUCTS_PER_WARP, SUMS_PER_WARP, MAX_WARPS = 8192, 64 * 32, 16 * 32, 16
# Neighbourhoods wider than a tile, those of inference over all neighbours, are gathered tile by tile, and twice.
# In a sample most sources have one edge or two.
MAX_NEIGHBORS, MAX_EDGES = 32, 4
# A shared query and own, which all destinations share, get a sum in each program; so a program takes several
# destinations.
DESTINATIONS_PER_PROGRAM = 8


def attend_gpu(rows_SI: Tensor, block: Block, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """See `dist_gat.nn.attend.attend`. Each input is float32 or bfloat16; z is of the rows' type, alpha of float32.

    A neighbour outside of the rows makes its destination NaN, at which training stops: looking at the block
    beforehand, as on the CPU, would make the host wait for the GPU.
    """
    assert len(block.count_D) == block.num_dst, "there is a count a destination"
    own_HI, bias_DFH = weighting.own_HI, weighting.bias_DFH
    if block.dst_at_D is None:
        assert block.num_dst <= len(rows_SI), "the destinations are the first rows"
    elif own_HI is not None:
        bias_DFH = _with_own_scores(rows_SI, block, own_HI, bias_DFH)
        own_HI = None
    # the kernels know no strides
    block = Block(block.neighbors_DF.contiguous(), block.count_D.contiguous(), block.num_src)
    query_QHI, own_HI, bias_DFH, alpha_DFH = (
        None if x is None else x.contiguous() for x in (weighting.query_QHI, own_HI, bias_DFH, weighting.alpha_DFH)
    )
    z_DGI, computed_DFH = _Attend.apply(rows_SI.contiguous(), query_QHI, own_HI, bias_DFH, alpha_DFH, block, weighting)
    return projected(z_DGI, weighting.value_XI), computed_DFH if alpha_DFH is None else alpha_DFH.detach()


def _with_own_scores(rows_SI: Tensor, block: Block, own_HI: Tensor, bias_DFH: Tensor | None) -> Tensor:
    """[D, F, H]: the destinations' own scores as a part of the bias, because the kernels read own rows from the first
    ones."""
    # in float32, as the kernels compute them
    with torch.autocast(rows_SI.device.type, enabled=False):
        own_D1H = (block.own_rows(rows_SI).float() @ own_HI.float().T)[:, None]
    return own_D1H.expand(-1, block.neighbors_DF.shape[1], -1) if bias_DFH is None else bias_DFH + own_D1H


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_SI: Tensor,
        query_QHI: Tensor | None,
        own_HI: Tensor | None,
        bias_DFH: Tensor | None,
        alpha_DFH: Tensor | None,
        block: Block,
        weighting: Weighting,
    ) -> tuple[Tensor, Tensor | None]:
        num_dst, fan_out = block.neighbors_DF.shape
        scores_DFH = None
        if alpha_DFH is None:
            assert query_QHI is not None, "scores need a query"
            # zeros, because the kernels skip padding
            alpha_DFH = rows_SI.new_zeros(num_dst, fan_out, query_QHI.shape[1], dtype=torch.float32)
            scores_DFH = torch.empty_like(alpha_DFH)
            ctx.mark_non_differentiable(alpha_DFH)
        num_heads = alpha_DFH.shape[2]
        num_sums = 1 if weighting.mean else num_heads
        ctx.sizes = {
            "RULE": weighting.rule.value,
            "SHARED": query_QHI is not None and len(query_QHI) == 1,
            "HEADS": num_heads,
            "SUMS": num_sums,
            "SIZE": rows_SI.shape[1],
        }
        z_DGI = rows_SI.new_empty(num_dst, num_sums, rows_SI.shape[1])
        _launch(
            forward, num_dst, rows_SI, block.neighbors_DF, block.count_D, query_QHI, own_HI, bias_DFH, scores_DFH,
            alpha_DFH, z_DGI, len(rows_SI), fan_out, weighting.slope, **_tile_of_neighbors(ctx.sizes, fan_out),
        )  # fmt: skip
        ctx.save_for_backward(rows_SI, query_QHI, own_HI, scores_DFH, alpha_DFH)
        ctx.block, ctx.slope = block, weighting.slope
        ctx.set_materialize_grads(False)
        return z_DGI, None if scores_DFH is None else alpha_DFH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z_DGI: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_z_DGI is None:
            return (None,) * 7
        grad_z_DGI = grad_z_DGI.contiguous()
        needs_rows, needs_query, needs_own, needs_bias, needs_alpha = ctx.needs_input_grad[:5]
        grad_scores_DFH = grad_offset_DH = grad_query_QHI = grad_own_HI = None
        if ctx.sizes["RULE"] != Rule.GIVEN or needs_alpha:
            grad_scores_DFH, grad_offset_DH, grad_query_QHI, grad_own_HI = _by_destination(ctx, grad_z_DGI)
        return (
            _by_source(ctx, grad_z_DGI, grad_scores_DFH, grad_offset_DH) if needs_rows else None,
            grad_query_QHI if needs_query else None,
            grad_own_HI if needs_own else None,
            grad_scores_DFH if needs_bias else None,
            grad_scores_DFH if needs_alpha else None,
            None,
            None,
        )


def _by_destination(ctx: Any, grad_z_DGI: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the scores (of the weights, if those are given), of offsets [D, H], of query and of own."""
    rows_SI, query_QHI, own_HI, scores_DFH, alpha_DFH = ctx.saved_tensors
    num_dst, fan_out = ctx.block.neighbors_DF.shape
    grad_scores_DFH = torch.zeros_like(alpha_DFH)
    grad_offset_DH = sums_QHI = sums_PHI = None
    each = DESTINATIONS_PER_PROGRAM if ctx.sizes["SHARED"] or own_HI is not None else 1
    num_programs = -(-num_dst // each)
    if query_QHI is not None and ctx.sizes["SHARED"]:
        sums_QHI = query_QHI.new_empty(num_programs, *query_QHI.shape[1:], dtype=torch.float32)
    elif query_QHI is not None:
        sums_QHI = torch.empty_like(query_QHI)
    if own_HI is not None:
        sums_PHI = own_HI.new_empty(num_programs, *own_HI.shape, dtype=torch.float32)
        grad_offset_DH = alpha_DFH.new_empty(num_dst, len(own_HI))
    _launch(
        backward, num_programs, rows_SI, ctx.block.neighbors_DF, ctx.block.count_D, grad_z_DGI,
        scores_DFH, alpha_DFH, grad_scores_DFH, grad_offset_DH, sums_QHI, sums_PHI, len(rows_SI), num_dst, fan_out,
        ctx.slope, each, **_tile_of_neighbors(ctx.sizes, fan_out),
    )  # fmt: skip
    if sums_QHI is not None and ctx.sizes["SHARED"]:
        sums_QHI = sums_QHI.sum(dim=0, keepdim=True).to(query_QHI.dtype)
    return grad_scores_DFH, grad_offset_DH, sums_QHI, None if sums_PHI is None else sums_PHI.sum(dim=0).to(own_HI.dtype)


def _by_source(ctx: Any, grad_z_DGI: Tensor, grad_scores_DFH: Tensor | None, grad_offset_DH: Tensor | None) -> Tensor:
    """Gradients of the rows."""
    rows_SI, query_QHI, own_HI, _, alpha_DFH = ctx.saved_tensors
    num_dst, fan_out = ctx.block.neighbors_DF.shape
    grad_rows_SI = torch.empty_like(rows_SI)
    start_S, edge_E, source_E = _edges_by_source(ctx.block, len(rows_SI))
    sums_WI = rows_SI.new_empty(len(edge_E) // WINDOW.value, rows_SI.shape[1], dtype=torch.float32)
    edges = (edge_E, query_QHI, alpha_DFH, grad_z_DGI, grad_scores_DFH, fan_out)
    tile = _tile(ctx.sizes, MAX_EDGES)
    _launch(sum_windows, len(sums_WI), sums_WI, source_E, len(rows_SI), *edges, **tile)
    _launch(sum_sources, len(rows_SI), grad_rows_SI, start_S, sums_WI, own_HI, grad_offset_DH, num_dst, *edges, **tile)
    return grad_rows_SI


def _launch(kernel: Any, num_programs: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the tensors' device, which need not be the current one."""
    if num_programs:
        with torch.cuda.device_of(arguments[0]):
            kernel[(num_programs,)](*arguments, **constants)


def _tile(sizes: dict[str, int], num_rows: int) -> dict[str, int]:
    """The constants of a kernel that takes at most `num_rows` rows at a time."""
    block_h, block_i = _power_of_2(sizes["HEADS"]), _power_of_2(sizes["SIZE"])
    most = max(MAX_PRODUCTS // (block_h * block_i), 1)
    block_r = min(_power_of_2(num_rows), most)
    num_warps = max(block_r * block_h * block_i // PRODUCTS_PER_WARP, block_h * block_i // SUMS_PER_WARP, 1)
    blocks = {"BR": block_r, "BH": block_h, "BG": 1 if sizes["SUMS"] == 1 else block_h, "BI": block_i}
    return {**sizes, **blocks, "num_warps": min(num_warps, MAX_WARPS)}


def _power_of_2(least: int) -> int:
    return 1 << max(least - 1, 0).bit_length()


def _tile_of_neighbors(sizes: dict[str, int], fan_out: int) -> dict[str, int]:
    tile = _tile(sizes, min(fan_out, MAX_NEIGHBORS))
    return {**tile, "WIDE": fan_out > tile["BR"]}


def _edges_by_source(block: Block, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """The edges u * F + f, sorted by source and then by number; padding comes last.

    Returns where the edges of each source start [S + 1], the edges [E], and their sources [E], int32. A stable radix
    sort: it has the same result on every run, and takes half as long for int32 (2^31 rows fit no GPU).
    """
    key_E = block.neighbors_DF.masked_fill(~block.mask_DF(), num_rows).flatten().int()
    source_E, edge_E = key_E.sort(stable=True)
    numbers = torch.arange(num_rows + 1, dtype=torch.int32, device=key_E.device)
    return torch.searchsorted(source_E, numbers), edge_E, source_E
