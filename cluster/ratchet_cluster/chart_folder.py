"""Where the chart lies: in the checkout, or the copy inside the package. Needs nothing that an image might lack."""

from __future__ import annotations

from pathlib import Path


def chart_folder() -> Path:
    """The chart's folder. Raises FileNotFoundError for an installation that has none."""
    here = Path(__file__).resolve()
    candidates = [here.parents[2] / "helm" / "ratchet", here.parents[1] / "ratchet_cli" / "chart"]
    for folder in candidates:
        if (folder / "Chart.yaml").is_file():
            return folder
    raise FileNotFoundError(f"the chart is in none of {', '.join(map(str, candidates))}; is the installation complete?")
