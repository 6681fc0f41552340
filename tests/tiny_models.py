"""Random models of some thousand parameters, as folders: a BERT, one of sentence-transformers, a CLIP."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ["the", "a", "red", "green", "blue", "cat", "dog", "fish", "house", "river", "eats", "sees", "old", "new"]
SIZE = 8


def save_bert(folder: Path, seed: int = 0, words: list[str] = WORDS) -> Path:
    """A Transformers encoder that says nothing of pooling, with a tokenizer of whole words and of letters."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = [*special, *dict.fromkeys([*words, *letters]), *(f"##{letter}" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(entries)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    torch.manual_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary), hidden_size=SIZE, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=64, initializer_range=0.5,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_sentence_model(folder: Path, bert: Path, max_seq_length: int = 32, prompt: str = "") -> Path:
    """A sentence-transformers model of it: the first token's vector, of length 1."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(bert), max_seq_length=max_seq_length)
    prompts = {"prompts": {"own": prompt}, "default_prompt_name": "own"} if prompt else {}
    SentenceTransformer(
        modules=[transformer, Pooling(SIZE, pooling_mode="cls"), Normalize()], device="cpu", **prompts
    ).save(str(folder))
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIP for images of 16 x 16."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**tower, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).save_pretrained(folder)
    crop = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=crop).save_pretrained(folder)
    return folder
