"""Times, numbers and bars as short text, in kubectl's manner."""

from __future__ import annotations

from datetime import datetime

UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float | None) -> str:
    """44s, 3m12s, 5h20m, 2d4h: the two largest units, one where the first is ten or more of it (but for seconds)."""
    if seconds is None:
        return "?"
    left = max(0, round(seconds))
    for i, (unit, size) in enumerate(UNITS):
        if left >= size:
            count, rest = divmod(left, size)
            if i + 1 == len(UNITS) or (count >= 10 and unit != "m"):
                return f"{count}{unit}"
            smaller, small = UNITS[i + 1]
            return f"{count}{unit}{rest // small}{smaller}" if rest // small else f"{count}{unit}"
    return "0s"


def seconds_between(earlier: datetime | None, later: datetime | None) -> float | None:
    """Seconds from one time to another, never below 0: clocks of two machines differ."""
    return None if earlier is None or later is None else max(0.0, (later - earlier).total_seconds())


def short(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits: 0.713, 2764, 1.2M."""
    if value is None:
        return "-"
    for limit, divisor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e5, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / divisor:.{digits}g}{unit}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def bar(share: float | None, width: int, *, plain: bool = False) -> str:
    """A bar of so many columns that is filled by a share between 0 and 1; `plain`: in ASCII."""
    filled = round(width * min(1.0, max(0.0, share or 0.0)))
    full, empty = ("#", ".") if plain else ("━", "╌")
    return full * filled + empty * (width - filled)


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 slice`, `2 slices`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
