"""A small graph of four node types and five relations: its tables, its recipe, and its edges in plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from recipes import recipe

from dist_gat.config.sections import Config
from dist_gat.graph.part import PreparedGraph

USERS, ITEMS, TAGS, ENTITIES = 40, 30, 8, 12
RELATIONS: dict[str, Any] = {
    "friends": {"table": "friends.csv", "target": "user", "columns": {"source": "one", "target": "other"}},
    "follows": {
        "table": "follows.csv", "target": "user", "directed": True, "columns": {"source": "one", "target": "other"},
    },
    "tags": {"table": "tags.csv", "source": "item", "target": "tag"},
    "kg": {
        "table": "world.kg", "source": "entity", "target": "entity",
        "columns": {"source": "head_id", "target": "tail_id", "category": "relation_id"},
        "same_as": {"table": "world.link"},
    },
}  # fmt: skip
# (edge type, destination, source, category, weight, time) with external names
Edge = tuple[str, str, str, str, float, int]


def write_world(folder: Path, seed: int = 0) -> None:
    """Users named u0 and so on, items i0, tags t0, entities e0; the first half of the items have an alias a0."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    def pairs(num: int, first: tuple[str, int], second: tuple[str, int]) -> list[tuple[str, str]]:
        chosen = rng.choice(first[1] * second[1], num, replace=False)
        return [(f"{first[0]}{n // second[1]}", f"{second[0]}{n % second[1]}") for n in chosen.tolist()]

    met = pairs(400, ("u", USERS), ("i", ITEMS))
    met += [(f"u{n}", f"i{n % ITEMS}") for n in range(USERS) if (f"u{n}", f"i{n % ITEMS}") not in met]
    times = rng.integers(10**9, 10**9 + 5 * 10**7, len(met)) // 10**5 * 10**5  # many are equal
    frame = pl.DataFrame(met, schema=["user_id", "item_id"], orient="row")
    frame.with_columns(weight=pl.Series(rng.integers(1, 6, len(met))), timestamp=pl.Series(times)).write_csv(
        folder / "interactions.csv"
    )
    friends = [pair for pair in pairs(60, ("u", USERS), ("u", USERS)) if pair[0] != pair[1]]
    friends += [friends[0][::-1], friends[1], ("u1", "u1"), ("u1", "nobody")]
    pl.DataFrame(friends, schema=["one", "other"], orient="row").write_csv(folder / "friends.csv")
    follows = [pair for pair in pairs(50, ("u", USERS), ("u", USERS)) if pair[0] != pair[1]]
    pl.DataFrame(follows, schema=["one", "other"], orient="row").write_csv(folder / "follows.csv")
    tags = [*pairs(70, ("i", ITEMS), ("t", TAGS)), ("unknown", "t0"), ("unknown", "t99")]
    pl.DataFrame(tags, schema=["item_id", "tag_id"], orient="row").write_csv(folder / "tags.csv")
    names = [*(f"e{n}" for n in range(ENTITIES)), *(f"a{n}" for n in range(ITEMS // 2))]
    ends = rng.choice(len(names), (90, 2))
    triples = [(names[h], f"r{rng.integers(3)}", names[t]) for h, t in ends.tolist() if h != t]
    triples = [*dict.fromkeys(triples), (names[0], "r0", names[-1])]
    lines = ["head_id:token\trelation_id:token\ttail_id:token", *("\t".join(triple) for triple in triples)]
    (folder / "world.kg").write_text("\n".join(lines) + "\n")
    links = [f"i{n}\ta{n}" for n in range(ITEMS // 2)]
    (folder / "world.link").write_text("\n".join(["item_id:token\tentity_id:token", *links]) + "\n")


def world_recipe(folder: Path, run: str = "run", **sections: dict[str, Any]) -> Config:
    """Four parts; every relation carries messages."""
    base: dict[str, Any] = {
        "data": {"relations": RELATIONS, "split": {"method": "random", "valid_ratio": 0.1, "test_ratio": 0.1}},
        "parts": {"num_parts": 4, "method": "hash"},
        "sampling": {"fanouts": [3, 2]},
        "train": {"batch_size": 90},
    }
    return recipe(folder, run, base, **sections)


def expected_edges(folder: Path, train: set[tuple[str, str]]) -> set[Edge]:
    """All messages. train: the interactions of training. An edge type is called RELATION, or RELATION< if reversed."""
    found: set[Edge] = set()
    rows = pl.read_csv(folder / "interactions.csv").rows()
    for user, item, weight, time in rows:
        if (user, item) in train:
            found |= {("interacts", user, item, "", weight, time), ("interacts<", item, user, "", weight, time)}
    for one, other in pl.read_csv(folder / "friends.csv").rows():
        if one != other and other != "nobody":
            found |= {("friends", one, other, "", 0, 0), ("friends", other, one, "", 0, 0)}
    found |= {("follows", one, other, "", 0, 0) for one, other in pl.read_csv(folder / "follows.csv").rows()}
    for item, tag in pl.read_csv(folder / "tags.csv").rows():
        if item != "unknown":
            found |= {("tags", item, tag, "", 0, 0), ("tags<", tag, item, "", 0, 0)}
    for line in (folder / "world.kg").read_text().splitlines()[1:]:
        head, category, tail = line.split("\t")
        is_item = [name.startswith("a") for name in (head, tail)]
        head, tail = (f"i{name[1:]}" if item else name for name, item in zip((head, tail), is_item, strict=True))
        if is_item == [False, True]:
            head, category, tail = tail, f"~{category}", head
        kinds = "-".join("item" if name.startswith("i") else "entity" for name in (head, tail))
        symmetric = is_item[0] == is_item[1]
        back = f"{category} reversed" if symmetric else category
        found.add((f"kg-{kinds}", head, tail, category, 0, 0))
        found.add((f"kg-{kinds}{'' if symmetric else '<'}", tail, head, back, 0, 0))
    return found


def edges_of_parts(prepared: PreparedGraph) -> set[Edge]:
    """All messages of a prepared folder."""
    names = {
        node: name
        for kind in prepared.schema.node_types
        for name, node in prepared.ids(kind).select("external_id", "node_id").rows()
    }
    found: set[Edge] = set()
    for part in prepared.parts:
        for number, one in enumerate(prepared.schema.edge_types):
            relation, slot = one.relation, prepared.schema.into(one.target).index(number)
            for node in part.ranges.nodes_of_type(part.number, one.target):
                row = int(part.rows.of(np.array([node]))[0]) + slot
                for at in range(part.indptr[row], part.indptr[row + 1]):
                    category, weight, time = "", 0.0, 0
                    if "category" in relation.columns:
                        c, count = int(part.edge_column("category")[at]), len(relation.categories)
                        category = relation.categories[c % count] + (" reversed" if c >= count else "")
                    if "weight" in relation.columns:
                        weight, time = float(part.edge_column("weight")[at]), int(part.edge_column("time")[at]) // 10**6
                    name = relation.name + ("" if one.backward else "<")
                    found.add((name, names[node], names[int(part.indices[at])], category, weight, time))
    return found
