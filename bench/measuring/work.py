"""The work that whole runs are measured with: a model folder and questions of the reference shape, drawn from a seed.

8 prompts of 16 tokens a step with 8 responses of exactly 32 tokens each, a model of 2.5 million parameters. Two things
are made so that every step does all of it, in any trainer that reads the folder:

* No response ends early: the embedding of the end token points away from all others, so it is never drawn.
* No group is without something to learn: a token's text is "" or, one time in 32, "y", and right is a single "y" in
  the whole response, which a third of all responses of the untrained model have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, WIDTH, HEADS, HIDDEN, LAYERS = 512, 256, 8, 704, 3
PROMPTS, SAMPLES, PROMPT_TOKENS, RESPONSE_TOKENS = 8, 8, 16, 32
TOKENS = PROMPTS * SAMPLES * RESPONSE_TOKENS
END = 2
ANSWER = "y"
QUESTIONS = 512
LEARNING_RATE = "0.000001"
"""So small that the policy stays what it was, and the last measured step does what the first one does."""


def write(folder: Path) -> Path:
    """The model, and `questions.jsonl` beside its files."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    texts = [f"y{i}" if i % 32 == 31 else f"_{i}" for i in range(VOCABULARY)]
    save_file(_tensors(draw), folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in _files(texts).items():
        (folder / name).write_text(json.dumps(content))
    others = [text for i, text in enumerate(texts) if i > END]
    asked = (" ".join(draw.choice(others, PROMPT_TOKENS)) for _ in range(QUESTIONS))
    lines = (json.dumps({"question": question, "answer": ANSWER}) for question in asked)
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def _tensors(draw: np.random.Generator) -> dict[str, np.ndarray]:
    def matrix(out: int, into: int) -> np.ndarray:
        return draw.normal(0, into**-0.5, (out, into)).astype(np.float32)

    embedding = draw.normal(0, 0.02, (VOCABULARY, WIDTH)).astype(np.float32)
    embedding += 0.02
    embedding[END] = -1
    found = {"model.embed_tokens.weight": embedding, "model.norm.weight": np.ones(WIDTH, np.float32)}
    for i in range(LAYERS):
        layer = {f"self_attn.{x}_proj": matrix(WIDTH, WIDTH) * (0.01 if x == "o" else 1) for x in "qkvo"}
        layer |= {f"mlp.{x}_proj": matrix(HIDDEN, WIDTH) for x in ("gate", "up")}
        layer |= {"mlp.down_proj": matrix(WIDTH, HIDDEN) * 0.01}
        layer |= {name: np.ones(WIDTH, np.float32) for name in ("input_layernorm", "post_attention_layernorm")}
        found |= {f"model.layers.{i}.{name}.weight": np.float32(value) for name, value in layer.items()}
    return found


def _files(texts: list[str]) -> dict[str, dict[str, Any]]:
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
        "rope_theta": 1e6,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "eos_token_id": END,
    }
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"Regex": "_?[0-9]+"}, "content": ""},
                {"type": "Fuse"},
            ],
        },
        "model": {"type": "WordLevel", "vocab": {text: i for i, text in enumerate(texts)}, "unk_token": texts[0]},
    }
    template = {"chat_template": "{{ messages[-1]['content'] }}", "eos_token": texts[END]}
    return {"config.json": config, "tokenizer.json": tokenizer, "tokenizer_config.json": template}
