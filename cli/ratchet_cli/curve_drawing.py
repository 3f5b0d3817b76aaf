"""The learning curve in the terminal, drawn with block characters."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"


def draw(
    points: Sequence[tuple[int, float]],
    marks: Sequence[tuple[int, str]] = (),
    *,
    width: int = 68,
    height: int = 8,
    top: float = 1.0,
) -> str:
    """`points` are (step, value between 0 and `top`), `marks` are (step, one character) drawn below the axis.

    Each column is the mean of the steps that fall into it.
    """
    if not points:
        return "(no points)"
    first, last = points[0][0], points[-1][0]
    span = max(1, last - first + 1)
    width = min(width, span)

    def column(step: int) -> int:
        return min(width - 1, max(0, (step - first) * width // span))

    sums, counts = [0.0] * width, [0] * width
    for step, value in points:
        sums[column(step)] += value
        counts[column(step)] += 1
    means = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
    for i, mean in enumerate(means):  # a column without a step shows its left neighbour
        if mean is None and i:
            means[i] = means[i - 1]
    rows = []
    for row in range(height, 0, -1):
        cells = [_cell((mean or 0.0) / top * height - (row - 1)) for mean in means]
        label = f"{top * row / height:4.2f} " if row in (height, height // 2) else "     "
        rows.append(label + "│" + "".join(cells))
    below = [" "] * width
    for step, mark in marks:
        below[column(step)] = mark
    rows.append("0.00 └" + "─" * width)
    rows.append("      " + "".join(below).rstrip())
    rows.append(f"      step {first}" + f"step {last}".rjust(width - len(f"step {first}")))
    return "\n".join(line.rstrip() for line in rows)


def _cell(filled: float) -> str:
    return BLOCKS[max(0, min(8, round(filled * 8)))]
