"""A GGUF file of the llama architecture as a model folder in Hugging Face layout.

Decides how the names, the order of rows and the vocabulary of such a file become config.json, model.safetensors
(bfloat16), tokenizer.json, tokenizer_config.json and generation_config.json. Quantized tensors are dequantized, so the
weights are those that the quantized model computes with. Where the file comes from is decided by `fetch_model`.

Source of the layout: the GGUF specification, and the conversion of llama models that writes such files, undone here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ratchet_trainer.errors import ConfigurationInvalid

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    # part of a block -> its name in a Hugging Face layer
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3
"""Kind of a token that is control, not text, in `tokenizer.ggml.token_type`."""


def write_folder(file: Path, folder: Path) -> None:
    """Writes the model of a GGUF file into a folder that exists. Raises ConfigurationInvalid for a file of another
    architecture or tokenizer."""
    reader = GGUFReader(file)
    values = {name: field.contents() for name, field in reader.fields.items()}
    kinds = values.get("general.architecture"), values.get("tokenizer.ggml.model")
    if kinds != ("llama", "gpt2"):
        raise ConfigurationInvalid(
            f"{file.name}: architecture and tokenizer are {kinds}; only ('llama', 'gpt2') can be converted here"
        )
    tensors = _tensors(reader, values)
    tied = "lm_head.weight" not in tensors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # pods of other users read it
    _tokenizer(values).save(str(folder / "tokenizer.json"))
    for name, content in _configs(values, tied).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _tensors(reader: Any, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """All weights, bfloat16, under their Hugging Face names."""
    heads = {"attn_q": values["llama.attention.head_count"], "attn_k": values["llama.attention.head_count_kv"]}
    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name, part = tensor.name.removesuffix(".weight"), tensor.name.split(".")
        if name in OUTER:
            name = OUTER[name]
        else:
            name = f"model.layers.{part[1]}.{INNER[part[2]]}"
            if part[2] in heads:
                weight = halves(weight, heads[part[2]])
        tensors[f"{name}.weight"] = weight.astype(ml_dtypes.bfloat16)
    return tensors


def halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows [heads * size, in] of a projection whose heads have the pairs of rotary positions side by side, with the
    first of every pair before the second, as Hugging Face has them."""
    size = weight.shape[0] // heads
    return weight.reshape(heads, size // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _tokenizer(values: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE in which each digit is a token."""
    words, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [word for word, kind in zip(words, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    return tokenizer


def _configs(values: dict[str, Any], tied: bool) -> dict[str, dict[str, Any]]:
    """The JSON files by name."""
    words = values["tokenizer.ggml.tokens"]
    width, heads = values["llama.embedding_length"], values["llama.attention.head_count"]
    begin, end = values["tokenizer.ggml.bos_token_id"], values["tokenizer.ggml.eos_token_id"]
    pad = values.get("tokenizer.ggml.padding_token_id", end)
    unknown = values.get("tokenizer.ggml.unknown_token_id", 0)
    ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        **ids,
        "hidden_size": width,
        "num_hidden_layers": values["llama.block_count"],
        "intermediate_size": values["llama.feed_forward_length"],
        "num_attention_heads": heads,
        "num_key_value_heads": values["llama.attention.head_count_kv"],
        "head_dim": width // heads,
        "max_position_embeddings": values["llama.context_length"],
        "rms_norm_eps": round(float(values["llama.attention.layer_norm_rms_epsilon"]), 9),
        "rope_theta": values["llama.rope.freq_base"],
        "rope_scaling": None,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vocab_size": len(words),
    }
    named = {"bos_token": begin, "eos_token": end, "pad_token": pad, "unk_token": unknown}
    tokenizer = {
        **{name: words[i] for name, i in named.items()},
        "chat_template": values["tokenizer.chat_template"],
        "add_bos_token": False,
        "tokenizer_class": "GPT2Tokenizer",
    }
    return {"config.json": config, "tokenizer_config.json": tokenizer, "generation_config.json": ids}
