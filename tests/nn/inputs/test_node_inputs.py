"""What is known of a node becomes one row: each kind of column, missing values, fusion, absent ID rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dist_gat.config.model_sections import InputsConfig
from dist_gat.data.column_layout import Column, laid_out, width_of
from dist_gat.nn.inputs.categories import CategoriesInput
from dist_gat.nn.inputs.category import CategoryInput
from dist_gat.nn.inputs.node_inputs import NodeInputs

SIZE = 6
USER = laid_out([Column("known", "known", 1, 2), Column("age", "numeric", 1, 2)])
ITEM = laid_out([
    Column("known", "known", 1, 3), Column("year", "numeric", 1, 2), Column("price", "numeric", 1, 2),
    Column("maker", "category", 1, 2, num_categories=4), Column("items", "categories", 3, 2, num_categories=5),
    Column("picture", "vector", 2, 2),
])  # fmt: skip
# known, two numbers, a code, three codes, a vector; the last node has nothing at all
NUMBERS = [[1, 0.5, math.nan], [0, -1, 2], [1, math.nan, math.nan]]
CODES = [[3, 0, 4, -1], [0, 1, -1, -1], [-1, -1, -1, -1]]
VECTORS = [[0.25, -2], [1, 1], [math.nan, math.nan]]
AT = torch.tensor([4, 1, 2])
FUSIONS = ("sum", "gate", "attention")


def stored() -> Tensor:
    """float32 [3, width], as parts have it."""
    columns = [np.array(NUMBERS, np.float32), np.array(CODES, np.int32).view(np.float32), np.array(VECTORS, np.float32)]
    return torch.from_numpy(np.concatenate(columns, axis=1))


def features() -> dict[str, tuple[Tensor, Tensor]]:
    """Of five nodes, three items and no user that has columns."""
    return {"user": (AT[:0], torch.zeros(0, width_of(USER))), "item": (AT, stored())}


def inputs_of(fusion: str = "sum") -> NodeInputs:
    torch.manual_seed(0)
    made = NodeInputs({"user": USER, "item": ITEM}, SIZE, InputsConfig(fusion=fusion)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


@pytest.mark.parametrize("has_weights", [False, True])
def test_encoders_are_their_factors_times_their_weights(has_weights: bool) -> None:
    layout, columns = ITEM, stored()
    if has_weights:
        weights = torch.tensor([[0.6, 0.8, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 0.0]])
        columns = torch.cat([columns[:, :1], columns[:, ITEM[4].slice], weights], dim=1)
        layout = laid_out([ITEM[0], ITEM[4], Column("items.weights", "weights", 3, 2)])
    inputs = NodeInputs({"item": layout}, SIZE).double()
    for parameter in inputs.parameters():
        nn.init.normal_(parameter)
    of_item: Any = inputs.types["type_item"]
    whole = torch.zeros(5, SIZE, dtype=torch.float64)
    for encoder, factors in zip(of_item.encoders.values(), inputs.factors({"item": (AT, columns)}, 5), strict=True):
        named = dict(encoder.named_parameters())
        matrix = named.pop("project.weight", named.get("weight"))
        parts = [matrix if isinstance(encoder, CategoryInput | CategoriesInput) else matrix.T]
        weights_DE = torch.cat([*parts, *(named[name].view(-1, SIZE) for name in named if name == "missing")])
        code_SL = torch.arange(factors.size).expand(5, -1) if factors.code_nL is None else factors.code_nL
        assert len(weights_DE) == factors.size
        whole += (factors.value_nL[:, :, None] * weights_DE[code_SL]).sum(1)
    nothing = torch.zeros(5, SIZE, dtype=torch.float64)
    assert_close(inputs(nothing, {"item": (AT, columns)}), whole)
    assert len(of_item.encoders) == (1 if has_weights else 4)


def ids() -> Tensor:
    return torch.randn(5, SIZE, dtype=torch.float64, generator=torch.manual_seed(1))


def encoded_by_hand(inputs: NodeInputs, row: int) -> list[tuple[bool, Tensor]]:
    """Whether an item has each of its columns, and what this adds, read off the definitions."""
    weights = dict(inputs.named_parameters())

    def of(name: str) -> Tensor:
        return weights[f"types.type_item.encoders.{name}"].detach()

    numbers = NUMBERS[row][1:]
    numeric = torch.zeros(SIZE, dtype=torch.float64)
    for place, number in enumerate(numbers):
        missing = math.isnan(number)
        numeric += of("numeric.missing")[place] if missing else of("numeric.project.weight")[:, place] * number
    maker, *genres = CODES[row]
    found = [(not all(map(math.isnan, numbers)), numeric)]
    found.append((maker >= 0, of("column_maker.weight")[1 + maker]))
    codes = [code for code in genres if code >= 0]
    found.append((bool(codes), of("column_items.weight")[[1 + code for code in codes or [-1]]].mean(0)))
    vector = torch.tensor(VECTORS[row], dtype=torch.float64)
    is_there = not bool(vector.isnan().any())
    found.append((is_there, of("column_picture.weight") @ vector / 2 if is_there else of("column_picture.missing")))
    return found


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("dropped", [None, 4])
def test_rows_are_what_the_definitions_say(fusion: str, dropped: int | None) -> None:
    inputs, embedding_SE = inputs_of(fusion), ids().requires_grad_()
    has_id_S = None if dropped is None else torch.arange(5) != dropped
    rows_SE = inputs(embedding_SE, features(), has_id_S)
    weights = {name.rpartition(".")[2]: value for name, value in inputs.types["type_item"].fusion.named_parameters()}
    for row, at in enumerate(AT.tolist()):
        has_id = NUMBERS[row][0] == 1 and at != dropped
        id_row = embedding_SE.detach()[at] if has_id else torch.zeros(SIZE, dtype=torch.float64)
        parts = [(has_id, id_row), *encoded_by_hand(inputs, row)]
        present = torch.tensor([is_there for is_there, _ in parts])
        rows_CE = torch.stack([rows for _, rows in parts])
        if fusion == "sum":
            expected = rows_CE.sum(0)
        elif fusion == "gate":
            gate = 2 * torch.sigmoid((rows_CE * weights["weight"]).sum(1) + weights["bias"])
            expected = (gate[:, None] * rows_CE).sum(0)
        else:
            logit = rows_CE @ weights["query"] / math.sqrt(SIZE) + weights["bias"]
            expected = logit.masked_fill(~present, -math.inf).softmax(0) @ rows_CE
        assert_close(rows_SE[at], expected)
    assert_close(rows_SE[0], embedding_SE[0])  # of a node without columns
    rows_SE.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in inputs.parameters())  # DDP: also without users
    with pytest.raises(AssertionError):
        inputs(embedding_SE, {"item": features()["item"]})


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_node_without_anything_is_what_missing_rows_say(fusion: str) -> None:
    inputs, nothing = inputs_of(fusion), torch.zeros(5, dtype=torch.bool)
    rows_SE = inputs(ids(), features(), nothing)
    assert rows_SE.isfinite().all()
    assert (rows_SE[2] != 0).all()
    assert (rows_SE[[0, 3]] == 0).all()
    # nothing of an absent ID row is left, whatever stands there
    assert torch.equal(inputs(torch.full((5, SIZE), math.nan, dtype=torch.float64), features(), nothing), rows_SE)


def test_a_missing_value_starts_without_effect() -> None:
    inputs = NodeInputs({"user": USER, "item": ITEM}, SIZE).double()
    embedding_SE = ids()
    assert_close(inputs(embedding_SE, features())[2], embedding_SE[2])


@pytest.mark.parametrize("fusion", ["gate", "attention"])
def test_fusion_begins_as_a_sum_or_a_mean(fusion: str) -> None:
    plain, other = (NodeInputs({"item": ITEM}, SIZE, InputsConfig(fusion=kind)) for kind in ("sum", fusion))  # type: ignore[arg-type]
    other.load_state_dict(plain.state_dict(), strict=False)
    of_item = {"item": features()["item"]}
    rows = [made(ids().float(), of_item)[4] for made in (plain, other)]
    assert_close(rows[1], rows[0] if fusion == "gate" else rows[0] / 5)


def test_categories_with_weights_are_a_sum_by_them() -> None:
    layout = laid_out([
        Column("known", "known", 1, 3), Column("words", "categories", 3, 2, num_categories=5),
        Column("words.weights", "weights", 3, 2), Column("picture", "vector", 2, 2),
    ])  # fmt: skip
    torch.manual_seed(0)
    inputs = NodeInputs({"item": layout}, SIZE, InputsConfig()).double()
    codes = np.array([row[1:] for row in CODES], np.int32)  # the last has none
    weights = np.array([[0.5, 2, 1], [1, 0, 0], [0, 0, 0]], np.float32)
    columns = [np.ones((3, 1), np.float32), codes.view(np.float32), weights, np.array(VECTORS, np.float32)]
    stored_nW = torch.from_numpy(np.concatenate(columns, axis=1))
    own = dict(inputs.named_parameters())
    rows = {name.rpartition(".")[2]: value for name, value in own.items() if "column_words" in name}["weight"]
    with torch.no_grad():
        rows[0] = 7.0  # of nodes without any
    found = inputs(torch.zeros(5, SIZE, dtype=torch.float64), {"item": (AT, stored_nW)})
    picture = {name.rpartition(".")[2]: value for name, value in own.items() if "column_picture" in name}
    for place, node in enumerate(AT.tolist()):
        at = [code for code in codes[place].tolist() if code >= 0]
        words = sum((float(w) * rows[1 + code] for w, code in zip(weights[place], at, strict=False)), rows[0] * 0)
        words = words if at else rows[0]
        vector = torch.tensor(VECTORS[place], dtype=torch.float64)
        picture_E = picture["missing"] if place == 2 else picture["weight"] @ (vector.nan_to_num() / 2)
        assert_close(found[node], words + picture_E)
