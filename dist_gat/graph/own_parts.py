"""`open_own_parts`: a prepared data set on the ranks of a job, each of which needs its own parts alone."""

from __future__ import annotations

from dist_gat.base.addresses import is_url
from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import FailedTogether, share_text, together
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.ranges import parts_of_ranks


def own_parts_of(num_parts: int, channel: Channel) -> range:
    starts = parts_of_ranks(num_parts, channel.world_size)
    return range(int(starts[channel.rank]), int(starts[channel.rank + 1]))


def open_own_parts(config: Config, channel: Channel) -> PreparedGraph:
    """`open_prepared` of a recipe. Collective: all ranks raise `StorageError` where one can't, or has another data set.

    From a URL each rank fetches the parts that it owns into the cache of its host, and what all need; when this
    returns, all ranks have.
    """
    name, cache = config.data.prepared, config.launch.cache_folder
    with together(channel, f"data.prepared={name}: can't be read"):
        prepared = open_prepared(name, parts=(), cache=cache)
        if is_url(name):
            own = own_parts_of(prepared.ranges.num_parts, channel)
            prepared = open_prepared(name, parts=own, cache=cache)
    found = share_text(prepared.fingerprint, channel)
    if len(set(found)) > 1:
        told = ", ".join(f"rank {rank}: {one[:12]}" for rank, one in enumerate(found))
        raise FailedTogether(
            f"data.prepared={name}: the ranks read different data sets ({told}): expected one; it was prepared anew "
            "meanwhile, or hosts have other folders of this name: run `dist-gat train` again when it is the same "
            "everywhere"
        )
    return prepared
