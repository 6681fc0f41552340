"""`TextTower`: a text encoder that trains inside the model, through LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from dist_gat.base.errors import ConfigError
from dist_gat.config.text_section import TextEncoderConfig, TextTuningConfig
from dist_gat.text.model_files import find_model, fingerprint, missing_extra
from dist_gat.text.text_encoder import TOKENS, TextEncoder, of_one_length
from dist_gat.text.tokens import check_trainable, inputs_of

# peft's name of the only adapter
ADAPTER = ".default"
# BERT's layer that no vector of a text goes through
UNREAD = "pooler"


class TextTower(nn.Module):
    """Tokens of texts to vectors, through weights that are trained.

    The encoder's linear layers W become W + alpha / rank · B A with A [rank, in] and B [out, rank] (Hu et al., LoRA,
    ICLR 2022), by the library peft. A and B, `updates`, alone are trained and saved; the encoder's own weights are no
    parameters of this module. B is zero at first, so that the first vectors are those of the encoder as it was. Its
    dropout stays off: a vector is a function of the text and the weights.

    Beside them stand the A and B that the kept vectors were made with, and the epoch at whose start that was, so that a
    checkpoint tells what the kept vectors are. Epoch 0: they are those that `prepare` made.

    Shape legend: T texts, L tokens of the longest, D length of a vector.
    """

    encoded_in: Tensor

    def __init__(
        self, encoder: TextEncoder, config: TextTuningConfig, seed: int, dtype: torch.dtype = torch.float32
    ) -> None:
        """seed: of A. From here on the encoder itself makes vectors with A and B, also by `TextEncoder.encode`.

        Raises `ConfigError` for an encoder that does not read plain tokens, and without the library peft.
        """
        super().__init__()
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as err:
            raise missing_extra("training of a text encoder", err) from None
        check_trainable(encoder)
        # `encoder` is no module, so its own weights are in no checkpoint and no optimiser
        self.config, self.encoder, self.dtype = config, encoder, dtype
        model = encoder.model.to(dtype)
        self.num_frozen = sum(weight.numel() for weight in model.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unread = [name for name, _ in model[0].model.named_modules() if UNREAD in name.split(".")]
            lora = LoraConfig(
                r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules="all-linear",
                exclude_modules=unread or None,
            )  # fmt: skip
            inject_adapter_in_model(lora, model[0].model)
        model.eval().to(dtype)
        trained = {name: weight for name, weight in model[0].model.named_parameters() if weight.requires_grad}
        # a module's names have no points
        self.updates = nn.ParameterDict({_plain(name): weight for name, weight in trained.items()})
        self.names = list(encoder.tokens(["a text"]))
        for name, weight in self.updates.items():
            self.register_buffer(f"kept/{name}", weight.detach().clone())
        self.register_buffer("encoded_in", torch.zeros((), dtype=torch.int64))

    def forward(self, tokens_TL: Tensor) -> Tensor:
        """[T, D]. tokens_TL: int32, -1 behind the tokens of each text; texts of one length are encoded together."""
        lengths_T = (tokens_TL >= 0).sum(dim=1).cpu().numpy()
        rows, vectors = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, self.size, dtype=self.dtype)]
        for some in self.batches(lengths_T):
            rows.append(torch.from_numpy(some))
            vectors.append(self.vectors(tokens_TL[rows[-1].to(tokens_TL.device), : int(lengths_T[some[0]])]))
        device = self.encoder.device
        order_T = torch.cat(rows).argsort().to(device)
        return torch.cat([one.to(device) for one in vectors])[order_T]

    @property
    def size(self) -> int:
        return self.encoder.size

    def batches(self, lengths_T: np.ndarray) -> Iterator[np.ndarray]:
        """Numbers of texts that are encoded together, int64 [b]: all."""
        return of_one_length(lengths_T, TOKENS[self.encoder.device.type])

    def vectors(self, tokens_bL: Tensor) -> Tensor:
        """[b, D] of b texts of L tokens each."""
        with torch.autocast(self.encoder.device.type, enabled=False):
            found: Tensor = self.encoder.model(inputs_of(tokens_bL.to(self.encoder.device), self.names))[
                "sentence_embedding"
            ]
        return found

    def nothing(self) -> Tensor:
        """0, whose backward reaches every A and B: DDP waits for all of them also where a step has no text."""
        return torch.stack([weight.sum() for weight in self.updates.values()]).sum() * 0.0

    def is_due(self, epoch: int) -> bool:
        """Whether the kept vectors should be made anew at the start of an epoch."""
        return epoch - int(self.encoded_in) >= self.config.refresh_every

    def expire(self) -> None:
        """After A and B came from elsewhere: the kept vectors, those of `prepare`, are due at the next start."""
        self.encoded_in.fill_(-self.config.refresh_every)

    @torch.no_grad()
    def keep(self, epoch: int) -> None:
        """Remember that the kept vectors are those of the present A and B, from the start of this epoch on."""
        self.encoded_in.fill_(epoch)
        for name, weight in self.updates.items():
            self.get_buffer(f"kept/{name}").copy_(weight)

    @contextmanager
    def as_kept(self) -> Iterator[None]:
        """Inside, A and B are those that the kept vectors were made with."""
        present = {name: weight.detach().clone() for name, weight in self.updates.items()}
        with torch.no_grad():
            for name, weight in self.updates.items():
                weight.copy_(self.get_buffer(f"kept/{name}"))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.updates.items():
                    weight.copy_(present[name])

    @property
    def share(self) -> str:
        """In words, what is trained."""
        trained = sum(weight.numel() for weight in self.updates.values() if weight.requires_grad)
        whole = trained + self.num_frozen
        return f"trains {trained:,} of {whole:,} parameters of the encoder, {trained / whole:.2%}"


def _plain(name: str) -> str:
    return name.replace(ADAPTER, "").replace(".", "/")


def open_tower(
    encoder: TextEncoderConfig, config: TextTuningConfig, digest: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> TextTower:  # fmt: skip
    """Open an encoder for training, or what was trained. digest: of its files.

    Raises `ConfigError` where the extra `text` is missing, or the files are gone or others.
    """
    opened = TextEncoder(find_model(encoder.encoder) or encoder.encoder, encoder)
    model = find_model(encoder.encoder)  # one of the hub is here by now
    if model is not None and fingerprint(model) != digest:
        raise ConfigError(
            f"encoder={encoder.encoder}: its files are others than when the data were prepared, so what was trained "
            "doesn't fit them; put the same model there, or run `dist-gat prepare` and train again"
        )
    return TextTower(opened, config, seed, dtype)
