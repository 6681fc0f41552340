"""How evenly nodes attend to all their neighbours, by degree, with the saved weights.

Shape legend: D destinations, A edges into them, H heads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.random import Purpose, make_key, permute
from dist_gat.explain.trained_run import TrainedRun
from dist_gat.nn.attention import AttentionLayer

MAX_NODES = 256


def attention_by_degree(run: TrainedRun, max_nodes: int = MAX_NODES) -> list[dict[str, Any]]:
    """Mean entropy of attention for each layer and bucket of in-degrees [2^b, 2^(b + 1)), over a sample of nodes.

    A row has `layer`, `first_degree` and `last_degree` of the bucket, `nodes`, and `entropy`: 1 is uniform, 0 is all
    weight on one neighbour. Buckets without sampled nodes are left out. The sample depends on the seed alone.
    """
    num_nodes = run.store.ranges.num_nodes
    key = make_key(run.config.seed, Purpose.REPORT)
    near = run.neighborhood(permute(key, np.arange(min(max_nodes, num_nodes)), num_nodes))
    alphas = run.encode(near, run.input_rows(near.nodes)).alphas
    num_targets = near.hop_ends[0]
    indptr = near.indptr[: num_targets + 1]
    bucket_of = np.log2(np.maximum(np.diff(indptr), 1)).astype(np.int64)
    rows = []
    kind_A = near.stored["kind"][: int(indptr[-1])]
    for layer, (alpha_AH, module) in enumerate(zip(alphas, run.model.encoder.layers, strict=True), start=1):
        assert isinstance(module, AttentionLayer), "layers of attention"
        heard_A = np.ones(len(kind_A), bool) if module.silent is None else ~module.silent.numpy()[kind_A]
        heard_ends = np.append(0, np.cumsum(heard_A))[indptr]
        entropy_D = row_entropy(alpha_AH[: len(kind_A)][torch.from_numpy(heard_A)], heard_ends)
        # of some nodes the layer may read no edges
        measured = (bucket_of > 0) & ~entropy_D.isnan().numpy()
        for bucket in np.unique(bucket_of[measured]).tolist():
            mine = torch.from_numpy((bucket_of == bucket) & measured)
            row = {"layer": layer, "first_degree": 2**bucket, "last_degree": 2 ** (bucket + 1) - 1}
            rows.append({**row, "nodes": int(mine.sum()), "entropy": float(entropy_D[mine].mean())})
    return rows


def row_entropy(alpha_AH: Tensor, indptr: np.ndarray) -> Tensor:
    """[D]: `attention_entropy` of each destination alone, for weights stored edge by edge; NaN below degree 2."""
    count = torch.from_numpy(np.diff(indptr))
    row_A = torch.repeat_interleave(torch.arange(len(count)), count)
    alpha_AH = alpha_AH.double().clamp(min=0.0)
    zeros_DH = torch.zeros(len(count), alpha_AH.shape[1], dtype=torch.float64)
    share_AH = alpha_AH / zeros_DH.index_add(0, row_A, alpha_AH)[row_A]
    entropy_DH = zeros_DH.index_add(0, row_A, torch.special.entr(share_AH))
    return (entropy_DH / count.log()[:, None]).mean(dim=1).where(count >= 2, torch.nan)
