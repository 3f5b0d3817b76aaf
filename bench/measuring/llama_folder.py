"""A small Llama in Hugging Face layout, whose tokens are words: what the benchmarks' own models are made of.

Decides names and shapes of tensors, the configuration and the tokenizer's form; vocabulary, sizes and the random
numbers are the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """Of a model: width, attention heads, width of the MLP, layers."""

    width: int
    heads: int
    hidden: int
    layers: int


def write(
    folder: Path, sizes: Sizes, tensors: dict[str, np.ndarray], texts: Sequence[str], *, end: int, unknown: str,
    decoder: Any = None, **config: Any,
) -> None:  # fmt: skip
    """The folder, which must be there. `texts`: of the tokens, `end` the number of the one that ends a response;
    `config`: what replaces parts of config.json."""
    from safetensors.numpy import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": {text: i for i, text in enumerate(texts)}, "unk_token": unknown},
    }
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(texts),
            "hidden_size": sizes.width,
            "intermediate_size": sizes.hidden,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.heads,
            "head_dim": sizes.width // sizes.heads,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "eos_token_id": end,
        }
        | config,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"chat_template": "{{ messages[-1]['content'] }}", "eos_token": texts[end]},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def random_tensors(
    draw: np.random.Generator, sizes: Sizes, embedding: np.ndarray, outputs: float = 1.0
) -> dict[str, np.ndarray]:
    """Random weights around an embedding float32[vocabulary, width], a matrix's of variance 1 / its inputs; those that
    write to the residual stream are multiplied by `outputs`."""

    def matrix(out: int, into: int, gain: float = 1.0) -> np.ndarray:
        return np.float32(gain) * draw.normal(0, into**-0.5, (out, into)).astype(np.float32)

    width, hidden = sizes.width, sizes.hidden
    found = {"model.embed_tokens.weight": embedding, "model.norm.weight": np.ones(width, np.float32)}
    for i in range(sizes.layers):
        layer = {f"self_attn.{x}_proj": matrix(width, width, outputs if x == "o" else 1.0) for x in "qkvo"}
        layer |= {f"mlp.{x}_proj": matrix(hidden, width) for x in ("gate", "up")}
        layer |= {"mlp.down_proj": matrix(width, hidden, outputs)}
        layer |= {name: np.ones(width, np.float32) for name in ("input_layernorm", "post_attention_layernorm")}
        found |= {f"model.layers.{i}.{name}.weight": value for name, value in layer.items()}
    return found
