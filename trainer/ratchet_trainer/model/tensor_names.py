"""Which tensors of a Hugging Face folder make which of our parameters.

Decides names, shapes and how tensors lie side by side in a parameter; the prefix that a folder puts before them is
`huggingface`'s matter. One table serves every family: an architecture's choices say which rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ratchet_trainer.model.architecture import Architecture


@dataclass(frozen=True)
class Parameter:
    """One of our parameters: the tensors that make it, side by side, and their shapes there."""

    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def matrix(self) -> bool:
        """Matrices are [out, in] there and [in, out] here; the embedding, which is looked up by row, is not turned."""
        return len(self.shapes[0]) == 2 and self.tensors[0] != "embed_tokens.weight"

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape here."""
        rows = sum(shape[0] for shape in self.shapes)
        return (self.shapes[0][1], rows) if self.matrix else (rows, *self.shapes[0][1:])

    def apart(self, value: np.ndarray) -> list[np.ndarray]:
        """The tensors that a parameter's value is made of, as they are there."""
        whole = value.T if self.matrix else value
        return np.split(whole, np.cumsum([shape[0] for shape in self.shapes])[:-1])


def parameters(a: Architecture) -> dict[str, Parameter]:
    """Path of each parameter -> the tensors it is made of (names without the prefix)."""
    found = {
        "embedding": Parameter(("embed_tokens.weight",), ((a.vocabulary, a.width),)),
        "norm/scale": Parameter(("norm.weight",), ((a.width,),)),
    }
    if not a.tied:
        found["head"] = Parameter(("lm_head.weight",), ((a.vocabulary, a.width),))
    mlp_norm, post = "post_attention_layernorm", {}
    if a.post_norms:
        mlp_norm = "pre_feedforward_layernorm"
        post = {"attention_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"}
    for i in range(len(a.layers)):
        for path, parameter in _layer(a, mlp_norm, post):
            named = tuple(f"layers.{i}.{name}" for name in parameter.tensors)
            found[f"blocks/{i}/{path}"] = Parameter(named, parameter.shapes)
    return found


def _layer(a: Architecture, mlp_norm: str, post: Mapping[str, str]) -> Iterator[tuple[str, Parameter]]:
    def norm(name: str, width: int) -> Parameter:
        return Parameter((f"{name}.weight",), ((width,),))

    heads = tuple(f"self_attn.{x}_proj" for x in "qkv")
    halves = ("mlp.gate_proj", "mlp.up_proj")
    yield "attention/input", Parameter(_all(heads, "weight"), tuple((w, a.width) for w in a.projections))
    yield "attention/output", Parameter(("self_attn.o_proj.weight",), ((a.width, a.projections[0]),))
    yield "mlp/input", Parameter(_all(halves, "weight"), ((a.hidden, a.width),) * 2)
    yield "mlp/output", Parameter(("mlp.down_proj.weight",), ((a.width, a.hidden),))
    yield "attention_norm/scale", norm("input_layernorm", a.width)
    yield "mlp_norm/scale", norm(mlp_norm, a.width)
    for path, name in post.items():
        yield f"{path}/scale", norm(name, a.width)
    if a.attention_bias[0]:
        yield "attention/input_bias", Parameter(_all(heads, "bias"), tuple((w,) for w in a.projections))
    if a.attention_bias[1]:
        yield "attention/output_bias", Parameter(("self_attn.o_proj.bias",), ((a.width,),))
    if a.mlp_bias:
        yield "mlp/input_bias", Parameter(_all(halves, "bias"), ((a.hidden,),) * 2)
        yield "mlp/output_bias", Parameter(("mlp.down_proj.bias",), ((a.width,),))
    if a.head_norms:
        yield "attention/query_norm/scale", norm("self_attn.q_norm", a.head_width)
        yield "attention/key_norm/scale", norm("self_attn.k_norm", a.head_width)


def _all(names: tuple[str, ...], kind: str) -> tuple[str, ...]:
    return tuple(f"{name}.{kind}" for name in names)
