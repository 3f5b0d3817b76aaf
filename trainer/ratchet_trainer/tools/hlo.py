"""Compiled programs as the compiler prints them: computations, instructions, shapes with their layout.

Decides how that text is read, and how many bytes an array has as it lies: padded to its tiles, and in which memory.
What an instruction costs is in `hlo_traffic`. The format is XLA's own (`HloModule::ToString`); what is not understood
raises ValueError with the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

BITS = {
    "pred": 8, "s2": 2, "s4": 4, "s8": 8, "s16": 16, "s32": 32, "s64": 64, "u2": 2, "u4": 4, "u8": 8, "u16": 16,
    "u32": 32, "u64": 64, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "token": 0, "opaque": 0,
    "f8e5m2": 8, "f8e4m3fn": 8, "f8e4m3b11fnuz": 8,
}  # fmt: skip
HBM = 0
"""The memory space that has no mark; S(1) is a TPU's VMEM."""

_SHAPE = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<=]*)\](?:\{([0-9,]*)(?::([^}]*))?\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPERATION = re.compile(r"([a-z][\w\-]*)\(")
_NAME = re.compile(r"%?([A-Za-z_][\w.\-]*)$")


@dataclass(frozen=True)
class Array:
    """One array as it lies on a device."""

    dtype: str
    sides: tuple[int, ...]
    order: tuple[int, ...] = ()  # axes, the fastest first
    tile: tuple[int, ...] = ()  # of the fastest axes, slowest first
    space: int = HBM

    @property
    def size(self) -> int:
        return prod(self.sides)

    @property
    def bytes(self) -> int:
        """As it lies: filled up to whole tiles."""
        sides = [self.sides[axis] for axis in reversed(self.order)] if self.order else list(self.sides)
        for i, tile in enumerate(reversed(self.tile), 1):
            if i <= len(sides):
                sides[-i] = -(-sides[-i] // tile) * tile
        return prod(sides) * BITS.get(self.dtype, 32) // 8

    @property
    def hbm_bytes(self) -> int:
        """As far as it lies in HBM; a number is kept nearer, wherever it is said to lie."""
        return self.bytes if self.space == HBM and self.sides else 0


@dataclass
class Instruction:
    name: str
    operation: str
    arrays: tuple[Array, ...]  # what it makes
    operands: tuple[str, ...]
    attributes: str
    root: bool = False
    value: str | None = None  # of a constant or a parameter, what stands in its brackets

    def called(self, key: str) -> str | None:
        """The computation that an attribute such as `calls` or `body` names."""
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return found and found[1]

    @property
    def trips(self) -> int | None:
        """How often a loop's body runs, if the compiler knows."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.attributes)
        return int(found[1]) if found else None

    @property
    def hbm_bytes(self) -> int:
        return sum(array.hbm_bytes for array in self.arrays)


@dataclass
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.root)

    @property
    def parameters(self) -> list[Instruction]:
        """In their order."""
        found = [i for i in self.instructions.values() if i.operation == "parameter"]
        return sorted(found, key=lambda i: int(i.value or 0))

    def users(self, name: str) -> Iterator[Instruction]:
        return (i for i in self.instructions.values() if name in i.operands)


@dataclass
class Module:
    computations: dict[str, Computation]
    entry: str


def parsed(text: str) -> Module:
    """The module that `jax.stages.Compiled.as_text` gives."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if (head := _HEAD.match(line)) is not None:
            current = computations[head[2]] = Computation(head[2])
            entry = head[2] if head[1] else entry
        elif current is not None and (match := _LINE.match(line)) is not None:
            made = _instruction(match[2], match[3], bool(match[1]), line)
            current.instructions[made.name] = made
    if not entry:
        raise ValueError("no ENTRY computation in this text; is it a compiled module?")
    return Module(computations, entry)


def _instruction(name: str, rest: str, root: bool, line: str) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    operation = _OPERATION.match(rest)
    if operation is None:
        raise ValueError(f"an instruction that is not understood: {line.strip()[:200]}")
    opening = operation.end() - 1
    closing = _closing(rest, opening)
    inside, attributes = rest[opening + 1 : closing], rest[closing + 1 :]
    if operation[1] in ("parameter", "constant"):
        return Instruction(name, operation[1], tuple(_arrays(shape)), (), attributes, root, inside.strip())
    operands = tuple(found[1] for part in _split(inside) if (found := _NAME.search(part.strip())))
    return Instruction(name, operation[1], tuple(_arrays(shape)), operands, attributes, root)


def _arrays(text: str) -> Iterator[Array]:
    for dtype, sides, order, layout in _SHAPE.findall(text):
        if dtype not in BITS:
            continue
        tile = re.search(r"T\(([0-9,]+)\)", layout)
        space = re.search(r"S\((\d+)\)", layout)
        yield Array(
            dtype,
            _numbers(sides.replace("<=", "")),
            _numbers(order),
            _numbers(tile[1]) if tile else (),
            int(space[1]) if space else HBM,
        )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _closing(text: str, at: int) -> int:
    """Where the parenthesis that opens at `at` closes."""
    depth = 0
    for i in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"a parenthesis that does not close: {text[at : at + 200]}")


def _split(text: str) -> list[str]:
    """At commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]] if text.strip() else []
