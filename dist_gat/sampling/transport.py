"""`Transport`: questions about parts go to where the parts are, and answers come back.

Parts on this host are read in place; the owners of the others are asked through the exchange. A question maps keys to
the parts that hold the answers, so both ways run the same functions on the same arrays and give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.keys import send_keys
from dist_gat.exchange.route import share_rows
from dist_gat.graph.part import Part, PreparedGraph
from dist_gat.graph.ranges import intervals_of
from dist_gat.kernels.copy_rows import copy_rows
from dist_gat.kernels.grouping import group, order_by_group, split

PartOf = Callable[[np.ndarray], np.ndarray]
# from part, keys, result and places: writes the part's answers to the keys to these places of the result
Answer = Callable[[Part, np.ndarray, np.ndarray, np.ndarray], None]
# from received keys and their numbers by rank: a message with the answers, and its size by rank
Reply = Callable[[np.ndarray, list[int]], tuple[np.ndarray, list[int]]]
# what a rank does while answers are on their way
Work = Callable[[], None]


@dataclass
class Transport:
    """One rank's way to all parts of a prepared graph.

    in_place: bool [P], parts that this rank reads directly, its own among them. exchanges: whether any rank asks.
    rank_starts: int64 [W + 1], rank r owns parts rank_starts[r] to rank_starts[r + 1] - 1.
    """

    prepared: PreparedGraph
    channel: Channel
    in_place: np.ndarray
    exchanges: bool
    rank_starts: np.ndarray

    @property
    def own_parts(self) -> range:
        return range(int(self.rank_starts[self.channel.rank]), int(self.rank_starts[self.channel.rank + 1]))

    def rank_of(self, parts: np.ndarray) -> np.ndarray:
        """int64 [n]: the rank that owns each part."""
        return intervals_of(self.rank_starts, parts)

    def ask(
        self, question: str, keys: np.ndarray, part_of: PartOf, answer: Answer, out: np.ndarray, sent_as: type
    ) -> np.ndarray:
        """Answer keys in place where their part is here, and through its owner where it is not.

        question: see `send_keys`. out: int64, a row a key; returned. sent_as: an integer type that holds the answers.
        """
        here, place_of_part = self._places
        num_groups = len(here) + self.channel.world_size
        order, counts = order_by_group(place_of_part[part_of(keys)], num_groups)
        send_counts = counts[len(here) :]
        *members, there = split(order, [*counts[: len(here)], sum(send_counts)])
        own = partial(self._answer_groups, keys, dict(zip(here.tolist(), members, strict=True)), answer, out)
        if not self.exchanges:
            own()
            return out

        def reply(received: np.ndarray, recv_counts: list[int]) -> tuple[np.ndarray, list[int]]:
            told = np.empty((len(received), *out.shape[1:]), sent_as)
            self._answer(received, part_of(received), answer, told)
            return told, recv_counts

        answers = self.consult(question, keys[there], send_counts, send_counts, reply, [own])
        if answers is not None:
            copy_rows(answers, np.arange(len(there)), out, there)
        return out

    def tell(self, keys: np.ndarray, part_of: PartOf, answer: Answer, out: np.ndarray) -> np.ndarray:
        """Answers to keys that are the same on every rank: nobody has to ask, each owner tells all others."""
        parts = part_of(keys)
        if not self.exchanges:
            self._answer(keys, parts, answer, out)
            return out
        owner = self.rank_of(parts)
        own = owner == self.channel.rank
        counts = np.bincount(owner, minlength=self.channel.world_size).tolist()
        told = np.empty((own.sum(), *out.shape[1:]), out.dtype)
        self._answer(keys[own], parts[own], answer, told)
        out[np.argsort(owner, kind="stable")] = share_rows(torch.from_numpy(told), self.channel, counts).numpy()
        return out

    def consult(
        self,
        question: str,
        keys: np.ndarray,
        send_counts: list[int],
        answer_counts: list[int],
        reply: Reply,
        meanwhile: Iterable[Work],
    ) -> np.ndarray | None:
        """The owners' answers to keys, the first send_counts[0] of them for rank 0, and so on; None where nobody asks.

        answer_counts: how much of the answers comes from each rank. meanwhile: done while they are on their way.
        Collective.
        """
        received, recv_counts, is_empty = send_keys(keys, send_counts, self.channel, question)
        if is_empty:
            do(meanwhile)
            return None
        told, told_counts = reply(received, recv_counts)
        wait = self.channel.start_all_to_all(torch.from_numpy(told), told_counts, answer_counts)
        do(meanwhile)
        return wait().numpy()

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The L parts that are read in place, int64 [L], and for each part its place among them, or L + its owner."""
        here = np.flatnonzero(self.in_place)
        place_of_part = len(here) + self.rank_of(np.arange(len(self.prepared.parts)))
        place_of_part[here] = np.arange(len(here))
        return here, place_of_part

    def _answer(self, keys: np.ndarray, parts: np.ndarray, answer: Answer, out: np.ndarray) -> None:
        """Write the answers to keys, which belong to `parts`, to their rows of `out`."""
        self._answer_groups(keys, dict(enumerate(group(parts, len(self.prepared.parts)))), answer, out)

    def _answer_groups(
        self, keys: np.ndarray, places_of_part: Mapping[int, np.ndarray], answer: Answer, out: np.ndarray
    ) -> None:
        """places_of_part: by number of the part, the positions of its keys."""
        for number, places in places_of_part.items():
            if len(places):
                answer(self.prepared.parts[number], keys[places], out, places)


def do(works: Iterable[Work]) -> None:
    """Run the works one after the other."""
    for work in works:
        work()
