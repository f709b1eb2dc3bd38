# SPDX-License-Identifier: Apache-2.0
"""A CLIP model of the real class with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def tiny_clip(folder: Path) -> Path:
    """Return a CLIP model of the real class, random weights and a tokenizer of a few words."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", "good</w>", "bad</w>", "photo</w>", ".</w>"]
    letters = [c for c in "abcdefghijklmnopqrstuvwxyz."] + [
        f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz."
    ]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*words, *letters]))}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "projection_dim": 8}  # fmt: skip
    config = CLIPConfig(
        text_config={**small, "vocab_size": len(vocabulary), "max_position_embeddings": 16,
                     "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    return folder
