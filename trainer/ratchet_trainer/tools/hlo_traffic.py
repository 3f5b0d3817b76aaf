"""What a compiled program moves and computes: bytes between chip and HBM, flops of its matrix products.

Decides the count: every loop's body as often as it runs, which the compiler's own `cost_analysis` counts once; arrays
as they lie, filled up to tiles; only what crosses to HBM, not what stays in VMEM; of a slice that is read or written in
place the slice alone. Kernels (custom calls) move their operands and results once; what they compute is not in the
text, but for attention's a formula (`hlo_kernels`).

It is an estimate from the program's text: nothing runs. A loop whose trip count the compiler does not know counts
once and is named in `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from ratchet_trainer.tools import hlo_kernels
from ratchet_trainer.tools.hlo import Array, Computation, Instruction, Module

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "optimization-barrier", "add-dependency", "domain", "get-dimension-size", "rng-get-and-update-state",
    "async-update", "send", "recv",
}  # fmt: skip
SLICES = ("dynamic-slice", "slice", "gather")
UPDATES = ("dynamic-update-slice", "scatter")
VIEWS = ("bitcast", "reshape", "get-tuple-element")
KERNEL = 'custom_call_target="tpu_custom_call"'
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclass
class Traffic:
    """bytes to and from HBM, flops of matrix products; largest: bytes by the instruction that moves them."""

    bytes: float = 0.0
    flops: float = 0.0
    largest: dict[str, float] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def add(self, other: Traffic, times: float = 1.0) -> None:
        self.bytes += times * other.bytes
        self.flops += times * other.flops
        for name, moved in other.largest.items():
            self.largest[name] = self.largest.get(name, 0.0) + times * moved
        self.unknown += other.unknown


def traffic(module: Module) -> Traffic:
    """Of one run of a module on one device."""
    return _Counter(module).of(module.computations[module.entry])


class _Counter:
    def __init__(self, module: Module):
        self.module = module
        self._known: dict[str, Traffic] = {}

    def of(self, computation: Computation) -> Traffic:
        if computation.name not in self._known:
            total = Traffic()
            for instruction in computation.instructions.values():
                total.add(self._one(computation, instruction))
            self._known[computation.name] = total
        return self._known[computation.name]

    def _called(self, instruction: Instruction, key: str) -> Computation | None:
        name = instruction.called(key)
        return None if name is None else self.module.computations[name]

    def _one(self, computation: Computation, i: Instruction) -> Traffic:
        found = Traffic()
        if i.operation == "while":
            body, condition = self._called(i, "body"), self._called(i, "condition")
            assert body is not None, "a loop has a body"
            times = i.trips or self._counted(computation, i)
            if times is None:
                found.unknown.append(i.name)
            found.add(self.of(body), times or 1)
            if condition is not None:
                found.add(self.of(condition), times or 1)
            return found
        if i.operation == "conditional":
            names = BRANCHES.search(i.attributes)
            branches = names[1].replace("%", "").split(",") if names else []
            branches += [n for key in ("true_computation", "false_computation") if (n := i.called(key))]
            costs = [self.of(self.module.computations[name.strip()]) for name in branches]
            found.add(max(costs, key=lambda one: one.bytes, default=Traffic()))
            return found
        if i.operation in ("call", "async-start"):
            called = self._called(i, "to_apply") or self._called(i, "calls")
            if called is not None:
                found.add(self.of(called))
            return found
        moved = self._moved(computation, i)
        if moved:
            found.bytes, found.largest = moved, {f"{computation.name}/{i.name}": moved}
        found.flops = self._flops(computation, i)
        return found

    def _counted(self, computation: Computation, loop: Instruction) -> int | None:
        """Trips of a loop that counts up to a constant from one, by ones; None for another one."""
        condition, start = self._called(loop, "condition"), computation.instructions.get(loop.operands[0])
        assert condition is not None, "a loop has a condition"
        root = condition.root
        if root.operation != "compare" or "direction=LT" not in root.attributes:
            return None
        counter, limit = (condition.instructions[name] for name in root.operands[:2])
        place = re.search(r"index=(\d+)", counter.attributes)
        if counter.operation != "get-tuple-element" or limit.operation != "constant" or place is None:
            return None
        first = None
        if start is not None and start.operation == "tuple":
            first = computation.instructions.get(start.operands[int(place[1])])
        while first is not None and first.operation in ("copy", "bitcast"):
            first = computation.instructions.get(first.operands[0])
        begin = int(first.value or 0) if first is not None and first.operation == "constant" else 0
        return int(limit.value or 0) - begin

    # Bytes

    def _moved(self, computation: Computation, i: Instruction) -> float:
        if i.operation == "custom-call" and KERNEL not in i.attributes:
            return 0.0  # a note to the compiler, or a view
        if i.operation in FREE or i.operation.endswith("-done"):
            return 0.0
        operands = [computation.instructions[name] for name in i.operands if name in computation.instructions]
        if i.operation == "copy-start":
            return sum(array.hbm_bytes for array in i.arrays[:2])
        if i.operation in ("slice-start", "dynamic-slice-start"):
            made = i.arrays[len(operands)]
            return made.hbm_bytes + (made.bytes if operands[0].hbm_bytes else 0)
        if i.operation in SLICES:
            return i.hbm_bytes + self._as_read(operands[0], i)
        if i.operation == "dynamic-update-slice":
            return 2 * operands[1].hbm_bytes if operands[0].hbm_bytes else operands[1].hbm_bytes
        if i.operation == "fusion" and (inside := self._called(i, "calls")) is not None:
            read = sum(
                self._read(inside, parameter, one.arrays)
                for parameter, one in zip(inside.parameters, operands, strict=False)
            )
            return read + self._written(inside, i)
        if i.operation.endswith("-start"):
            return sum(one.hbm_bytes for one in operands) + sum(a.hbm_bytes for a in i.arrays[len(operands) :][:1])
        return i.hbm_bytes + sum(one.hbm_bytes for one in operands)

    def _as_read(self, source: Instruction, made: Instruction) -> float:
        """Of a slice: what it has of its source, as far as that lies in HBM."""
        return sum(a.bytes for a in made.arrays) if source.hbm_bytes else 0.0

    def _read(self, inside: Computation, parameter: Instruction, given: tuple[Array, ...]) -> float:
        """Bytes that a fusion reads of one operand."""
        whole = sum(array.hbm_bytes for array in given)
        return min(whole, self._share(inside, parameter.name, whole)) if whole else 0.0

    def _share(self, inside: Computation, name: str, whole: float) -> float:
        total = whole if inside.instructions[name].root else 0.0
        for user in inside.users(name):
            if user.operation in SLICES and user.operands[0] == name:
                total += sum(a.bytes for a in user.arrays)
            elif user.operation in UPDATES and user.operands[0] == name:
                pass  # in place: what is not written is not touched
            elif user.operation in VIEWS:
                total += self._share(inside, user.name, whole)
            elif user.operation == "fusion" and (deeper := self._called(user, "calls")) is not None:
                places = [n for n, operand in enumerate(user.operands) if operand == name]
                total += sum(self._share(deeper, deeper.parameters[n].name, whole) for n in places)
            else:
                return whole
        return total

    def _written(self, inside: Computation, fusion: Instruction) -> float:
        """Bytes that a fusion writes."""
        return self._made(inside, inside.root, list(fusion.arrays))

    def _made(self, inside: Computation, root: Instruction, arrays: list[Array]) -> float:
        if root.operation == "tuple" and len(root.operands) == len(arrays):
            pairs = zip(root.operands, arrays, strict=True)
            return sum(self._made(inside, inside.instructions[name], [array]) for name, array in pairs)
        if not any(array.hbm_bytes for array in arrays):
            return 0.0
        if root.operation in VIEWS and root.operands[0] in inside.instructions:
            return self._made(inside, inside.instructions[root.operands[0]], arrays)
        if root.operation == "dynamic-update-slice":
            return sum(a.bytes for a in inside.instructions[root.operands[1]].arrays)
        if root.operation == "fusion" and (deeper := self._called(root, "calls")) is not None:
            return self._made(deeper, deeper.root, arrays)
        return sum(array.hbm_bytes for array in arrays)

    # Flops

    def _flops(self, computation: Computation, i: Instruction) -> float:
        if i.operation == "fusion" and (inside := self._called(i, "calls")) is not None:
            return sum(self._flops(inside, one) for one in inside.instructions.values())
        if i.operation == "custom-call":
            if KERNEL not in i.attributes:
                return 0.0
            arrays = [
                a
                for name in i.operands
                if name in computation.instructions
                for a in computation.instructions[name].arrays
            ]
            return hlo_kernels.splash_flops(i.name + i.attributes, arrays) or 0.0
        if i.operation not in ("dot", "convolution"):
            return 0.0
        left, right = (computation.instructions[name].arrays[0] for name in i.operands[:2])
        if i.operation == "dot":
            axes = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", i.attributes)
            contracted = prod(left.sides[int(axis)] for axis in axes[1].split(",") if axis) if axes else 1
            return 2.0 * i.arrays[0].size * contracted
        return _convolution(i, left, right)


def _convolution(i: Instruction, left: Array, right: Array) -> float:
    """2 x multiplications, of which those with padding are none."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    assert labels is not None, "a convolution says what its axes are"
    of_left, of_right, of_out = labels[1], labels[2], labels[3]
    window = re.search(r"window=\{([^}]*)\}", i.attributes)
    said = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
    groups = re.search(r"feature_group_count=(\d+)", i.attributes)
    batches = re.search(r"batch_group_count=(\d+)", i.attributes)
    count = 1.0
    for n in range(len(of_right) - 2):
        size = right.sides[of_right.index(str(n))]
        sides = left.sides[of_left.index(str(n))], i.arrays[0].sides[of_out.index(str(n))]
        count *= _valid(size, *sides, _window(said, n))
    out, features = i.arrays[0], right.sides[of_right.index("i")]
    batch, made = out.sides[of_out.index("b")], out.sides[of_out.index("f")]
    del groups  # `features` are those of a group already
    return 2.0 * count * features * made * batch / (int(batches[1]) if batches else 1)


def _window(said: Mapping[str, str], n: int) -> tuple[int, int, int, int]:
    """Stride, padding before, dilation of the left and of the right side along spatial axis n."""

    def number(key: str, default: int) -> int:
        return int(said[key].split("x")[n]) if key in said else default

    before = int(said["pad"].split("x")[n].split("_")[0]) if "pad" in said else 0
    return number("stride", 1), before, number("lhs_dilate", 1), number("rhs_dilate", 1)


def _valid(size: int, given: int, made: int, window: tuple[int, int, int, int]) -> int:
    """Pairs of a place in the kernel and one in the result for which there is something to multiply."""
    stride, before, left, right = window
    total = 0
    for k in range(size):
        for o in range(made):
            at = o * stride - before + k * right
            total += at >= 0 and at % left == 0 and at // left < given
    return total
