"""`TaskHeads`: what tasks that predict pairs train beside the encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dist_gat.nn.experts import Experts
from dist_gat.nn.pair_head import PairDecoder, PairHead
from dist_gat.nn.recommender import Recommender
from dist_gat.tasks.likelihood import Likelihood

# of the keys, so that no name of a task is one of ModuleDict's own
PREFIX = "task_"


class TaskHeads(nn.Module):
    """A head for each task, by name, and the likelihoods that have parameters. experts: shared by the heads.

    log_variance_T: of so many tasks that are weighed by uncertainty.
    """

    def __init__(
        self, size: int, likelihoods: Mapping[str, Likelihood], num_experts: int = 0, num_weighed: int = 0
    ) -> None:
        super().__init__()
        self.log_variance_T = nn.Parameter(torch.zeros(num_weighed)) if num_weighed else None
        self.experts = Experts(size, num_experts) if num_experts else None
        self.pairs = nn.ModuleDict({PREFIX + name: PairHead(size, num_experts) for name in likelihoods})
        self.likelihoods = nn.ModuleDict(
            {PREFIX + name: found for name, found in likelihoods.items() if isinstance(found, nn.Module)}
        )

    def decoder(self, model: Recommender, names: tuple[str, ...]) -> PairDecoder:
        """How the last of the named tasks reads pairs; the others are those that it needs."""
        heads: list[PairHead] = [self.pairs[PREFIX + name] for name in names]  # type: ignore[misc]
        return PairDecoder(model.decoder, heads, self.experts)


def likelihood_weights(dense: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What a task's likelihood has learned, from the weights of a dense model whose head is `TaskHeads`."""
    start = f"head.likelihoods.{PREFIX}{name}."
    return {key.removeprefix(start): value for key, value in dense.items() if key.startswith(start)}
