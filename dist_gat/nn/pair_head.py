"""From the representations of two nodes to the value of their pair, for tasks that predict pairs.

Shape legend: B pairs, N nodes, R representation size, K experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dist_gat.nn.decoder import Decoder
from dist_gat.nn.experts import Experts

# of a log-probability: closer to 0 its log-odds would be infinite
LARGEST_LOG = -1e-7


class PairHead(nn.Module):
    """value(u, i) = score(u, i) + a · z_u + b · z_i + c, with the decoder's score: user, item and global bias.

    The biases are linear in the representations, so a node whose ID training never saw has one too. They start at 0.
    With experts, z is the task's mixture of them.
    """

    def __init__(self, size: int, num_experts: int = 0) -> None:
        super().__init__()
        self.source_R = nn.Parameter(torch.zeros(size))
        self.target_R = nn.Parameter(torch.zeros(size))
        self.constant = nn.Parameter(torch.zeros(()))
        self.gate = nn.Linear(size, num_experts, bias=False) if num_experts else None

    def biases(self, rows_NR: Tensor) -> tuple[Tensor, Tensor]:
        """What nodes add to a value as its source and as its target: [N] each."""
        return rows_NR @ self.source_R, rows_NR @ self.target_R


@dataclass(frozen=True)
class PairDecoder:
    """How one task reads pairs. chain: its head, behind those of the tasks that it needs.

    With more than one head, the value is the log-odds of the product of their probabilities (ESMM: Ma et al.,
    SIGIR 2018): P(buy) = P(click) · P(buy | click).
    """

    decoder: Decoder
    chain: Sequence[PairHead]
    experts: Experts | None = None

    @property
    def head(self) -> PairHead:
        return self.chain[-1]

    def values(self, source_BR: Tensor, target_BR: Tensor) -> Tensor:
        """[B]"""
        return chained([self._value(head, source_BR, target_BR) for head in self.chain])

    def rows(self, representation_NR: Tensor, is_source_N: Tensor, is_target_N: Tensor) -> Tensor:
        """[N, R + 2]: rows of nodes whose inner products are values of the task's own head, without its constant, times
        the decoder's temperature.

        The two more columns are the biases, and 1 where the other end has its own.
        """
        rows_NR = self._read(self.head, representation_NR)
        source_N, target_N = (bias_N * self.decoder.temperature for bias_N in self.head.biases(rows_NR))
        columns = (
            torch.where(is_target_N, target_N, is_source_N.to(target_N.dtype)),
            torch.where(is_source_N, source_N, is_target_N.to(source_N.dtype)),
        )
        return torch.cat([self.decoder.ranking_rows(rows_NR), *(column_N[:, None] for column_N in columns)], dim=1)

    def _read(self, head: PairHead, rows_NR: Tensor) -> Tensor:
        if self.experts is None:
            return rows_NR
        assert head.gate is not None, "heads of experts have gates"
        return self.experts(rows_NR, head.gate(rows_NR))

    def _value(self, head: PairHead, source_BR: Tensor, target_BR: Tensor) -> Tensor:
        source_BR, target_BR = self._read(head, source_BR), self._read(head, target_BR)
        of_source_B, of_target_B = source_BR @ head.source_R, target_BR @ head.target_R
        return self.decoder.pair_scores(source_BR, target_BR) + of_source_B + of_target_B + head.constant


def chained(values: Sequence[Tensor]) -> Tensor:
    """The log-odds of the product of the probabilities whose log-odds are `values`."""
    if len(values) == 1:
        return values[0]
    log_product = logsigmoid(torch.stack(list(values))).sum(dim=0).clamp(max=LARGEST_LOG)
    return log_product - torch.log(-torch.expm1(log_product))
