"""Pictures of curves with bands, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from measuring.curves import Band


def draw(bands: Mapping[str, Band], target: float, title: str, file: Path) -> None:
    """Medians as lines, the range of all runs as bands, the target dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=120)
    for name, band in bands.items():
        (line,) = axes.plot(band.steps, band.middle, label=name, marker=".")
        axes.fill_between(band.steps, band.low, band.high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.axhline(target, color="grey", linestyle=":", linewidth=1)
    axes.set_title(title, fontsize="small")
    axes.set(xlabel="step", ylabel="held-out accuracy", ylim=(0, 1))
    axes.legend(loc="best", fontsize="small")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    pyplot.close(figure)
    # 64 colors are a third of the bytes. There is no date in the file: the same numbers make the same bytes.
    Image.open(drawn).convert("RGB").quantize(64).save(file, optimize=True)
