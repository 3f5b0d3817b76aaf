"""How an API type behaves: what Python accepts is what the API server accepts.

Decides the common conduct of all models (names, strictness, null, list maps, CEL rules). The types themselves are in
`spec`, `status` and their neighbours; the translation to a CRD is in `crd`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict


@dataclass(frozen=True)
class Rule:
    """One rule, said twice: in CEL for the API server and in Python for `ratchet validate`.

    `holds` gets the validated model. It is None for transition rules (`oldSelf`), which only a server can judge.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None
    path: str = ""  # CEL fieldPath, e.g. ".sft": where the error is shown

    def schema(self) -> dict[str, str]:
        out = {"rule": self.cel, "message": self.message}
        return out | {"fieldPath": self.path} if self.path else out


class ApiModel(BaseModel):
    """Base of every type of the API: camelCase outside, no coercion, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        defer_build=True,  # few processes validate all types, and one that contains others is built with them
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absence(cls, data: Any) -> Any:
        # The API server drops null before it looks any further, but does complain of unknown names.
        if not isinstance(data, dict) or None not in data.values():
            return data
        known = {f.alias or name for name, f in cls.model_fields.items()}
        return {k: v for k, v in data.items() if v is not None or k not in known}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Frozen: pydantic may hand out a default as it is, and need not copy it for every model that it reads.
        return self

    @model_validator(mode="after")
    def _list_maps_and_rules_hold(self) -> Self:
        # One function for both: it is called for every model of a job, which is read in every pass over it.
        for name, alias, key in _list_maps(type(self)):
            seen: set[Any] = set()
            for item in getattr(self, name) or ():
                value = getattr(item, key)
                if value in seen:
                    raise ValueError(f"{alias}: two entries have the {key} {value!r}; give each its own")
                seen.add(value)
        for rule in type(self).rules:
            if rule.holds is not None and not rule.holds(self):
                raise ValueError(rule.message)
        return self

    def manifest(self) -> dict[str, Any]:
        """Plain JSON data as the API server stores it: camelCase, defaults filled in, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@functools.cache
def _list_maps(model: type[ApiModel]) -> tuple[tuple[str, str, str], ...]:
    """Of each field that is a list with a key: name in Python, name outside, the key."""
    found = []
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "x-kubernetes-list-map-keys" in extra:
            (key,) = cast("list[str]", extra["x-kubernetes-list-map-keys"])
            found.append((name, field.alias or name, key))
    return tuple(found)


M = TypeVar("M", bound=ApiModel)


def read_tolerantly(model: type[M], data: dict[str, Any]) -> M:
    """The typed model; fields that only a newer version knows are left out. Raises ValidationError otherwise."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        unknown = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
        if not unknown:
            raise
    data = json.loads(json.dumps(data))
    for *place, name in unknown:
        inside: Any = data
        for part in place:
            inside = inside[part]
        del inside[name]
    return model.model_validate(data)


def as_whole(value: Any) -> Any:
    # JSON has one kind of number: the API server takes 400.0 for an integer, and so do we.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_null(value: Any) -> Any:
    # The API server drops null entries of a map.
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def as_decimal(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f'numbers that need decimals are strings here; quote it: "{value}"')
    return value


def whole(description: str, *, ge: int, le: int = 2**31 - 1, default: Any = ...) -> Any:
    """A field for a whole number between `ge` and `le`."""
    return Field(default=default, ge=ge, le=le, description=description)


Whole = Annotated[int, BeforeValidator(as_whole)]
STEP_MAX = 2**53 - 1
"""Largest step or count: what a double holds exactly, since JSON numbers are doubles elsewhere."""
Count = Annotated[int, Field(ge=0, le=STEP_MAX), BeforeValidator(as_whole)]

DECIMAL_PATTERN = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
Decimal = Annotated[
    str,
    Field(
        pattern=DECIMAL_PATTERN,
        max_length=32,
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "double(self) < 1e300 && double(self) > -1e300", "message": "out of range"}
            ]
        },
    ),
    AfterValidator(lambda s: s if math.isfinite(float(s)) and abs(float(s)) < 1e300 else refuse("out of range")),
    BeforeValidator(as_decimal),
]
PositiveDecimal = Annotated[
    str,
    Field(
        pattern=DECIMAL_PATTERN,
        max_length=32,
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "double(self) > 0.0 && double(self) < 1e300", "message": "must be greater than 0"}
            ]
        },
    ),
    AfterValidator(lambda s: s if 0 < float(s) < 1e300 else refuse("must be greater than 0")),
    BeforeValidator(as_decimal),
]


def refuse(message: str) -> Any:
    raise ValueError(message)


METRIC_PATTERN = r"^[a-z0-9][-a-z0-9_./]*$"
"""What a metric's name looks like."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
LIST_MAP: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
StringMap = Annotated[dict[str, Annotated[str, Field(max_length=1024)]], BeforeValidator(_without_null)]
