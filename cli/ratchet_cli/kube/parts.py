"""Reading parts of objects whose makers are not known: an older operator, a newer one, a trainer with users' code.

Decides that what is absent or of another type than expected counts as absent, and that texts are one printable line.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ratchet_cli.kube.errors import one_line


def at(found: Any, *path: str | int) -> Any:
    """The part at a path of keys and indices; None where it ends on the way."""
    for key in path:
        if isinstance(key, int):
            found = found[key] if isinstance(found, list) and -len(found) <= key < len(found) else None
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found


def text(found: Any, *path: str | int) -> str | None:
    """A text as one printable line; None where there is none."""
    part = at(found, *path)
    return one_line(part) if isinstance(part, str) else None


def whole(found: Any, *path: str | int) -> int | None:
    """A whole number."""
    part = at(found, *path)
    return part if isinstance(part, int) and not isinstance(part, bool) else None


def number(found: Any, *path: str | int) -> float | None:
    """A finite number, also one that is written as a decimal string, as those in status are."""
    part = at(found, *path)
    if isinstance(part, bool) or not isinstance(part, int | float | str):
        return None
    try:
        value = float(part)
    except (ValueError, OverflowError):
        return None
    return value if abs(value) < float("inf") else None


def moment(found: Any, *path: str | int) -> datetime | None:
    """A time as Kubernetes writes it."""
    part = at(found, *path)
    if not isinstance(part, str):
        return None
    try:
        value = datetime.fromisoformat(part)
    except ValueError:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def each(found: Any, *path: str | int) -> Iterator[dict[str, Any]]:
    """The objects of a list."""
    part = at(found, *path)
    if isinstance(part, list):
        yield from (entry for entry in part if isinstance(entry, dict))
