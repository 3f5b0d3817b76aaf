"""What comes with the program besides code: the chart and the examples, in the checkout or inside the package."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve()


def in_checkout() -> bool:
    """Whether this program is that of a checkout, not of an installed package."""
    return (HERE.parents[2] / "pyproject.toml").is_file()


def examples() -> Path:
    """The folder of the examples. Raises FileNotFoundError for an installation that has none."""
    candidates = (HERE.parents[2] / "examples", HERE.parent / "shipped_examples")
    for folder in candidates:
        if (folder / "sums.yaml").is_file():
            return folder
    raise FileNotFoundError(f"the examples are in none of {', '.join(map(str, candidates))}; install ratchet-rl anew")
