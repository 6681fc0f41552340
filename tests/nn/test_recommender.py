import numpy as np
import torch
from helpers import INTERACTS, ITEM
from nn_cases import SIZE_OF
from torch.testing import assert_close

from dist_gat.config.model_sections import DecoderConfig, ModelConfig
from dist_gat.data.column_layout import Column, laid_out, width_of
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.recommender import build_dense, build_recommender
from dist_gat.sampling.block import Block
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.ownership import share_nodes

SIZE = SIZE_OF[torch.float64]


def test_ranking_rows_add_the_popularity_of_items_and_of_no_other_node(synthetic: PreparedGraph):
    config = ModelConfig(embedding_size=6, decoder=DecoderConfig(kind="cosine", temperature=0.2, popularity=True))
    model = build_recommender(config, 2, {}, share_nodes(synthetic.ranges, 1, 0), Channel("rows"), 0)
    with torch.no_grad():
        model.dense.own_scores["popularity"].slope.fill_(0.7)
    store, nodes = open_store(synthetic, Channel("sampling"), "auto"), np.arange(synthetic.ranges.num_nodes)
    representation_NR = torch.randn(len(nodes), 6, generator=torch.Generator().manual_seed(1))
    ranking_NR = model.ranking_rows(representation_NR, nodes, store, INTERACTS)
    is_item = synthetic.ranges.is_of_type(nodes, ITEM)
    assert not ranking_NR.requires_grad
    degree = store.in_degree(nodes[is_item])
    cosine_UI = torch.cosine_similarity(
        representation_NR[~is_item][:, None], representation_NR[is_item][None], dim=2
    )  # fmt: skip
    expected_UI = cosine_UI / 0.2 + 0.7 * torch.from_numpy(np.log1p(degree)).float()
    assert_close(ranking_NR[~is_item] @ ranking_NR[is_item].T / 0.2, expected_UI, atol=1e-4, rtol=1e-4)


KINDS = {"numeric": 1, "category": 1, "categories": 3, "vector": 4}
LAYOUT = laid_out([
    Column("known", "known", 1, 0),
    *(Column(kind, kind, width, 0, num_categories=5) for kind, width in KINDS.items()),
])  # fmt: skip


def test_a_rank_without_seeds_reaches_every_parameter():
    model = ModelConfig(embedding_size=SIZE, scoring="additive_v2", decoder=DecoderConfig(popularity=True))
    dense = build_dense(model, 2, {"item": LAYOUT}).double()
    empty = Block(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 0)
    nothing = {"item": (torch.zeros(0, dtype=torch.int64), torch.zeros(0, width_of(LAYOUT)))}
    encoded = dense(
        torch.zeros(0, SIZE, dtype=torch.float64), nothing, [empty, empty], torch.zeros(0, dtype=torch.int64)
    )
    encoded.rows_NR.sum().backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in dense.parameters())
