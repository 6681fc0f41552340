"""`Instances`: nodes as they are at a time, for `sampling.time=strict`.

A seed of time t may see edges before t alone, at every hop. So a node that several seeds reach is there once for each
of their times, with the number node + (number of nodes) · (number of the time). What a seed is compared with is there
at no time: it sees no edge that has a time, only those without, such as tags.

Shape legend: T times, n instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_gat.sampling.relabeller import Relabeller

NEVER = np.iinfo(np.int64).min  # no edge is before this


@dataclass(frozen=True)
class Instances:
    """num_nodes: of the graph. limits: int64 [T], ascending, `NEVER` first; an instance sees edges before its limit."""

    num_nodes: int
    limits: np.ndarray

    @property
    def num_ids(self) -> int:
        return self.num_nodes * len(self.limits)

    def at(self, nodes: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        """Instances of nodes at some of the times, or at none."""
        if times is None:
            return nodes
        return nodes + self.num_nodes * np.searchsorted(self.limits, times).reshape(nodes.shape)

    def nodes(self, instances: np.ndarray) -> np.ndarray:
        return instances % self.num_nodes

    def limits_of(self, instances: np.ndarray) -> np.ndarray:
        """int64 [n]"""
        return self.limits[instances // self.num_nodes]

    def beside(self, instances: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """What instances, [n], read of their neighbours, int64 [n, W] nodes: these, at their own time; -1 stays."""
        offset = (instances // self.num_nodes * self.num_nodes)[:, None]
        return np.where(sources >= 0, sources + offset, sources)


def instances_of(num_nodes: int, times: np.ndarray) -> Instances:
    """times: of all seeds of a step, on all ranks."""
    return Instances(num_nodes, np.append(NEVER, np.unique(times)))


def distinct(nodes: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ones in order of first appearance, and the place among them of each."""
    relabeller = Relabeller(len(nodes), num_nodes)
    place = relabeller.add(nodes)
    return relabeller.nodes.copy(), place
