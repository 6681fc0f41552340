"""`TextEncoder`: texts through a sentence-transformers model or a Transformers encoder.

A batch has texts of one length in tokens, so nothing is padded: a text's vector does not depend on the texts beside
it, and no work goes into padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dist_gat.base.errors import ConfigError, first_line
from dist_gat.base.quiet import silent
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.text.model_files import missing_extra

# tokens of a batch: a larger one is no faster, and one of a large model on a CPU should end within seconds
TOKENS = {"cpu": 2048, "cuda": 16384}
LIBRARY_BATCH = 32  # of models that read other than tokens


def pick_device(name: str) -> torch.device:
    """auto: a GPU where there is one. Raises `ConfigError` where one is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no GPU; set it to cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


class TextEncoder:
    """size: D, the length of its vectors. They are float32 whatever numbers the model was saved in."""

    def __init__(self, model: Path | str, config: TextEncoderConfig) -> None:
        """model: its folder, or a name that is fetched from the hub. Raises `ConfigError` where it can't be opened."""
        self.device = pick_device(config.device)
        self.model = open_model(model, config, self.device)
        self.size = int(self.model.get_embedding_dimension())
        default = self.model.prompts.get(self.model.default_prompt_name or "") or ""
        self.prompt = default if config.prompt is None else config.prompt
        self.reads_tokens = self._reads_tokens()

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of numbers of texts, int64 [b], and their vectors, float32 [b, D]: all texts, in any order."""
        with torch.inference_mode():
            yield from self._by_tokens(texts) if self.reads_tokens else self._by_library(texts)

    def tokens(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """What the model reads of each text, by the names of its inputs."""
        longest = self.model.max_seq_length or None
        found = self.model.tokenizer(
            [self.prompt + text for text in texts], truncation=longest is not None, max_length=longest, padding=False
        )
        return {str(name): values for name, values in found.items()}

    def vectors(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """float32 [b, D] of tokens of one length, int64 [b, length] for each input of the model."""
        found: torch.Tensor = self.model(batch)["sentence_embedding"]
        return found.float()

    def _by_tokens(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        tokens = self.tokens(texts)
        lengths_N = np.array([len(ids) for ids in tokens["input_ids"]])
        for rows in of_one_length(lengths_N, TOKENS[self.device.type]):
            batch = {
                name: torch.tensor([values[row] for row in rows], device=self.device) for name, values in tokens.items()
            }
            yield rows, self.vectors(batch).cpu().numpy()

    def _by_library(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(texts), LIBRARY_BATCH):
            some = list(texts[start : start + LIBRARY_BATCH])
            found = self.model.encode(some, prompt=self.prompt, batch_size=len(some), show_progress_bar=False)
            yield np.arange(start, start + len(some)), np.asarray(found, np.float32)

    def _reads_tokens(self) -> bool:
        """Whether the model takes plain tokens; others (chats, static embeddings) are left to the library whole."""
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        first = self.model[0]
        chats = "message" in getattr(first, "modality_config", {})
        leaves_out_prompt = any(isinstance(part, Pooling) and not part.include_prompt for part in self.model)
        return isinstance(first, Transformer) and not chats and not (self.prompt and leaves_out_prompt)


def of_one_length(lengths_N: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Numbers of texts of one length, int64 [b], of at most `tokens` tokens, or one text: all texts."""
    for length in np.unique(lengths_N):
        same = np.flatnonzero(lengths_N == length)
        step = max(1, tokens // max(1, int(length)))
        yield from (same[start : start + step] for start in range(0, len(same), step))


def open_model(model: Path | str, config: TextEncoderConfig, device: torch.device) -> Any:
    """A `SentenceTransformer` in float32: a Transformers encoder that says nothing of pooling gets the mean of tokens.

    It reads at most `config.max_tokens` tokens. Code that comes with a model is not run. Raises `ConfigError`.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as err:
        raise missing_extra(f"encoder={config.encoder}", err) from None
    try:
        with silent():
            opened = SentenceTransformer(str(model), device=str(device), model_kwargs={"dtype": torch.float32})
    except (OSError, ValueError, RuntimeError, KeyError) as err:
        raise ConfigError(
            f"encoder={config.encoder}: can't be opened: {first_line(err)}; expected a folder with a model that "
            "sentence-transformers or transformers has saved, or its name in the hub, which must be reachable or have "
            "been fetched before"
        ) from None
    opened.eval().requires_grad_(False)
    with suppress(AttributeError):  # static embeddings read texts whole
        opened.max_seq_length = min(config.max_tokens, opened.max_seq_length or config.max_tokens)
    return opened
