"""`jax.jit` of a function whose programs may be loaded instead of traced.

Without an index (`use`) this is `jax.jit` and nothing else: tools, probes and tests that set none trace as always. With
one, each call looks for its program by what it is called with: among those of this process, then in the index, and only
then is the function traced, lowered and compiled, and the program entered. Decides what tells two calls apart: static
arguments, the tree of the others, and of each leaf the shape, the number format and where it lies. Within a trace, and
under settings of JAX that a `with` has changed, functions are traced as always.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax._src.config import trace_context

from ratchet_trainer.checkpoints import program_key
from ratchet_trainer.checkpoints.program_index import ProgramIndex

log = logging.getLogger(__name__)

_index: ProgramIndex | None = None
_settings: Any = None
"""What tracing looks at besides its arguments, as JAX says it, when the index came into use."""


def use(index: ProgramIndex | None) -> None:
    """Has programs loaded from an index from now on, and entered there; None: no longer."""
    global _index, _settings
    _index, _settings = index, trace_context()


def _in_use() -> ProgramIndex | None:
    return _index if _index is not None and trace_context() == _settings else None


class Jitted:
    """A jitted function. Static arguments are given by name."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        static_argnames: str | Sequence[str] = (),
        donate_argnums: int | Sequence[int] = (),
        out_shardings: Any = None,
    ):
        self._function = function
        self._static = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        self._options = self._static, donate_argnums, out_shardings
        where = {} if out_shardings is None else {"out_shardings": out_shardings}
        self._jit = jax.jit(function, static_argnames=self._static, donate_argnums=donate_argnums, **where)
        self._programs: dict[Any, Any] = {}

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        static = self._static_of(named)
        index = _in_use()
        if index is None or (call := _call(arguments, static)) is None:
            return self._jit(*arguments, **named)
        return self._program(index, call, arguments, static)(*arguments)

    def lower(self, *arguments: Any, **named: Any) -> Any:
        """As `jax.jit`'s, for shapes; with an index what is returned is lowered only if it has to be."""
        static = self._static_of(named)
        index = _in_use()
        if index is None or (call := _call(arguments, static)) is None:
            return self._jit.lower(*arguments, **named)
        return _Ahead(partial(self._program, index, call, arguments, static))

    def trace(self, *arguments: Any, **named: Any) -> Any:
        """As `jax.jit`'s: for who wants to look at a program."""
        return self._jit.trace(*arguments, **self._static_of(named))

    def _static_of(self, named: dict[str, Any]) -> dict[str, Any]:
        assert named.keys() <= {*self._static}, "arguments that are not static are given by position"
        return named

    def _program(self, index: ProgramIndex, call: Any, arguments: Any, static: dict[str, Any]) -> Any:
        """The program for a call: of this process, of the index, or made."""
        if (found := self._programs.get(call)) is not None:
            return found
        key = self._key(index, call)
        found = None if key is None else index.get(key)
        if found is None:
            lowered = self._jit.lower(*arguments, **static)
            found = lowered.compile() if key is None else index.compiled(key, lowered)
        self._programs[call] = found
        return found

    def _key(self, index: ProgramIndex, call: Any) -> str | None:
        """The key in the index, None for what cannot be described."""
        try:
            return f"{self._name}-{program_key.digest(index.surroundings, self._described, *call)}"
        except (program_key.Indescribable, RecursionError) as why:
            log.info("%s is traced at every start, as nothing tells it from others: %s", self._name, why)
            return None

    @cached_property
    def _described(self) -> str:
        return program_key.digest(self._function, *self._options)

    @property
    def _name(self) -> str:
        function: Any = self._function
        while hasattr(function, "func"):
            function = function.func
        return "".join(c for c in getattr(function, "__name__", "program") if c.isalnum() or c == "_")


class _Ahead:
    """A program that is asked for before its first call, as `jax.stages.Lowered`."""

    def __init__(self, program: Callable[[], Any]):
        self._program = program

    def compile(self) -> Any:
        """The program, ready for the first call that is like this."""
        return self._program()

    @property
    def out_info(self) -> Any:
        """The shapes of what it gives."""
        return self._program().out_info


def jit(function: Callable[..., Any], **options: Any) -> Jitted:
    """As `jax.jit`, with the options of `Jitted`."""
    return Jitted(function, **options)


def shapes_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """As `jax.eval_shape`: the shapes of what a function gives for arguments of these shapes."""
    index = _in_use()
    key = None if index is None else _key_of_shapes(index, function, arguments)
    if index is None or key is None:
        return jax.eval_shape(function, *arguments)
    if (found := index.get(key)) is None:
        found = jax.eval_shape(function, *arguments)
        index.put_shapes(key, found)
    return found


def _key_of_shapes(index: ProgramIndex, function: Any, arguments: Any) -> str | None:
    leaves, tree = jax.tree.flatten(arguments)
    told = [(np.shape(leaf), str(leaf.dtype)) for leaf in leaves]
    try:
        return f"shapes-{program_key.digest(index.surroundings, function, tree, told)}"
    except (program_key.Indescribable, RecursionError):
        return None


def _call(arguments: Any, static: dict[str, Any]) -> Any:
    """What tells a call from others, None within a trace and for what is no array."""
    leaves, tree = jax.tree.flatten(arguments)
    told = []
    for leaf in leaves:
        if isinstance(leaf, jax.core.Tracer) or not hasattr(leaf, "dtype"):
            return None
        sharding = getattr(leaf, "sharding", None)
        place = None
        if sharding is not None and getattr(leaf, "committed", True):
            place = _place(sharding, len(leaf.shape))
        told.append((np.shape(leaf), str(leaf.dtype), bool(getattr(leaf, "weak_type", False)), place))
    return tuple(sorted(static.items())), tree, tuple(told)


@lru_cache(4096)
def _place(sharding: Any, sides: int) -> tuple[Any, ...]:
    """Where an array of so many sides lies, said in one way however it was said."""
    devices = tuple(device.id for device in sharding._device_assignment)
    return devices, str(sharding._to_xla_hlo_sharding(sides)), str(sharding.memory_kind)
