"""Families of models: what a Hugging Face `config.json` means as an architecture.

Decides, for each family, which choices are fixed, which the config makes, and what an absent field means (as the
family's own configuration class in `transformers` has it). Old and new ways to say rotary positions are both read
(`rope_theta` and `rope_scaling`; `rope_parameters`). Names of tensors are in `huggingface`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model.architecture import Architecture, Layer, Rope, RopeScaling
from ratchet_trainer.model.config_values import check_values

Config = Mapping[str, Any]

FULL, SLIDING = "full_attention", "sliding_attention"
GATES = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
}
"""Name of an activation -> ours."""


def json_object(file: Path) -> dict[str, Any]:
    """The content of a JSON file of a model's folder. Raises ConfigurationInvalid."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigurationInvalid(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationInvalid(f"{file}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationInvalid(f"{file}: not a JSON object")
    return content


def architecture(config: Config) -> Architecture:
    """The architecture that a config describes. Raises ConfigurationInvalid naming the field."""
    config = text_config(config)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ConfigurationInvalid(
            f"config.json: model_type {kind!r} is not known; known are {', '.join(sorted(FAMILIES))}"
        )
    if config.get("quantization_config"):
        raise ConfigurationInvalid(
            "config.json: quantization_config: only plain weights are read; take the model itself"
        )
    check_values(config)
    try:
        return FAMILIES[kind](config)
    except KeyError as error:
        raise ConfigurationInvalid(f"config.json: {error.args[0]} is missing") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigurationInvalid(f"config.json: {error}") from None


def text_config(config: Config) -> Config:
    """The part that describes the text model; of a multimodal one it stands under `text_config`."""
    inner = config.get("text_config")
    if config.get("model_type") != "gemma3" or not isinstance(inner, Mapping):
        return config
    outer = {key: config[key] for key in ("tie_word_embeddings",) if config.get(key) is not None}
    return {"model_type": "gemma3_text", **inner, **outer}


