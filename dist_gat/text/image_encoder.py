"""`ImageEncoder`: images through the image tower of a Transformers model such as CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from dist_gat.base.errors import ConfigError, DataError, first_line
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.base.quiet import silent
from dist_gat.exchange.stop_requests import Requests
from dist_gat.text.content_hashes import hash_files
from dist_gat.text.encode import empty, encode_all
from dist_gat.text.model_files import find_model, fingerprint, missing_extra
from dist_gat.text.text_encoder import pick_device
from dist_gat.text.vector_cache import VectorCache

BATCH = 32
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def images_in(folder: Path) -> pl.DataFrame:
    """The images of a folder by name: `id`, the name without its suffix, and `file`. Raises `DataError` without any."""
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{folder}: no images there; expected files that end in {', '.join(SUFFIXES)}")
    return pl.DataFrame({"id": [Path(file).stem for file in files], "file": files})


def encode_images(
    files: pl.Series, folder: Path, encoder: str, cache: Path, device: str = "auto", progress: Progress = be_silent,
    requests: Requests | None = None, make: Callable[[tuple[int, int]], np.ndarray] = empty,
) -> np.ndarray:  # fmt: skip
    """The vector of each image, float32 [N, D]; NaN where `files` has a null. Like `encode_texts`.

    files: names below `folder`. Raises `DataError` where a file is missing or is no image.
    """
    paths = [folder / name for name in files.drop_nulls()]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise DataError(f"{absent[0]}: not found, like {len(absent):,} of {len(paths):,} images; expected a file")
    model = find_model(encoder)
    opened = None if model else ImageEncoder(encoder, device)
    model = model or find_model(encoder)
    made_by = {"encoder": encoder, "fingerprint": fingerprint(model) if model else encoder, "of": "images"}
    return encode_all(
        pl.Series([str(path) for path in paths], dtype=pl.String), hash_files(paths),
        files.is_not_null().arg_true().to_numpy(), len(files), lambda: opened or ImageEncoder(model or encoder, device),
        VectorCache(cache, made_by, "float32", progress), "images", progress, requests or Requests(), make,
    )  # fmt: skip


class ImageEncoder:
    """size: D, the length of the vectors, which are those of `get_image_features`: not normalised."""

    def __init__(self, model: Path | str, device: str) -> None:
        """Raises `ConfigError` where the model can't be opened, or has no image tower."""
        try:
            from transformers import AutoImageProcessor, AutoModel
        except ImportError as err:
            raise missing_extra(f"encoder={model}", err) from None
        self.device = pick_device(device)
        try:
            with silent():
                self.model = AutoModel.from_pretrained(str(model), dtype=torch.float32).eval().to(self.device)
                self.processor = AutoImageProcessor.from_pretrained(str(model))
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as err:
            raise ConfigError(f"encoder={model}: can't be opened as an encoder of images: {first_line(err)}") from None
        if not hasattr(self.model, "get_image_features"):
            raise ConfigError(
                f"encoder={model}: a {type(self.model).__name__} has no tower for images; expected one like CLIP"
            )
        self.size = int(self.model.config.projection_dim)

    def encode(self, paths: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of numbers of paths, int64 [b], and their vectors, float32 [b, D]."""
        for start in range(0, len(paths), BATCH):
            images = [_open_image(path) for path in paths[start : start + BATCH]]
            inputs = self.processor(images=images, return_tensors="pt").to(self.device)
            with torch.inference_mode():
                found = self.model.get_image_features(**inputs).pooler_output
            yield np.arange(start, start + len(images)), found.float().cpu().numpy()


def _open_image(path: str) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as err:
        raise DataError(f"{path}: not an image that can be read: {first_line(err)}") from None
