"""What texts an expression can be: its literal parts, with … for what is only known when the program runs.

Reads code, never runs it. Names are followed to what is assigned to them in the same function or module, calls to what
the called function of this product returns.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

HOLE = "…"
MOST = 24
"""So many texts of one expression at most; beyond, the parts that vary are a hole."""
DEPTH = 4
"""So many calls are followed."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """One file of the product, parsed."""

    name: str
    file: Path
    tree: ast.Module
    functions: dict[str, Function] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                self.functions.setdefault(node.name, node)
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.imports |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.constants[statement.targets[0].id] = statement.value
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
                self.constants[statement.target.id] = statement.value


@dataclass(frozen=True)
class Code:
    """All modules, by their names."""

    modules: dict[str, Module]

    @staticmethod
    def read(folders: Iterable[Path]) -> Code:
        """The modules of packages that lie in these folders."""
        found = {}
        for folder in folders:
            for file in sorted(folder.rglob("*.py")):
                name = ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
                found[name] = Module(name, file, ast.parse(file.read_text(encoding="utf-8")))
        return Code(found)

    def function(self, module: Module, name: str) -> tuple[Module, Function] | None:
        """Where a name that is called in a module is defined."""
        if name in module.functions:
            return module, module.functions[name]
        where, original = module.imports.get(name, ("", ""))
        there = self.modules.get(where)
        return (there, there.functions[original]) if there and original in there.functions else None

    def constant(self, module: Module, name: str) -> tuple[Module, ast.expr] | None:
        """The value of a name of the module, or of one that it imports, from a module that may import it again."""
        for _ in range(DEPTH):
            if name in module.constants:
                return module, module.constants[name]
            where, name = module.imports.get(name, ("", ""))
            if where not in self.modules:
                return None
            module = self.modules[where]
        return None


@dataclass(frozen=True)
class Reader:
    """Reads expressions of one function (or of a module's own statements)."""

    code: Code
    module: Module
    function: Function | None
    depth: int = DEPTH
    following: frozenset[str] = frozenset()
    """Names that are being followed: `text = text or ...` would lead round in a circle."""

    def texts(self, node: ast.expr) -> list[str]:
        """All texts that an expression may be, holes included."""
        found = list(dict.fromkeys(self._texts(node)))
        return found if len(found) <= MOST else [HOLE]

    def _texts(self, node: ast.expr) -> Iterator[str]:
        match node:
            case ast.Constant(value=value):
                yield str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else HOLE
            case ast.JoinedStr(values=parts):
                yield from self._product(parts)
            case ast.FormattedValue(value=value, conversion=conversion):
                yield from [HOLE] if conversion == ord("r") else self._part(value)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                yield from self._product([left, right])
            case ast.IfExp(body=body, orelse=other):
                yield from itertools.chain(self.texts(body), self.texts(other))
            case ast.BoolOp(values=values):
                yield from itertools.chain.from_iterable(map(self.texts, values))
            case ast.NamedExpr(value=value):
                yield from self.texts(value)
            case ast.Name(id=name):
                yield from self._name(name)
            case ast.Subscript(value=ast.Name(id=name)) if table := self.code.constant(self.module, name):
                yield from self._table(*table)
            case ast.Call():
                yield from self._call(node)
            case _:
                yield HOLE

    def _part(self, node: ast.expr) -> list[str]:
        """What stands in the braces of a formatted text: alternatives that are written out, else a hole."""
        found = self.texts(node)
        return found if all(_says_something(text) or text == "" for text in found) else [HOLE]

    def _product(self, parts: list[ast.expr]) -> Iterator[str]:
        each = [self.texts(part) for part in parts]
        while len(list(itertools.islice(itertools.product(*each), MOST + 1))) > MOST:
            each[max(range(len(each)), key=lambda i: len(each[i]))] = [HOLE]
        for some in itertools.product(*each):
            yield "".join(some)

    def _name(self, name: str) -> Iterator[str]:
        if self.function is not None and name not in self.following:
            said, more = _assigned(self.function, name)
            if said:
                inside = replace(self, following=self.following | {name})
                ways = [text for value in said for text in inside.texts(value)]
                for addition in more:
                    ways += [way + text for way in ways for text in inside.texts(addition)]
                yield from ways
                return
        if (constant := self.code.constant(self.module, name)) and self.depth:
            there, value = constant
            if isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp):
                yield from Reader(self.code, there, None, self.depth - 1).texts(value)
                return
        yield HOLE

    def _table(self, there: Module, value: ast.expr) -> Iterator[str]:
        if isinstance(value, ast.Dict) and self.depth:
            reader = Reader(self.code, there, None, self.depth - 1)
            for entry in value.values:
                yield from reader.texts(entry)
        else:
            yield HOLE

    def _call(self, node: ast.Call) -> Iterator[str]:
        match node.func:
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                found = self.code.function(self.module, name)
            case _:
                found = None
        if found is None or not self.depth:
            yield HOLE
            return
        there, function = found
        reader = Reader(self.code, there, function, self.depth - 1)
        returned = [n.value for n in own_nodes(function) if isinstance(n, ast.Return) and n.value is not None]
        for value in returned:
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield from reader.texts(value)
        if not returned:
            yield HOLE


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield child
            yield from own_nodes(child)


def _assigned(function: Function, name: str) -> tuple[list[ast.expr], list[ast.expr]]:
    """What a function assigns to a name, and what it adds to it. A name that is unpacked is not followed."""
    said, more = [], []
    for node in own_nodes(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                said.append(value)
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                said.append(value)
            case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                said.append(value)
            case ast.AugAssign(target=ast.Name(id=target), op=ast.Add(), value=value) if target == name:
                more.append(value)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                pairs = zip(names, values, strict=False)
                said += [v for n, v in pairs if isinstance(n, ast.Name) and n.id == name]
    return said, more


def _says_something(text: str) -> bool:
    return any(c.isalpha() for c in text.replace(HOLE, ""))
