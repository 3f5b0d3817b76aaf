"""Pictures of curves with bands, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from measuring.curves import Band


def draw(bands: Mapping[str, Band], target: float, title: str, file: Path) -> None:
    """Medians as lines, the range of all runs as bands, the target dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=100)
    for name, band in bands.items():
        (line,) = axes.plot(band.steps, band.middle, label=name, marker=".")
        axes.fill_between(band.steps, band.low, band.high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.axhline(target, color="grey", linestyle=":", linewidth=1)
    axes.set(title=title, xlabel="step", ylabel="held-out accuracy", ylim=(0, 1))
    axes.legend(loc="upper left")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version of who drew it, the same numbers make the same file.
    figure.savefig(file, metadata={"Software": None})
    pyplot.close(figure)
