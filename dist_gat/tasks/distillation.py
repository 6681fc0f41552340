"""`distillation_term`: columns alone learn to say what they say together with a node's ID row.

A node that training met, a warm one, has both; a cold one will have columns alone. The term is 1 - cos(c, sg(x)) of
what the columns make of a node, c, and what they make with its ID row, x, which gets no gradient (sg).

Shape legend: N seed nodes, S outermost sources, E embedding size, n seed nodes of one type.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.batch import Batch


def distillation_term(
    weight: float, model: Recommender, embedding_SE: Tensor, batch: Batch, num_seed_nodes: int, at: Sequence[Tensor]
) -> dict[str, Tensor]:
    """The loss term `distill`, this rank's share of a mean over the ends of all seeds; none with a weight of 0.

    num_seed_nodes: N. at: positions among S of the seeds' ends, each as often as it is met.
    """
    if not weight:
        return {}
    distance_N = embedding_SE.new_zeros(num_seed_nodes)
    for kind, (at_U, columns) in batch.features.items():
        encode = model.dense.inputs.types[f"type_{kind}"]
        seeds, rows = batch.seeds_among(at_U, num_seed_nodes)
        columns_n, ids_nE = columns[rows], embedding_SE[seeds].detach()
        with torch.no_grad():
            both_nE = encode(ids_nE, None, columns_n)
        alone_nE = encode(ids_nE, torch.zeros_like(seeds, dtype=torch.bool), columns_n)
        is_warm_n = columns_n[:, 0] != 0
        distance_n = 1 - functional.cosine_similarity(alone_nE, both_nE, dim=1)
        distance_N = distance_N.index_add(0, seeds, torch.where(is_warm_n, distance_n, 0.0).to(distance_N.dtype))
    met = torch.cat([positions.flatten() for positions in at])
    return {"distill": weight * distance_N[met].sum() / (len(at) * batch.num_global_seeds)}
