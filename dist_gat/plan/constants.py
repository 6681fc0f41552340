"""`Constants`: what one kind of machine needs for each piece of work, and where these numbers come from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from dist_gat.base.errors import ConfigError
from dist_gat.config.plain_yaml import read_yaml

FOLDER = Path(__file__).parent / "constants"
DEFAULT = {False: FOLDER / "cpu-2-amd-epyc.yaml", True: FOLDER / "h100.yaml"}  # by launch.use_gpu


class Constants(BaseModel):
    """Seconds are of one thread of a CPU, or of a whole GPU; `*_s_per_*` is a rate, `*_s` a cost a step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origin: str = Field(min_length=1, description="kind of host, and measured or assumed")
    device: Literal["cpu", "cuda"]
    cores_per_host: PositiveInt
    workers_per_host: PositiveInt | None = Field(None, description="GPUs of a host; null: as many as asked for")
    process_bytes: int = Field(gt=0, description="of a worker that has imported everything and holds nothing yet")
    sample_s: float = Field(gt=0, description="one batch, besides its edges")
    sample_s_per_edge: float = Field(gt=0)
    stream_gain: float = Field(ge=0, le=1, description="batches that one more stream samples while the first has one")
    lookup_s_per_byte: float = Field(gt=0, description="of embedding rows: read, and their gradient made")
    attend_s_per_flop: float = Field(gt=0, description="in the attention kernels")
    product_s_per_flop: float = Field(gt=0, description="in matrix products")
    score_s_per_entry: float = Field(gt=0, description="loss of one seed against one negative, forward and backward")
    adam_s_per_byte: float = Field(gt=0, description="of embedding rows: gradient norm and sparse Adam")
    step_s: float = Field(gt=0, description="one step, besides its rows")
    route_s_per_byte: float = Field(gt=0, description="of rows: sorted by owner and back, also those that stay")
    exchange_s_per_byte: float = Field(gt=0, description="sent, at least; a narrower network takes longer")
    memory_s_per_byte: float | None = Field(
        None, gt=0, description="the same of rows that ranks of one host exchange through memory; null: as all else"
    )
    collective_s: float = Field(gt=0, description="latency of one collective")
    upload_s_per_byte: float = Field(0.0, ge=0, description="batches from the host to the device")


def read_constants(path: Path) -> Constants:
    """Constants from YAML or JSON. Raises `ConfigError`."""
    values = read_yaml(path)
    try:
        return Constants.model_validate(values)
    except ValidationError as err:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in err.errors()[:5])
        raise ConfigError(
            f"{path}: not constants of a cost model: {wrong}; `python -m benchmarks.cost` writes them"
        ) from None
