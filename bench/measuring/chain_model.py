"""The model of the noisy chain: a folder in Hugging Face layout, width 128, two layers, a token a word.

Decides tokenizer, shapes and the random weights, which follow from the seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from measuring.noisy_chain import ASK, EMPTY, NAMES, STATES

WIDTH, HEADS, HIDDEN, LAYERS = 128, 4, 352, 2
WORDS = ["<end>", EMPTY, ASK, *map(str, range(STATES)), *NAMES]
VOCABULARY = 32


def write(folder: Path, seed: int = 0) -> Path:
    """The model before it has learned anything."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_tensors(np.random.default_rng([seed, 99])), folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in _files().items():
        (folder / name).write_text(json.dumps(content))
    return folder


def _tensors(draw: np.random.Generator) -> dict[str, np.ndarray]:
    def matrix(out: int, into: int) -> np.ndarray:
        return draw.normal(0, into**-0.5, (out, into)).astype(np.float32)

    found = {"model.embed_tokens.weight": draw.normal(0, 0.05, (VOCABULARY, WIDTH)).astype(np.float32)}
    found["model.norm.weight"] = np.ones(WIDTH, np.float32)
    for i in range(LAYERS):
        layer = {f"self_attn.{x}_proj": matrix(WIDTH, WIDTH) for x in "qkvo"}
        layer |= {f"mlp.{x}_proj": matrix(HIDDEN, WIDTH) for x in ("gate", "up")}
        layer |= {"mlp.down_proj": matrix(WIDTH, HIDDEN)}
        layer |= {name: np.ones(WIDTH, np.float32) for name in ("input_layernorm", "post_attention_layernorm")}
        found |= {f"model.layers.{i}.{name}.weight": value for name, value in layer.items()}
    return found


def _files() -> dict[str, dict[str, Any]]:
    texts = [*WORDS, *(f"<unused-{i}>" for i in range(VOCABULARY - len(WORDS)))]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": WIDTH // HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "eos_token_id": 0,
    }
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {text: i for i, text in enumerate(texts)}, "unk_token": EMPTY},
    }
    template = {"chat_template": "{{ messages[-1]['content'] }}", "eos_token": texts[0]}
    return {"config.json": config, "tokenizer.json": tokenizer, "tokenizer_config.json": template}
