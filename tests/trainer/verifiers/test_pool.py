"""A verifier may hang, crash, fork or print what it likes: the others are verified, in order, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from cases import case, python_spec, spec, verified

from ratchet_trainer.algorithm.outcome import Outcome
from ratchet_trainer.algorithm.verifiers import python
from ratchet_trainer.algorithm.verifiers.pool import VerifierPool
from ratchet_trainer.errors import ConfigurationInvalid


def pool(
    entrypoint: str = "hostile:verify", workers: int = 1, deadline: float = 2.0, **settings: object
) -> VerifierPool:
    return VerifierPool(python_spec(entrypoint, **settings).to_json(), workers, deadline=deadline)


def processes_of(session: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(name))
    return found


BAD = {
    "hang": ("timeout", "no outcome after 2 s"),
    "spin": ("timeout", "no outcome after 2 s"),
    "exit": ("crash", "exited with 7"),
    "sys.exit": ("crash", "SystemExit"),
    "segfault": ("crash", "SIGSEGV"),
    "raise": ("crash", "no such luck"),
    "raise oddly": ("crash", "Odd"),
    "memory": ("crash", "MemoryError"),
    "fork and die": ("crash", "exited with 1"),
    "close all": ("crash", "exited with 1"),
    "write into all": ("crash", "pool's pipe"),
    "nan": ("crash", "score is nan"),
    "infinite": ("crash", "score is inf"),
    "none": ("crash", "None, which is no number"),
    "text": ("crash", "'very good', which is no number"),
    "list": ("crash", "no number"),
    "nan part": ("crash", "part style is nan"),
    "half accuracy": ("crash", "neither 0 nor 1"),
    "misspelled": ("crash", "scores"),
    "huge": ("crash", "huge"),
}


@pytest.fixture(scope="module")
def mixed() -> tuple[dict[str, Outcome], list[Outcome], dict[int, str]]:
    """One batch with every bad verifier of the table and good ones between them: outcomes, good outcomes, messages."""
    cases = [c for n, how in enumerate(BAD) for c in (case(how, index=n), case("5"))]
    with pool(workers=2) as verifier:
        outcomes = verified(verifier, cases)
        told = {anomaly.item: anomaly.message for anomaly in verifier.anomalies}
        assert len(told) == len(verifier.anomalies) == len(BAD)
    return dict(zip(BAD, outcomes[::2], strict=True)), outcomes[1::2], told


@pytest.mark.parametrize("how", BAD)
def test_a_verifier_that_gives_no_outcome_is_named(how: str, mixed: tuple):
    outcomes, _, told = mixed
    status, message = BAD[how]
    assert (outcomes[how].status, outcomes[how].accuracy, outcomes[how].score) == (status, 0.0, 0.0)
    assert not outcomes[how].pure  # another run might get one, so it goes to the journal
    assert message in told[list(BAD).index(how)]


def test_its_neighbors_are_verified_all_the_same(mixed: tuple):
    _, good, _ = mixed
    assert {(outcome.accuracy, outcome.status) for outcome in good} == {(1.0, "ok")}


@pytest.mark.parametrize("how", ["gigabyte", "fork", "fork and come back", "true"])
def test_what_a_verifier_does_beside_its_outcome_does_not_matter(how: str):
    with pool(deadline=20.0) as verifier:
        assert [o.accuracy for o in verified(verifier, [case(how), case("5"), case("6")])] == [1.0, 1.0, 0.0]
        assert not verifier.anomalies


def test_processes_that_a_verifier_forked_end_with_it():
    with pool("hostile:where") as verifier:
        (outcome,) = verified(verifier, [case("")])
    assert processes_of(int(outcome.parts["session"])) == []
    before = children()
    forker = pool()
    verified(forker, [case("fork")])
    forker.close()
    assert children() <= before


def children() -> set[int]:
    """This process's children: some are other tests', such as a control plane, and stay."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_workers_have_sessions_of_their_own_and_no_jax():
    with pool("hostile:where") as verifier:
        (outcome,) = verified(verifier, [case("")])
        assert outcome.parts["session"] == outcome.parts["pid"] != os.getpid()
        assert outcome.parts["jax"] == 0.0


