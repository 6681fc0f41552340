"""One small all-reduce a step, before the update: what each rank found, so that all of them do the same next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.stop_requests import Request

ROWS_SQUARE, REQUEST, SAVE_FAILED, TERMS = 0, 1, 2, 3


@dataclass(frozen=True)
class StepVote:
    """The same on every rank. not_finite: what is NaN or infinite, and on which ranks; empty in a healthy step."""

    gradient_norm: float
    not_finite: str
    request: Request
    save_failed: bool


def vote(
    channel: Channel,
    terms: Mapping[str, Tensor],
    rows_square: Tensor,
    dense_square: Tensor,
    request: Request,
    save_failed: bool,
) -> StepVote:
    """Exchange what the ranks found in this step. Collective.

    terms: this rank's share of each loss term. The squares are of its embedding gradient, and of the dense
    gradients, which are alike on every rank.
    """
    own = torch.zeros(TERMS + len(terms), dtype=torch.float64, device=channel.device)
    own[ROWS_SQUARE] = rows_square
    own[REQUEST], own[SAVE_FAILED] = int(request), float(save_failed)
    own[TERMS:] = torch.stack([~torch.isfinite(term.detach()) for term in terms.values()])
    # a row for each rank: adding zeros keeps each rank's vote and shows whose it is
    votes_WK = torch.zeros(channel.world_size, len(own), dtype=torch.float64, device=channel.device)
    votes_WK[channel.rank] = own
    votes_WK = channel.sum(votes_WK)
    square = (votes_WK[:, ROWS_SQUARE].sum() + dense_square).item()
    votes_WK = votes_WK.cpu()
    found = {f"loss term {name}": votes_WK[:, TERMS + number] > 0 for number, name in enumerate(terms)}
    found["gradient of the embedding rows"] = ~torch.isfinite(votes_WK[:, ROWS_SQUARE])
    faults = [f"{name} on rank {_ranks(ranks_W)}" for name, ranks_W in found.items() if ranks_W.any()]
    if not torch.isfinite(dense_square):
        faults.append("gradient of the dense weights")
    return StepVote(
        gradient_norm=square**0.5,
        not_finite=", ".join(faults),
        request=Request(int(votes_WK[:, REQUEST].max())),
        save_failed=bool(votes_WK[:, SAVE_FAILED].any()),
    )


def _ranks(ranks_W: Tensor) -> str:
    return ", ".join(str(rank) for rank in ranks_W.nonzero().flatten().tolist())
