"""What must hold with a fleet, whatever is lost, late, damaged or odd: nothing wrong is trained on, nothing is lost."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fleet_calls import Clock
from fleet_turns import PATIENCE, STEPS, WARM, Killed, Turns, ended, plain_job, quick
from serving import served

from ratchet_api.job import parse_spec
from ratchet_api.protocol import Exit
from ratchet_trainer import storage
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.objective.aggregation import token_weights
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.objective.policy_gradient import PolicyGradient
from ratchet_trainer.algorithm.slots import Micro
from ratchet_trainer.checkpoints.journal import Journal
from ratchet_trainer.errors import CallPoisoned, Drain, Fenced
from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.leases import MOST_ERRORS, MOST_SILENCES
from ratchet_trainer.storage import Location

LAGS = (0, 1, 2)
Make = Callable[..., Turns]
Calm = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    with quick():
        yield


@pytest.fixture
def turns(tmp_path: Path) -> Make:
    """A job that has not begun."""
    numbers = itertools.count()

    def make(**settings: Any) -> Turns:
        place = tmp_path / f"run-{next(numbers)}"
        place.mkdir()
        return Turns(Location.parse(place / "checkpoints"), plain_job(**settings), place)

    return make


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """What the undisturbed run with one worker comes to."""
    known: dict[str, dict[str, Any]] = {}

    def run(**settings: Any) -> dict[str, Any]:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            place = tmp_path_factory.mktemp("calm")
            with quick():
                known[key] = Turns(Location.parse(place / "checkpoints"), plain_job(**settings), place).to_the_end(1)
        return known[key]

    return run


# 3. Objects of `fleet/` that vanish


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("fleet", [True, False])
def test_3_whatever_is_deleted_below_fleet_is_made_again(turns: Make, calm: Calm, lag: int, fleet: bool) -> None:
    run, rng, gone = turns(lag=lag, fleet=fleet), random.Random(lag), []

    def lose(calls: list[Call]) -> None:
        run.answer_all(calls)
        there = storage.tree(run.directory / "fleet")
        for name in rng.sample(there, min(len(there), 3)) if len(gone) < 60 else []:
            storage.delete(run.directory / "fleet" / name)
            gone.append(name)

    run.serve = lose
    run.points["published"] = lambda trainer: lose([])
    assert run.to_the_end() == calm(lag=lag)
    if fleet or lag:
        kinds = {name.split("/")[1] for name in gone}
        assert "versions" in kinds
        assert any(name.rpartition("/")[2].startswith("result-") for name in gone)


# 10. What is corrupt, and answers that differ


def flip(place: Location) -> None:
    data = bytearray(storage.read(place) or b"")
    data[len(data) // 2] ^= 1
    storage.write(place, bytes(data))


def test_10_a_corrupt_result_is_asked_for_again(turns: Make, calm: Calm) -> None:
    run, harmed = turns(lag=1), []

    def serve(calls: list[Call]) -> None:
        run.answer_all(calls)
        if calls and not harmed:
            harmed.append(calls[-1].folder)
            flip(run.board.folder / harmed[0] / "result-0")

    run.serve = serve
    assert run.to_the_end(1) == calm(lag=1)
    assert {folder: n for folder, n in run.times.items() if n != 1} == {harmed[0]: 2}


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("ahead", [True, False])
def test_10_a_corrupt_version_is_published_again(turns: Make, calm: Calm, lag: int, ahead: bool) -> None:
    """By the trainer that has it, or by one that begins at a commit before it."""
    run, harmed = turns(lag=lag), []
    run.serve = run.answer_all if ahead else run.answer_oldest

    def harm(trainer: Any) -> None:
        if trainer.step == WARM + 1 and not harmed:
            versions = run.board.folder / "versions"
            harmed.extend(set(storage.names(versions)) - before)
            for name in storage.tree(versions / harmed[0]):
                if name.startswith("data-"):
                    flip(versions / harmed[0] / name)
        before.update(storage.names(run.board.folder / "versions"))

    before: set[str] = set()
    run.points["published"] = harm
    assert run.to_the_end() == calm(lag=lag)
    assert len(harmed) == 1
    assert set(run.times.values()) == {1}
    assert (run.attempts > 1) == (lag > 0), "who still has the weights need not begin again"


def test_10_without_a_fleet_a_corrupt_version_is_made_again(turns: Make, calm: Calm) -> None:
    run, harmed = turns(lag=2, fleet=False), []

    def harm(trainer: Any) -> None:
        if trainer.step == WARM + 2 and not harmed:
            fleet = run.board.folder
            for name in storage.tree(fleet):
                if "/result-" in name:
                    storage.delete(fleet / name)
                elif "/data-" in name:
                    flip(fleet / name)
            harmed.append(trainer.step)
            raise Killed

    run.points["published"] = harm
    assert run.to_the_end() == calm(lag=2)
    assert harmed


def test_10_of_unequal_answers_the_first_counts_and_the_run_says_so(turns: Make, calm: Calm) -> None:
    run, odd = turns(lag=1), []

    def serve(calls: list[Call]) -> None:
        run.answer_all(calls)
        if calls and not odd:
            right = run.board.collect(calls)[calls[0].folder]
            entropy = right.arrays["entropy"] + 1
            other = replace(right, worker="another", arrays={**right.arrays, "entropy": entropy})
            assert not run.board.put(calls[0], other)
            odd.append(calls[0].step)

    run.serve = serve
    assert run.to_the_end(1) == calm(lag=1)
    (found,) = run.board.unequal()
    assert found.workers[1] == "another"
    since = run.trainer.progress.document["exactSince"]
    assert since is not None
    assert since["step"] >= odd[0] - 1
    assert "another" in since["reason"]


# 4. The newest commit is corrupt


@pytest.mark.parametrize("lag", LAGS)
def test_4_with_a_corrupt_newest_commit_the_one_before_it_is_enough(turns: Make, calm: Calm, lag: int) -> None:
    run = turns(lag=lag, keep=2)
    run.serve = run.answer_oldest  # so that what is ahead needs its weights after the restart
    run.points["await"] = lambda trainer: killed_if(trainer.step == WARM + 4)
    run.killed()
    run.points.clear()
    journal = Journal(run.directory)
    journal.read()
    newest = journal.candidates()[0]
    assert newest.step == WARM + 4
    arrays = run.directory / newest.path / "arrays"
    flip(arrays / max(storage.tree(arrays), key=lambda name: len(storage.read(arrays / name) or b"")))
    assert run.to_the_end(1) == calm(lag=lag, keep=2)
    assert run.trainer.progress.document["startStep"] == WARM + 3
    assert set(run.times.values()) == {1}, "what was sampled is sampled"


def killed_if(so: bool) -> None:
    if so:
        raise Killed


# 5. Commits are rare


@pytest.mark.parametrize("lag", LAGS)
def test_5_steps_since_the_last_commit_are_made_again_but_not_sampled_again(turns: Make, calm: Calm, lag: int) -> None:
    run = turns(lag=lag, every=5)
    run.points["await"] = lambda trainer: killed_if(trainer.step == WARM + 4)
    run.killed()
    run.points.clear()
    assert run.to_the_end(1) == calm(lag=lag, every=5) == calm(lag=lag)
    assert run.trainer.progress.document["startStep"] == WARM
    assert len(run.times) == 4 * STEPS
    assert set(run.times.values()) == {1}


# 8. A rule ends a stage while later steps of it are sampled

ENDS = {"minSteps": 3, "when": [{"metric": "unsolved", "atMost": "1", "window": 1}]}


@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("moment", ["published", "finish", "committed"])
def test_8_what_a_stage_planned_beyond_its_end_is_dropped(
    turns: Make, calm: Calm, lag: int, ahead: bool, moment: str
) -> None:
    settings = {"lag": lag, "advance": ENDS, "then": True}
    run = turns(**settings)
    run.serve = run.answer_all if ahead else run.answer_oldest
    reached = (lambda t: t.step + 1) if moment == "published" else (lambda t: t.commits)
    run.points[moment] = lambda trainer: killed_if(reached(trainer) == WARM + 3)
    run.killed()
    run.points.clear()
    assert run.to_the_end(1) == calm(**settings)
    assert ended(run.directory)["step"] == WARM + 3 + 3
    dropped = [folder for folder in run.times if folder.startswith("1-") and int(folder.split("/")[0][2:]) > WARM + 3]
    assert bool(dropped) == ahead, "nobody samples what was dropped"
    first = [call for call in run.calls if call.stage == 2]
    planned = {o for call in run.calls if call.stage == 1 for o in call.ordinals}
    assert min(o for call in first for o in call.ordinals) == 8 * (3 + lag) > max(planned), "their ordinals stay spent"


def test_8_dropped_calls_are_withdrawn(turns: Make) -> None:
    run = turns(lag=2, advance=ENDS)
    run.serve = run.answer_oldest
    run.to_the_end(1)
    assert run.waiting() == []
    left = [name for name in storage.tree(run.board.folder) if name.startswith(f"1-{WARM + 4}/")]
    assert left == []


# 1. DAPO: a late result


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("commit", ["before", "after"])
def test_1_a_result_that_comes_after_all_of_the_next_step_changes_nothing(
    turns: Make, calm: Calm, commit: str, kill: bool
) -> None:
    """`commit`: whether the late result comes before or after the commit of the step before it."""
    settings = {"lag": 1, "method": "dapo"}
    run, late, arrived = turns(**settings), [], threading.Event()
    slow = WARM + 3

    def serve(calls: list[Call]) -> None:
        first = [call for call in calls if call.step == slow and call.round == 1]
        if not first or late:
            run.answer_all(calls)
            return
        run.answer_all([call for call in calls if call != first[0]])
        if not any(folder.startswith(f"1-{slow + 1}/1-") for folder in run.times):
            return  # its turn has not come
        if commit == "after":
            run.trainer.wait_for_commits()
        late.append(first[0].folder)
        run.answer_all(first[:1])
        arrived.set()
        killed_if(kill)

    def finish(trainer: Any) -> None:
        if commit == "before" and trainer.commits == slow - 1:
            assert arrived.wait(60)

    run.serve, run.points["finish"] = serve, finish
    assert run.to_the_end() == calm(**settings)
    assert late
    assert run.attempts == 1 + kill
    assert any("/2-" in folder for folder in run.times), "further prompts were drawn"
    assert set(run.times.values()) == {1}


# 9. A frozen trainer


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("moment", ["await", "update-0", "published", "finish", "committed"])
def test_9_a_trainer_that_thaws_after_its_heir_committed_deletes_nothing(
    turns: Make, calm: Calm, lag: int, moment: str
) -> None:
    settings = {"lag": lag, "keep": 1}
    run = turns(**settings)
    heir = Turns(run.directory, run.plain, run.logs)
    heir.attempts, heir.serve = 10, heir.answer_oldest
    heir.points["await"] = lambda trainer: killed_if(trainer.step == WARM + 4)
    there: list[str] = []

    def freeze(trainer: Any) -> None:
        step = trainer.commits if moment in ("finish", "committed") else trainer.step
        if step == WARM + 2 and not there:
            heir.killed()
            there.extend(storage.tree(run.directory / "fleet"))

    run.points[moment] = freeze
    with pytest.raises(Fenced):
        run.run()
    assert there
    gone = set(there) - set(storage.tree(run.directory / "fleet"))
    if moment != "committed":  # there its own entry came before its heir
        assert {name for name in gone if not name.endswith("/lease")} == set()
    heir.points.clear()
    assert heir.to_the_end(1) == calm(**settings)
    if moment != "await":  # it has calls sampled whose results are no longer kept
        assert set((run.times + heir.times).values()) == {1}


# 6. Killed between two updates


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("notice", [True, False])
def test_6_a_step_that_is_left_between_two_updates_goes_on(turns: Make, calm: Calm, lag: int, notice: bool) -> None:
    settings = {"lag": lag, "keep": 1, "updatesPerStep": 2}
    run = turns(**settings)

    def leave(trainer: Any) -> None:
        if trainer.step == WARM + 2:
            killed_if(not notice)
            trainer._watchdog.requested, trainer._watchdog.grace = True, 0.0

    run.points["update-1"] = leave
    with pytest.raises(Drain if notice else Killed):
        run.run()
    journal = Journal(run.directory)
    journal.read()
    assert journal.candidates()[0].path.endswith("-u1") == notice
    run.points.clear()
    assert run.to_the_end(1) == calm(**settings)
    assert set(run.times.values()) == {1}


# 11. A call that ends whoever takes it, and a clock that is off


@pytest.mark.parametrize(("most", "says_so"), [(MOST_ERRORS, True), (MOST_SILENCES, False)])
def test_11_a_call_that_ends_its_workers_ends_the_job_and_is_named(turns: Make, most: int, says_so: bool) -> None:
    run, victim = turns(lag=1), []

    def serve(calls: list[Call]) -> None:
        if calls and not victim:
            victim.append(calls[0])
        run.answer_all([call for call in calls if call not in victim])
        for board in hurt:
            lease = board.take(victim[0])
            if lease and says_so:
                lease.end(failed=True)
            clock.now += PATIENCE  # else it is never heard of again

    clock = Clock()
    hurt = [Board(run.directory, 1, f"w{number}", PATIENCE, clock) for number in range(most + 1)]
    run.serve = serve
    with pytest.raises(CallPoisoned, match="worker after worker") as caught:
        run.run()
    assert victim[0].folder in str(caught.value)
    assert caught.value.exit == Exit.DETERMINISTIC_FAILURE
    assert victim[0].folder not in run.times
    storage.delete_tree(run.board.folder / victim[0].folder)
    run.serve = run.answer_all
    assert run.to_the_end(1)["step"] == WARM + STEPS, "as the message says, it can be tried again"


@pytest.mark.parametrize("off", [3600.0, -3600.0])
def test_11_a_workers_clock_that_is_off_by_an_hour_changes_nothing(
    turns: Make, calm: Calm, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    run, right, taken = turns(lag=1), time.time, set[str]()
    monkeypatch.setattr(time, "time", lambda: right() + off * (len(run.times) % 2))
    other = Board(run.directory, 1, "slow", clock=lambda: time.monotonic() + off)

    def serve(calls: list[Call]) -> None:
        for call in calls:
            if call.number == 0 and call.folder not in taken:
                taken.add(call.folder)
                assert other.take(call) is not None
                assert not run.worker().answer(call), "its lease is new, whatever its clock says"
            else:
                run.worker().answer(call)  # once the other has been silent for long

    run.serve = serve
    assert run.to_the_end(1) == calm(lag=1)


# 7. Another topology


@pytest.mark.parametrize("moves", [True, False])
def test_7_results_of_another_topology_are_not_used(turns: Make, calm: Calm, moves: bool) -> None:
    """What an attempt without a fleet sampled ahead, between the weights of a step and its commit, is changed; the next
    attempt may believe it where it is of the same machine."""
    run, changed = turns(lag=1, fleet=False), []
    run.points["published"] = lambda trainer: killed_if(trainer.step == WARM + 2)
    run.killed()
    run.points.clear()
    for name in storage.tree(run.board.folder):
        folder, _, last = name.rpartition("/")
        if last == "result-0" and int(folder.split("/")[0][2:]) > WARM + 3:
            call = Call.from_bytes(storage.read(run.board.folder / folder / "call"), folder)
            found = run.board.collect([call])[folder]
            other = replace(found, arrays={**found.arrays, "entropy": found.arrays["entropy"] + 1})
            storage.write(run.board.folder / name, results.encode(other))
            changed.append(folder)
    run.topology = {"device": "another"} if moves else {}
    found = run.to_the_end(1)
    assert changed
    assert (found["stream"] == calm(lag=1)["stream"]) == moves
    assert (run.trainer.progress.document["exactSince"] is not None) == moves


# 2. Call sizes


@pytest.mark.parametrize("per_call", [2, 8])
def test_2_without_lag_a_fleet_changes_no_bit_in_calls_of_any_size(calm: Calm, per_call: int) -> None:
    """Calls of 16 and of 64 rows are programs whose sums go another way, so a worker that made them in one shape would
    be found out."""
    assert calm(per_call=per_call) == calm(per_call=per_call, fleet=False)
    assert calm(per_call=2)["metrics"] != calm(per_call=8)["metrics"]


# 12. Verifiers that another run might not repeat, and gradients


class Judge(BaseHTTPRequestHandler):
    """Says something else each time."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Judge.asked.append((asked["question"], asked["response"]))
        data = json.dumps({"score": len(Judge.asked) % 7 / 7}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize("lag", LAGS)
def test_12_an_impure_verifier_is_asked_once_a_response_whatever_is_made_again(turns: Make, lag: int) -> None:
    """Killed long after the last commit, and once more with the newest commit corrupt: what it said is kept."""
    with served(Judge) as url:
        Judge.asked.clear()
        judge = {"verifier": "http", "http": {"url": f"{url}/score"}}
        run = turns(lag=lag, every=3, steps=5, promptsPerStep=4, groupSize=4, dataset=judge)
        for last in (WARM + 2, WARM + 4):
            run.points["published"] = lambda trainer, last=last: killed_if(trainer.step == last)
            run.killed()
        run.points.clear()
        journal = Journal(run.directory)
        journal.read()
        arrays = run.directory / journal.candidates()[0].path / "arrays"
        flip(arrays / max(storage.tree(arrays), key=lambda name: len(storage.read(arrays / name) or b"")))
        run.to_the_end(1)
        assert run.trainer.progress.document["startStep"] == WARM
    assert set(run.times.values()) == {1}
    assert len(Judge.asked) == len(set(Judge.asked)) > 4 * 5


SURROGATES = ("ppo", "gspo", "cispo")
LOW, HIGH, CAP = 0.2, 0.28, 1.5


def loss64(surrogate: str, x: np.ndarray, at: np.ndarray, old: np.ndarray, rows: dict[str, np.ndarray]) -> float:
    """The loss at log-probabilities x, float64; what carries no gradient is as it is at `at`."""
    real, behaviour, advantages, weight = (rows[name] for name in ("real", "behaviour", "advantages", "weight"))
    length = real.sum(1, keepdims=True)
    mean = lambda values: (values * real).sum(1, keepdims=True) / length  # noqa: E731

    def clipped(ratio: np.ndarray) -> np.ndarray:
        return np.minimum(ratio * advantages, np.clip(ratio, 1 - LOW, 1 + HIGH) * advantages)

    if surrogate == "ppo":
        gain = np.minimum(CAP, np.exp(old - behaviour)) * clipped(np.exp(x - old))
    elif surrogate == "gspo":
        gain = np.minimum(CAP, np.exp(mean(old - behaviour))) * clipped(np.exp(mean(x - old)))
    else:
        gain = np.clip(np.exp(at - behaviour), 1 - LOW, 1 + HIGH) * advantages * x
    return float(-(weight * gain * real).sum())


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("updates", [1, 4])
def test_12_gradients_of_stale_rows_are_those_of_float64(surrogate: str, updates: int) -> None:
    rng, lengths, slots = np.random.default_rng(updates), np.array([1, 3, 5, 8, 8, 2]), 8
    real = np.arange(slots) < lengths[:, None]
    behaviour = -rng.uniform(0.1, 2.0, real.shape)
    rows = {
        "real": real.astype(float),
        "behaviour": behaviour,
        "advantages": np.repeat(rng.standard_normal((6, 1)), slots, 1),
        "weight": token_weights("seq-mean-token-mean", lengths, slots, slots),
    }
    old = behaviour + rng.normal(0.1, 0.3, real.shape)  # the weights that the step begins with are not those
    objective = PolicyGradient(
        surrogate, "seq-mean-token-mean", slots, LOW, HIGH, Kl.of("k3", 0.0, None), importance_cap=CAP, behind=True
    )
    settings = {name: jnp.float32(value) for name, value in objective.settings().items()}
    x = old
    for update in range(updates):
        told = {
            "old": None if updates == 1 else old, "reference": None, **rows,
        }  # fmt: skip
        micro = Micro(**{
            name: value if value is None else jnp.asarray(value, bool if name == "real" else jnp.float32)[:, None]
            for name, value in told.items()
        })  # fmt: skip
        entropy = jnp.zeros(real.shape)[:, None]
        loss = lambda at, micro=micro, entropy=entropy: objective.loss(at, entropy, micro, settings)[0]  # noqa: E731
        found = np.asarray(jax.grad(loss)(jnp.asarray(x, jnp.float32)[:, None]))[:, 0]
        expected = np.zeros(real.shape)
        for place in zip(*np.nonzero(real), strict=True):
            up, down = x.copy(), x.copy()
            up[place] += 1e-6
            down[place] -= 1e-6
            expected[place] = (loss64(surrogate, up, x, old, rows) - loss64(surrogate, down, x, old, rows)) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6, err_msg=f"update {update}")
        assert np.abs(expected).max() > 1e-3
        x = x - 0.5 * expected + rng.normal(0, 0.1, real.shape)


@pytest.mark.parametrize("lag", LAGS)
def test_12_a_stage_with_lag_makes_good_for_its_staleness(lag: int) -> None:
    spec = parse_spec(plain_job(lag=lag) | {"checkpoint": {"directory": "/checkpoints"}})
    objective = resolve(spec.stages[1].rl).objective
    assert objective.behind == (lag > 0)
    assert (objective.importance_cap is not None) >= (lag > 0)
