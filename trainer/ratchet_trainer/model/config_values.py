"""Whether the values of a model's `config.json` are such that anything can be computed with them.

Decides what kind of value each field has, whatever the family; what they mean is in `families`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ratchet_trainer.errors import ConfigurationInvalid

NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SIZES = (*NEEDED, "num_key_value_heads", "head_dim")
NUMBERS = (
    "rms_norm_eps",
    "rope_theta",
    "rope_local_base_freq",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "max_position_embeddings",
)
OBJECTS = ("rope_scaling", "rope_parameters")
LARGEST, MOST_LAYERS = 2**31 - 1, 10_000


def check_values(config: Mapping[str, Any]) -> None:
    """Raises ConfigurationInvalid naming the field."""
    for name in SIZES:
        value, most = config.get(name), MOST_LAYERS if name == "num_hidden_layers" else LARGEST
        if value is None and (name not in config or name not in NEEDED):
            continue
        if type(value) is not int or value < 1:
            raise _wrong(name, value, "not a whole number above 0")
        if value > most:
            raise _wrong(name, value, f"more than {most}")
    for name in NUMBERS:
        value = config.get(name)
        if value is not None and (type(value) not in (int, float) or not 0 < value < math.inf):
            raise _wrong(name, value, "not a number above 0")
    for name in OBJECTS:
        value = config.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise _wrong(name, value, "not an object")
    window = config.get("sliding_window")
    if window is not None and type(window) is not int:
        raise _wrong("sliding_window", window, "not a whole number")


def _wrong(name: str, value: Any, what: str) -> ConfigurationInvalid:
    text = repr(value)
    return ConfigurationInvalid(f"config.json: {name} is {text if len(text) <= 40 else f'{text[:37]}...'}, {what}")
