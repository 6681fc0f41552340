"""The tables of `explain`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from dist_gat.cli.output import make_table
from dist_gat.pages.figures import duration


def explanation_tables(result: dict[str, Any]) -> list[Table]:
    """Of the score, of the user's interactions, of other neighbours where there are some, and of the lists without."""
    chosen, fidelity, lists = result["item"], result["fidelity"], result["counterfactual"]
    summary = [
        ["item", " ".join(str(value) for value in chosen.values())],
        ["score", f"{result['score']:.4f}"],
        *([f"of it the item's {name}", f"{value:.4f}"] for name, value in result["own_scores"].items()),
        ["place in the user's list", str(lists["place"])],
        [f"drop without the first {fidelity['deleted']}", f"{fidelity['top_drop']:.4f}"],
        [f"drop without the {fidelity['deleted']} of most attention", f"{fidelity['attention_drop']:.4f}"],
        ["drop without as many random", f"{fidelity['random_drop_mean']:.4f} ± {fidelity['random_drop_std']:.4f}"],
        ["more than chance", "yes" if fidelity["above_chance"] else "no: don't read them as reasons"],
    ]
    title = f"{len(result['interactions'])} of {result['num_interactions']} interactions, by contribution"
    tables = [
        make_table("explanation", ["what", "found"], summary),
        edge_table(title, result["interactions"]),
    ]
    if result["others"]:
        tables.append(edge_table("other neighbours", result["others"]))
    rows = [
        [
            name_of(entry), entry["relation"], entry["place"], ", ".join(map(name_of, entry["leave"])),
            ", ".join(map(name_of, entry["enter"])), entry.get("own_place", ""),
        ]
        for entry in lists["without"]
    ]  # fmt: skip
    columns = ["without", "relation", "place of the item", "leave", "enter", "back at"]
    return [*tables, make_table(f"the first {len(lists['list'])} of the list, without one edge", columns, rows)]


def edge_table(title: str, edges: list[dict[str, Any]]) -> Table:
    """Edges of the user: what they carry, as far as one of them does, contribution, attention, and users behind."""
    edges = [{**edge, "before": duration(edge["seconds_before_newest"])} if "rank" in edge else edge for edge in edges]
    carried = {"category": "category", "value": "weight", "rank": "rank", "before": "before newest"}
    shown = [name for name in carried if any(name in edge for edge in edges)]
    has_behind = any(edge.get("behind") for edge in edges)
    rows = [
        [
            name_of(edge), edge["relation"], *(edge.get(name, "") for name in shown),
            "" if edge["contribution"] is None else edge["contribution"], edge["weight"],
            *([", ".join(f"{one['user_id']} {one['weight']:.3f}" for one in edge["behind"])] if has_behind else []),
        ]
        for edge in edges
    ]  # fmt: skip
    columns = ["neighbour", "relation", *(carried[name] for name in shown), "contribution", "attention"]
    return make_table(title, [*columns, *(["users behind it"] if has_behind else [])], rows)


def name_of(node: dict[str, Any]) -> str:
    """Its title, or else its ID."""
    return str(node.get("title") or next(value for key, value in node.items() if key.endswith("_id")))
