"""Each value set in `ci/` renders what its golden file says."""

from __future__ import annotations

import pytest
from golden_values import GOLDEN, text
from rendering import CHART, VALUE_SETS, helm


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_value_set_renders_its_golden_file(name):
    assert text(name) == (GOLDEN / f"{name}.yaml").read_text(), (
        "if the change is meant: python tests/chart/golden_values.py, and read the difference"
    )


def test_there_is_no_golden_file_too_many():
    assert {path.stem for path in GOLDEN.iterdir()} == set(VALUE_SETS)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_lint_finds_nothing(name):
    done = helm("lint", "--strict", CHART, "--values", VALUE_SETS[name])
    assert done.returncode == 0, done.stdout