def test_outcomes_come_in_the_order_of_the_cases_whichever_worker_is_first():
    with pool("hostile:slow_first", workers=2, deadline=5.0) as verifier:
        outcomes = verified(verifier, [case("", index=n) for n in range(20)])
        assert [o.score for o in outcomes] == [float(n) for n in range(20)]


def test_a_case_whose_worker_dies_once_gets_its_outcome_from_a_fresh_one(tmp_path: Path):
    with pool("hostile:flaky") as verifier:
        (outcome,) = verified(verifier, [case(str(tmp_path / "mark"))])
        assert (outcome.accuracy, outcome.status, outcome.pure) == (1.0, "ok", True)
        assert not verifier.anomalies


def test_parts_and_an_accuracy_of_the_users_own_are_kept():
    with pool() as verifier:
        (outcome,) = verified(verifier, [case("parts")])
        assert (outcome.accuracy, outcome.score, outcome.parts) == (1.0, 0.5, {"style": 0.25})


def test_a_batch_that_is_abandoned_leaves_the_pool_usable():
    before = children()
    with pool(deadline=60.0) as verifier:
        handle = verifier.submit([case("hang"), case("hang")])
        assert verifier.poll(handle, 3.0) is None
        verifier.abandon(handle)
        assert children() <= before
        assert [o.accuracy for o in verified(verifier, [case("5")])] == [1.0]


def test_nothing_is_started_before_it_is_needed_and_nothing_for_a_verifier_that_runs_inline():
    before = children()
    verifier = pool(workers=4)
    verifier.submit([case("5")])
    assert children() <= before
    inline = VerifierPool(spec("number", "lastNumber").to_json(), workers=4)
    assert [o.accuracy for o in verified(inline, [case("2 + 3 = 5."), case("6")])] == [1.0, 0.0]
    assert children() <= before


@pytest.mark.parametrize(
    ("entrypoint", "message"),
    [
        ("no_such_module:verify", "no_such_module"),
        ("hostile:no_such_function", "no_such_function"),
        ("hostile:os", "is no function"),
    ],
)
def test_a_function_that_does_not_exist_is_said_when_the_pool_starts(entrypoint: str, message: str):
    with pool(entrypoint) as verifier, pytest.raises(ConfigurationInvalid, match=message):
        verified(verifier, [case("5")])


def test_a_function_is_found_in_the_files_of_its_config_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "mine.py").write_text("def verify(case):\n    return len(case.response) == 3\n")
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(tmp_path))
    with pool("mine:verify", configMap="short") as verifier:
        assert [o.accuracy for o in verified(verifier, [case("abc"), case("abcd")])] == [1.0, 0.0]


def test_workers_die_with_the_process_that_started_them():
    script = """
import sys; sys.path[:0] = %r
from cases import case, python_spec
from ratchet_trainer.algorithm.outcome import Outcome
from ratchet_trainer.algorithm.verifiers import python
from ratchet_trainer.algorithm.verifiers.pool import VerifierPool
pool = VerifierPool(python_spec("hostile:verify").to_json(), 1, deadline=600)
handle = pool.submit([case("5"), case("hang")])
pool.poll(handle, 2)
print(pool._seats[0].process.pid, flush=True)
import os, signal; os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script % sys.path], capture_output=True, text=True, timeout=60)
    worker = int(done.stdout)
    for _ in range(100):
        if not processes_of(worker):
            return
        time.sleep(0.05)
    raise AssertionError(f"worker {worker} lives on")


def test_the_example_of_the_docstring_is_a_verifier_in_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = textwrap.dedent((python.__doc__ or "").partition("ConfigMap named short\n")[2].partition("# in the job")[0])
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "short.py").write_text(text)
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(tmp_path))
    assert len(text.strip().splitlines()) <= 10
    with pool("short:verify", configMap="short") as verifier:
        right, wrong = verified(verifier, [case("5"), case("6")])
    assert (right.accuracy, right.score, wrong.accuracy) == (1.0, 1.0 - 1 / 2000, 0.0)
    assert right.parts == {"characters": 1.0}
