"""What distinguishes one decoder from another: sizes and choices, as data.

Decides which choices there are. Families are rows of these (`huggingface` reads them from a config, `presets` names
some); the arithmetic of each choice is in `decoder`, `attention` and `activations`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained length.

    `linear`: all by `factor`. `llama3` (Llama 3.1): wavelengths above original/low by `factor`, those below
    original/high not at all, smoothly in between. `yarn` (arXiv 2309.00071): likewise, but evenly by the number of the
    pair, and cosine and sine grow by `attention`.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    attention: float = 1.0
    whole: bool = True  # yarn: whether the pairs between which it is smooth are rounded outwards


@dataclass(frozen=True)
class Rope:
    """Rotary positions (arXiv 2104.09864): base and scaling."""

    base: float = 10_000.0
    scaling: RopeScaling | None = None

    @property
    def attention(self) -> float:
        """Factor of cosine and sine."""
        return self.scaling.attention if self.scaling is not None else 1.0

    def frequencies(self, width: int) -> np.ndarray:
        """Radians a position of each pair of a head's `width`, float32[width / 2]."""
        plain = self.base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
        s = self.scaling
        if s is None:
            return plain.astype(np.float32)
        if s.kind == "linear":
            return (plain / s.factor).astype(np.float32)
        if s.kind == "yarn":
            kept = 1.0 - self._ramp(s, width)
        else:
            turns = s.original * plain / (2 * math.pi)  # in the original length
            kept = np.clip((turns - s.low) / (s.high - s.low), 0.0, 1.0)
        return (plain * (kept + (1 - kept) / s.factor)).astype(np.float32)

    def _ramp(self, s: RopeScaling, width: int) -> np.ndarray:
        """Share of each pair that is stretched: 0 for those that turn more than `high` times in the original length, 1
        for those that turn less than `low` times."""

        def pair(turns: float) -> float:
            return width * math.log(s.original / (turns * 2 * math.pi)) / (2 * math.log(self.base))

        first, last = pair(s.high), pair(s.low)
        if s.whole:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, width - 1)
        share: np.ndarray = np.clip((np.arange(width // 2) - first) / (max(last - first, 1e-3)), 0.0, 1.0)
        return share


@dataclass(frozen=True)
class Layer:
    """What may differ from layer to layer: rotary positions, and the number of latest tokens seen (None: all)."""

    rope: Rope = Rope()
    window: int | None = None


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters (`lora`): tensors that have one, its rank, and the factor of what it adds (alpha / rank)."""

    targets: tuple[str, ...]
    rank: int
    scale: float


@dataclass(frozen=True)
class Architecture:
    """A decoder: RMSNorm, rotary attention with grouped heads, a gated MLP."""

    vocabulary: int
    width: int
    heads: int
    hidden: int  # inner width of the MLP
    layers: tuple[Layer, ...]
    kv_heads: int = 0  # heads of keys and values; 0: as many as `heads`
    head_width: int = 0  # 0: width / heads
    epsilon: float = 1e-6
    tied: bool = True  # whether the embedding is the head, too
    attention_bias: tuple[bool, bool] = (False, False)  # of query, key and value; of the output
    mlp_bias: bool = False
    head_norms: bool = False  # RMSNorm of each head's query and key
    norm_offset: float = 0.0  # scales are this + weight
    post_norms: bool = False  # RMSNorm after attention and MLP, too, before they are added
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    embedding_scale: float = 1.0
    query_scale: float = field(default=0.0)  # 0: 1 / sqrt(head width)
    attention_cap: float | None = None  # scores are cap * tanh(score / cap)
    logit_cap: float | None = None
    adapters: Adapters | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("kv_heads", self.kv_heads or self.heads),
            ("head_width", self.head_width or self.width // self.heads),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "query_scale", self.query_scale or self.head_width**-0.5)
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} heads of keys and values evenly")
        if self.head_width % 2:
            raise ValueError(f"rotary positions turn pairs: a head width of {self.head_width} is odd")

    @property
    def ropes(self) -> tuple[Rope, ...]:
        """The different rotary positions of its layers."""
        return tuple(dict.fromkeys(layer.rope for layer in self.layers))

    @property
    def projections(self) -> tuple[int, int, int]:
        """Widths of query, key and value side by side."""
        return self.heads * self.head_width, self.kv_heads * self.head_width, self.kv_heads * self.head_width