GEMMA = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
GEMMA3 = GEMMA | {"vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26}
"""What absent fields mean: a multimodal model's `text_config` leaves out whatever is as its class has it."""


def _common(config: Config, head_width: int | None, gate: str) -> dict[str, Any]:
    """What all families read alike. `head_width`: when `head_dim` is absent; None: width / heads."""
    if gate not in GATES:
        raise ConfigurationInvalid(f"config.json: activation {gate!r} is not known; known are {', '.join(GATES)}")
    return {
        "vocabulary": config["vocab_size"],
        "width": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "kv_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "head_width": config.get("head_dim") or head_width or 0,
        "hidden": config["intermediate_size"],
        "epsilon": config.get("rms_norm_eps", 1e-6),
        "activation": GATES[gate],
    }


def _llama(config: Config) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return Architecture(
        **_common(config, None, config.get("hidden_act", "silu")),
        layers=(Layer(_rope(config)),) * config["num_hidden_layers"],
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=(bias, bias),
        mlp_bias=bool(config.get("mlp_bias", False)),
    )


def _qwen2(config: Config) -> Architecture:
    return Architecture(
        **_common(config, None, config.get("hidden_act", "silu")),
        layers=_qwen_layers(config),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=(True, False),
    )


def _qwen3(config: Config) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return Architecture(
        **_common(config, 128, config.get("hidden_act", "silu")),
        layers=_qwen_layers(config),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=(bias, bias),
        head_norms=True,
    )


def _qwen_layers(config: Config) -> tuple[Layer, ...]:
    """All layers see everything unless `use_sliding_window`; then those from `max_window_layers` on do not."""
    count, rope = config["num_hidden_layers"], _rope(config)
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window") else None
    first = config.get("max_window_layers", 28)
    kinds = config.get("layer_types") or [SLIDING if i >= first else FULL for i in range(count)]
    return tuple(Layer(rope, window if kind == SLIDING else None) for kind in _each_layer(kinds, count))


def _gemma2(config: Config) -> Architecture:
    config = {**GEMMA, **config}
    count, rope = config["num_hidden_layers"], _rope(config)
    kinds = config.get("layer_types") or [SLIDING if i % 2 == 0 else FULL for i in range(count)]
    window = config.get("sliding_window", 4096)
    return Architecture(
        **_common(config, 256, _gemma_gate(config)),
        **_gemma(config),
        layers=tuple(Layer(rope, window if kind == SLIDING else None) for kind in _each_layer(kinds, count)),
        attention_cap=config.get("attn_logit_softcapping", 50.0),
        logit_cap=config.get("final_logit_softcapping", 30.0),
    )


def _gemma3(config: Config) -> Architecture:
    if config.get("use_bidirectional_attention"):
        raise ConfigurationInvalid("config.json: use_bidirectional_attention: a policy cannot see what it will say")
    config = {**GEMMA3, **config}
    count = config["num_hidden_layers"]
    every = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    kinds = config.get("layer_types") or [FULL if (i + 1) % every == 0 else SLIDING for i in range(count)]
    far = Layer(_rope(config, FULL, 1_000_000.0))
    near = Layer(_local_rope(config), config.get("sliding_window", 4096))
    return Architecture(
        **_common(config, 256, _gemma_gate(config)),
        **_gemma(config),
        layers=tuple(near if kind == SLIDING else far for kind in _each_layer(kinds, count)),
        head_norms=True,
        # attn_logit_softcapping is a leftover of Gemma 2: transformers reads it and caps no score of Gemma 3 by it.
        logit_cap=config.get("final_logit_softcapping"),
    )


def _local_rope(config: Config) -> Rope:
    """Of Gemma 3's sliding layers: what older fields say of scaling and base is of the others."""
    base = config.get("rope_local_base_freq") or 10_000.0
    if not _by_layer(config):
        return Rope(float(base))
    said = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    return _rope(said, SLIDING, base)


def _gemma(config: Config) -> dict[str, Any]:
    bias = bool(config.get("attention_bias", False))
    return {
        "tied": bool(config.get("tie_word_embeddings", True)),
        "attention_bias": (bias, bias),
        "norm_offset": 1.0,
        "post_norms": True,
        "embedding_scale": float(config["hidden_size"]) ** 0.5,
        "query_scale": float(config.get("query_pre_attn_scalar", 256)) ** -0.5,
    }


def _gemma_gate(config: Config) -> str:
    # Some configs also say hidden_act, for Gemma's first model: it is not read.
    return config.get("hidden_activation") or "gelu_pytorch_tanh"


def _each_layer(kinds: Any, count: int) -> list[str]:
    if len(kinds) != count:
        raise ConfigurationInvalid(f"config.json: layer_types has {len(kinds)} entries for {count} layers")
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise ConfigurationInvalid(f"config.json: layer_types: {kind!r} is not known; known are {FULL}, {SLIDING}")
    return list(kinds)


def _by_layer(config: Config) -> bool:
    said = config.get("rope_parameters")
    return isinstance(said, Mapping) and FULL in said


def _rope(config: Config, kind: str = FULL, base: float = 10_000.0) -> Rope:
    """Rotary positions of layers of that kind; `base` where the config names none."""
    said = config.get("rope_parameters") or {}
    if _by_layer(config):
        said = said.get(kind) or {}
    said = {**said, **(config.get("rope_scaling") or {})}
    base = float(said.get("rope_theta") or config.get("rope_theta") or base)
    if said.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ConfigurationInvalid("config.json: partial_rotary_factor: only whole heads are turned here")
    name = said.get("rope_type") or said.get("type") or "default"
    if name == "default":
        return Rope(base)
    if name not in SCALINGS:
        known = ", ".join(("default", *SCALINGS))
        raise ConfigurationInvalid(f"config.json: rope type {name!r} is not known; known are {known}")
    return Rope(base, SCALINGS[name](said, config))


def _linear(said: Config, config: Config) -> RopeScaling:
    return RopeScaling("linear", float(said["factor"]))


def _llama3(said: Config, config: Config) -> RopeScaling:
    factor, low, high = (float(said[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    return RopeScaling("llama3", factor, low, high, _original(said, config))


def _yarn(said: Config, config: Config) -> RopeScaling:
    original = _original(said, config)
    factor = float(said.get("factor") or config["max_position_embeddings"] / original)

    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = said.get("attention_factor")
    if attention is None:
        over, under = said.get("mscale"), said.get("mscale_all_dim")
        attention = grown(over) / grown(under) if over and under else grown(1.0)
    slow, fast = float(said.get("beta_slow") or 1), float(said.get("beta_fast") or 32)
    whole = bool(said.get("truncate", True))
    return RopeScaling("yarn", factor, slow, fast, original, float(attention), whole)


def _original(said: Config, config: Config) -> int:
    """The length that the model was trained with."""
    for where in (said, config):
        if where.get("original_max_position_embeddings"):
            return int(where["original_max_position_embeddings"])
    return int(config["max_position_embeddings"])


SCALINGS: dict[str, Callable[[Config, Config], RopeScaling]] = {"linear": _linear, "llama3": _llama3, "yarn": _yarn}
"""`rope_type` -> how its numbers are read."""

FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
}
"""`model_type` -> how its config is read."""
