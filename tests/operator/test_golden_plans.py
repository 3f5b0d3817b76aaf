"""Golden cases: for each snapshot in `cases/` the whole plan, as YAML that can be read as documentation."""

from __future__ import annotations

import json

import pytest
import yaml
from golden_cases import ALL, CASES, plain, plan_comment, text

from ratchet_operator.decide import decide
from ratchet_operator.snapshot import Snapshot


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", sorted(ALL))
def test_the_plan_is_the_recorded_one(case):
    snapshot = Snapshot.from_dict(load(CASES / case / "snapshot.yaml"))
    plan = decide(snapshot).to_dict()
    assert json.loads(json.dumps(plan)) == load(CASES / case / "plan.yaml"), (
        "if the change is meant: python tests/operator/golden_cases.py, and read the difference"
    )


@pytest.mark.parametrize("case", sorted(ALL))
def test_what_the_user_sees_stands_above_the_plan(case):
    snapshot = Snapshot.from_dict(load(CASES / case / "snapshot.yaml"))
    recorded = (CASES / case / "plan.yaml").read_text(encoding="utf-8")
    assert recorded.startswith(text({}, plan_comment(case, snapshot)).removesuffix("{}\n"))


@pytest.mark.parametrize("case", sorted(ALL))
def test_the_snapshot_still_comes_about_like_that(case):
    assert load(CASES / case / "snapshot.yaml") == json.loads(json.dumps(plain(ALL[case]().snapshot())))


def test_no_case_is_forgotten():
    assert sorted(path.name for path in CASES.iterdir()) == sorted(ALL)
