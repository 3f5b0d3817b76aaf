"""Every knob of a stage: its value, what it would be if the manifest said nothing, and where the value comes from.

Decides nothing by itself: names, defaults and the words for an absent knob are read off the API types, presets off
their table (`ratchet_api.presets`). A new field or a new column of a row appears here without a change, as long as the
column is named like the knob or like the part of `rl` whose knobs it fills.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from ratchet_api import expansion, method, sampled_values, selection
from ratchet_api.base import ApiModel
from ratchet_api.presets import PRESETS, Preset
from ratchet_api.stages import Rl, Sft, Stage

COLUMNS = {"clip": ("objective.clipLow", "objective.clipHigh")}
"""Columns of a preset that are named otherwise than their knobs."""
COMPUTED: Mapping[str, Callable[[Rl], Any]] = {
    "selection.candidates": selection.candidates,
    "selection.rollouts": selection.rollouts,
    "selection.reuse": selection.reuse,
    "advantage.vine.maxSteps": lambda rl: sampled_values.vine(rl).most_steps,
    "expansion.promptsPerRound": expansion.prompts_per_round,
}
"""What an absent knob comes to, where that depends on others."""
BROUGHT_ALONG: Mapping[str, Callable[[Rl], bool]] = {
    "selection.buffer": selection.buffered,
    "advantage.vine": method.samples_values,
}
"""Whether a part is there that a method may bring along."""
PARTS = ("objective", "advantage", "sampling", "optimizer")
"""Parts of `rl` among whose knobs a column of that name is looked for."""
NAMED = ("rewards",)
"""Lists of `rl` that are shown entry by entry, each by its name."""
ABSENT = re.compile(r"\b[Aa]bsent: (.+?)(?:;|\. |\.?$)")
UNSAID = ("the preset's", "the method's")
"""How the words for an absent knob begin that leave it to the preset."""
OWNER = re.compile(r"\b(kind|estimator)s? ([A-Za-z][\w-]*)(?: and ([A-Za-z][\w-]*))?", re.IGNORECASE)
"""How a description says to which kind or estimator a knob belongs."""


@dataclasses.dataclass(frozen=True)
class Knob:
    """`name` is its path in the stage, `value` and `default` are as a manifest would have them, or words where it could
    have none. `source`: manifest, preset NAME or default. `applies`: whether it does anything beside the others."""

    name: str
    value: Any
    default: Any
    source: str
    applies: bool = True


def knobs_of(stage: Stage) -> list[Knob]:
    """The knobs of how a stage trains, in the order of the API. Raises KeyError for a column of a preset that belongs
    to no knob."""
    if stage.rl is None:
        return [dataclasses.replace(k, name=f"sft.{k.name}") for k in _knobs(Sft, stage.sft, "", {}, None)]
    filled = _filled(stage.rl.method)
    return [dataclasses.replace(k, name=f"rl.{k.name}") for k in _knobs(Rl, stage.rl, "", filled, stage.rl)]


def with_learning_rate(knobs: list[Knob], rate: str) -> list[Knob]:
    """The knobs with what an absent learning rate comes to, which the model decides."""
    return [dataclasses.replace(k, value=rate) if k.name.endswith(".optimizer.learningRate") else k for k in knobs]


def _filled(name: str) -> dict[str, Any]:
    """Knob -> what the preset of that name fills it with."""
    found: dict[str, Any] = {}
    for column in dataclasses.fields(Preset):
        value = getattr(PRESETS[name], column.name)
        for knob, own in _places(column.name, value):
            found[knob] = own
    return {knob: value for knob, value in found.items() if value is not None}


def _places(column: str, value: Any) -> Iterator[tuple[str, Any]]:
    if column in COLUMNS:
        yield from zip(COLUMNS[column], value, strict=True)
        return
    fields = {f.alias or n: f for n, f in Rl.model_fields.items()}
    if column in fields and (model := _model_in(fields[column].annotation)) is not None:
        names = [f.alias or n for n, f in model.model_fields.items()]
        if isinstance(value, ApiModel):
            yield from ((f"{column}.{n}", v) for n, v in value.manifest().items())
        elif isinstance(value, Mapping):
            yield from ((f"{column}.{n}", v) for n, v in value.items())
        else:
            values = value if isinstance(value, tuple | list) else (value,)
            yield from ((f"{column}.{n}", v) for n, v in zip(names, values, strict=False))
        return
    for part in PARTS:
        inside = _model_in(fields[part].annotation)
        if inside is not None and column in {f.alias or n for n, f in inside.model_fields.items()}:
            yield f"{part}.{column}", value
            return
    if column not in fields:
        raise KeyError(f"column {column} of the presets is no knob of rl; name it like one, or add it to COLUMNS")
    yield column, value


def _knobs(
    model: type[ApiModel], own: ApiModel | None, path: str, filled: Mapping[str, Any], rl: Rl | None
) -> Iterator[Knob]:
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        given = own is not None and name in own.model_fields_set
        value = getattr(own, name) if own is not None else None
        inside, place = _model_in(field.annotation), f"{path}{alias}"
        if place in NAMED and value:
            yield from (knob for entry in value for knob in _of_entry(entry, place, rl))
            continue
        if inside is not None and _present(inside, model, place, value, filled, rl):
            # What needs a field is replaced whole: what the preset says of the others is gone then.
            kept = filled if value is None or _may_be_empty(inside) else _without(filled, place)
            applies = _applies(model, name, field, values)
            for knob in _knobs(inside, value if given else None, f"{place}.", kept, rl):
                yield dataclasses.replace(knob, applies=knob.applies and applies)
            continue
        knob = _knob(name, field, model, place, value if given else None, filled, rl)
        values[alias] = knob.value
        yield dataclasses.replace(knob, applies=_applies(model, name, field, values))


def _of_entry(entry: Any, place: str, rl: Rl | None) -> Iterator[Knob]:
    """The knobs of a named entry of a list; of the things that it could be, what it is."""
    for knob in _knobs(type(entry), entry, f"{place}[{entry.name}].", {}, rl):
        name = knob.name.rpartition("].")[2]
        if name != "name" and knob.value is not None and not (name == "of" and entry.kinds):
            yield knob


def _present(
    inside: type[ApiModel],
    model: type[ApiModel],
    place: str,
    value: Any,
    filled: Mapping[str, Any],
    rl: Rl | None,
) -> bool:
    """Whether a part is there to be shown knob by knob: it is given, a preset fills it or brings it along, or it is a
    part of the stage of which every knob has a default."""
    if value is not None or any(k.startswith(f"{place}.") for k in filled):
        return True
    if place in BROUGHT_ALONG and rl is not None:
        return BROUGHT_ALONG[place](rl)
    return _may_be_empty(inside) and model is Rl


def _without(filled: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {k: v for k, v in filled.items() if not k.startswith(f"{place}.")}


def _knob(
    name: str, field: FieldInfo, model: type[ApiModel], place: str, said: Any, filled: Mapping[str, Any], rl: Rl | None
) -> Knob:
    absent = ABSENT.search(field.description or "")
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if place in filled:
        default = filled[place]
    elif place == "reference" and rl is not None and rl.kl is not None:
        default = "frozen, which kl brings along"
    elif default is None or default == []:
        default = absent[1].partition(" (")[0] if absent and not absent[1].startswith(UNSAID) else None
        default = None if default == "none" else default
    source = "manifest" if said is not None else f"preset {rl.method}" if rl and place in filled else "default"
    value = said if said is not None else default
    if said is None and place in COMPUTED and rl is not None:
        value = COMPUTED[place](rl)
    required = field.is_required() and place not in filled
    return Knob(place, plain(value), "required" if required else plain(default), source)


def _applies(model: type[ApiModel], name: str, field: FieldInfo, values: Mapping[str, Any]) -> bool:
    """Whether a knob belongs to the kind or estimator that its part has: by the module's KNOBS, else by what its
    description says."""
    for chooser in ("kind", "estimator"):
        chosen, choices = values.get(chooser), _choices(model, chooser)
        if chosen is None or name == chooser:
            continue
        said = [m for m in OWNER.finditer(field.description or "") if m[1].lower() == chooser]
        table = getattr(sys.modules[model.__module__], "KNOBS", ())
        owners = {row[-1] for row in table if row[0] == name and row[-1] in choices}
        owners = owners or {owner for m in said for owner in m.groups()[1:] if owner in choices}
        if owners and chosen not in owners:
            return False
    return True


def _choices(model: type[ApiModel], name: str) -> tuple[str, ...]:
    field = model.model_fields.get(name)
    if field is None:
        return ()
    literal = [a for a in (field.annotation, *get_args(field.annotation)) if get_origin(a) is Literal]
    return get_args(literal[0]) if literal else ()


def _may_be_empty(model: type[ApiModel]) -> bool:
    return not any(f.is_required() for f in model.model_fields.values())


def _model_in(annotation: Any) -> type[ApiModel] | None:
    """The API type of a field that holds one, or may."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    if get_origin(annotation) is UnionType or type(None) in get_args(annotation):
        return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)
    return None


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, ApiModel):
        return value.manifest()
    if isinstance(value, Fraction):
        return f"{float(value):g}"
    if isinstance(value, float):
        return f"{value:g}"
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def shown(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
