"""`TextTower`: a text encoder that trains inside the model, through LoRA on a capped number of nodes a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from dist_gat.base.errors import ConfigError
from dist_gat.config.text_section import TextTuningConfig
from dist_gat.text.model_files import missing_extra
from dist_gat.text.text_encoder import TOKENS, TextEncoder, of_one_length

CHUNK = 1 << 14


class TextTower(nn.Module):
    """Vectors of nodes by their texts: those that `trained` names go through the encoder, the others are kept vectors.

    The encoder's linear layers W become W + alpha / rank · B A with A [rank, in] and B [out, rank] (Hu et al., LoRA,
    ICLR 2022), by the library peft. A and B alone are trained. B is zero at first, so that the first vectors are those
    of the encoder as it was. Its dropout stays off: a vector is a function of the text and the weights.
    """

    kept_ND: torch.Tensor

    def __init__(
        self, encoder: TextEncoder, texts: Sequence[str], kept_ND: torch.Tensor, config: TextTuningConfig, seed: int
    ) -> None:
        """texts: of the N nodes that have one. kept_ND: their vectors, which `encode_texts` gave. seed: of A.

        Raises `ConfigError` for an encoder that does not read plain tokens, and without the library peft.
        """
        super().__init__()
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise missing_extra("training of a text encoder") from None
        if not encoder.reads_tokens:
            raise ConfigError("this encoder reads no plain tokens, so it can't be trained; take its vectors frozen")
        self.config, self.encoder, self.model = config, encoder, encoder.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules="all-linear")
            inject_adapter_in_model(lora, self.model[0].model)
        self.tokens, self.starts = _all_tokens(encoder, texts)
        self.register_buffer("kept_ND", kept_ND.clone())
        self.encoded_in = 0  # the epoch at whose start the kept vectors were made

    def forward(self, nodes_S: torch.Tensor, trained_S: torch.Tensor) -> torch.Tensor:
        """float32 [S, D]. nodes_S: int64, distinct. trained_S: bool, at most `config.nodes_per_step` of them."""
        vectors_SD = self.kept_ND[nodes_S]
        places = trained_S.nonzero().squeeze(1)
        if not len(places):
            return vectors_SD
        rows_T, new_TD = self._encode(nodes_S[places].cpu().numpy())
        return vectors_SD.index_copy(0, places[rows_T.to(places.device)], new_TD.to(vectors_SD.dtype))

    def train(self, mode: bool = True) -> TextTower:
        """As any module, but for the encoder, whose dropout stays off."""
        super().train(mode)
        self.model.eval()
        return self

    def choose(self, nodes_S: torch.Tensor, draws_S: torch.Tensor) -> torch.Tensor:
        """bool [S]: the nodes of the `config.nodes_per_step` lowest draws, which are functions of step and node."""
        chosen_S = torch.zeros(len(nodes_S), dtype=torch.bool)
        chosen_S[draws_S.argsort(stable=True)[: self.config.nodes_per_step]] = True
        return chosen_S.to(nodes_S.device)

    def is_due(self, epoch: int) -> bool:
        """Whether the kept vectors should be made anew at the start of an epoch."""
        return epoch - self.encoded_in >= self.config.refresh_every

    @torch.no_grad()
    def refresh(self, epoch: int, step: Callable[[], None] = lambda: None) -> float:
        """Make all kept vectors anew. step: is called after each batch, and may raise.

        Returns how stale they were: the mean of 1 - cos(kept, new) over the nodes.
        """
        new_ND = torch.empty_like(self.kept_ND)
        for start in range(0, len(new_ND), CHUNK):
            nodes = np.arange(start, min(start + CHUNK, len(new_ND)))
            rows, vectors = self._encode(nodes, step)
            new_ND[start + rows] = vectors.to(new_ND.dtype)
        staleness = (1 - torch.cosine_similarity(self.kept_ND, new_ND)).mean().item()
        self.kept_ND.copy_(new_ND)
        self.encoded_in = epoch
        return staleness

    def _encode(
        self, nodes_T: np.ndarray, step: Callable[[], None] = lambda: None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of the nodes in the order of the vectors, int64 [T], and the vectors, float32 [T, D]."""
        starts_T, lengths_T = self.starts[nodes_T], self.starts[nodes_T + 1] - self.starts[nodes_T]
        rows, vectors = [], []
        for some in of_one_length(lengths_T, TOKENS[self.encoder.device.type]):
            where = starts_T[some, None] + np.arange(lengths_T[some[0]])
            batch = {
                name: torch.from_numpy(values[where].astype(np.int64)).to(self.encoder.device)
                for name, values in self.tokens.items()
            }
            rows.append(torch.from_numpy(some))
            vectors.append(self.encoder.vectors(batch))
            step()
        return torch.cat(rows), torch.cat(vectors)


def _all_tokens(encoder: TextEncoder, texts: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The tokens of all texts one after another, int32, by the names of the model's inputs; starts, int64 [N + 1]."""
    parts: dict[str, list[np.ndarray]] = {}
    lengths = [np.zeros(1, np.int64)]
    for start in range(0, len(texts), CHUNK):
        tokens = encoder.tokens(texts[start : start + CHUNK])
        lengths.append(np.array([len(ids) for ids in tokens["input_ids"]]))
        for name, values in tokens.items():
            parts.setdefault(name, []).append(np.concatenate(values).astype(np.int32))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}, np.concatenate(lengths).cumsum()
