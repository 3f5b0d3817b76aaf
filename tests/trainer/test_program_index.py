"""Programs that are loaded by what they are made of: the right one, or traced anew; and then the same bits."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DAMAGE
from jax._src import compilation_cache
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.checkpoints import jitted, program_key
from ratchet_trainer.checkpoints.program_cache import ProgramCache
from ratchet_trainer.checkpoints.program_index import ProgramIndex
from ratchet_trainer.learning.learner import Rows
from ratchet_trainer.model.architecture import Adapters
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.policy import Policy, Prompts
from ratchet_trainer.model.presets import PRESETS
from ratchet_trainer.process import distributed
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.local import Folder, train

TRAINER = (sys.executable, str(Path(__file__).with_name("counting_traces.py")))
JOB = {"model": {"preset": "tiny"}}
ONE = np.float32(1)


# A start


def run(directory: Path, cache: Path, spec: dict[str, Any], *until: int, processes: int = 1) -> list[Any]:
    """Attempts of one run, each up to a step: what each process of the last one traced, lowered and compiled, and the
    digest of the state at the end."""
    folder, traced = Folder(directory, "swift", RLTrainingJob.model_validate({"spec": spec}), cache), []
    for step in until:
        code, message = train(folder, processes, until_step=step, command=TRAINER)
        assert code == Exit.DONE, message
        traced = [json.loads((folder.local / f"traced-{process}.json").read_text()) for process in range(processes)]
    return [*traced, folder.result()["stateSha256"]]


SUMS = {"task": "chain_sum", "size": 64, "config": {"max_terms": 2, "max_digits": 1}}
SMALL = {"promptsPerStep": 2, "groupSize": 2, "maxPromptTokens": 96, "maxResponseTokens": 4}
RL = {"name": "rl", "rl": {"dataset": "d", "method": "grpo", **SMALL}, "advance": {"steps": 9}}
SFT_SIZES = {"batchSize": 2, "maxPromptTokens": 96, "maxResponseTokens": 4}
SFT = {"name": "sft", "sft": {"dataset": "d", **SFT_SIZES}, "advance": {"steps": 9}}
NOTHING = {"traced": [], "lowered": [], "compiled": []}


def spec_of(stage: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        **JOB,
        "datasets": [{"name": "d", "reasoningGym": SUMS}],
        "stages": [stage],
        "checkpoint": {"directory": "/replaced", "everySteps": 1},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
        **more,
    }


@pytest.mark.parametrize(
    ("spec", "processes"),
    [
        (spec_of(RL), 1),
        (spec_of(SFT, reproducibility={"mode": "Exact", "virtualShards": 2}), 1),
        (spec_of(SFT), 2),
    ],
    ids=["PerTopology", "Exact", "two processes"],
)
def test_the_second_start_traces_nothing_and_no_bit_differs(tmp_path: Path, spec: Any, processes: int) -> None:
    *first, calm = run(tmp_path / "calm", tmp_path / "cache", spec, 2, processes=processes)
    assert all(process["traced"] and process["compiled"] for process in first), "they are counted"
    *second, disturbed = run(tmp_path / "disturbed", tmp_path / "cache", spec, 1, 2, processes=processes)
    assert second == [NOTHING] * processes
    assert disturbed == calm


# An entry


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProgramCache]:
    """JAX's cache in a folder of the test."""
    monkeypatch.setattr(compilation_cache, "get_file_cache", None)
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.reset_cache()
    yield distributed.use_cache(Location.parse(tmp_path / "cache"))
    jitted.use(None)
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of the tests may be parts of programs."""
    monkeypatch.setattr(program_key, "KNOWN", (*program_key.KNOWN, __name__.partition(".")[0]))


TRACED: list[str] = []


def scaled(by: float, x: Any, shift: Any, times: int = 1) -> dict[str, Any]:
    TRACED.append("scaled")
    return {"all": x * by * times + shift, "sum": x.sum()}


def fresh(cache: ProgramCache, surroundings: str = "here", by: float = 2.0, **options: Any) -> jitted.Jitted:
    """The function as a new process has it."""
    jax.clear_caches()
    TRACED.clear()
    jitted.use(ProgramIndex(cache, surroundings))
    return jitted.jit(partial(scaled, by), static_argnames="times", **options)


X = np.arange(4, dtype=np.float32)


def test_a_program_is_traced_once_for_all_processes(cache: ProgramCache, known: None) -> None:
    found = [fresh(cache)(X, ONE, times=3)]
    assert TRACED == ["scaled"]
    again = fresh(cache)
    ahead = again.lower(X, ONE, times=3)
    assert jax.tree.map(lambda leaf: leaf.shape, ahead.out_info) == {"all": (4,), "sum": ()}
    ahead.compile()
    found.append(again(X, ONE, times=3))
    assert TRACED == []
    assert all(np.array_equal(one["all"], 6 * X + 1) and one["sum"] == 6 for one in found)


CALLS: dict[str, Callable[[ProgramCache], Any]] = {
    "another closure": lambda cache: fresh(cache, by=3.0)(X, ONE, times=3),
    "another static argument": lambda cache: fresh(cache)(X, ONE, times=4),
    "other surroundings": lambda cache: fresh(cache, "elsewhere")(X, ONE, times=3),
    "another shape": lambda cache: fresh(cache)(X[:3], ONE, times=3),
    "another number format": lambda cache: fresh(cache)(X.astype(np.int32), ONE, times=3),
    "another shape of another argument": lambda cache: fresh(cache)(X, np.ones(4, np.float32), times=3),
    "an array of a device": lambda cache: fresh(cache)(jax.device_put(X, jax.devices()[0]), ONE, times=3),
    "donation": lambda cache: fresh(cache, donate_argnums=0)(X, ONE, times=3),
    "another place of results": lambda cache: fresh(cache, out_shardings=SingleDeviceSharding(jax.devices()[0]))(
        X, ONE, times=3
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_differs_is_traced(cache: ProgramCache, known: None, call: str) -> None:
    fresh(cache)(X, ONE, times=3)
    CALLS[call](cache)
    assert TRACED, call
    fresh(cache)(X, ONE, times=3)
    assert not TRACED, "what was there is still there"


HARMS: dict[str, Callable[[Path], object]] = {
    **DAMAGE,
    "gone": Path.unlink,
    "of another program": lambda file: file.write_bytes(next(file.parent.glob(f"*other*{file.suffix}")).read_bytes()),
}


def other(x: Any) -> Any:
    return x + 1


@pytest.mark.parametrize("kind", ["index", "program"])
@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_is_traced_and_mended(cache: ProgramCache, known: None, harm: str, kind: str) -> None:
    fresh(cache)(X, ONE, times=3)
    jitted.jit(other)(X)
    (entry,) = cache.folder.local.glob(f"*scaled*.{kind}")
    HARMS[harm](entry)
    assert np.array_equal(fresh(cache)(X, ONE, times=3)["all"], 6 * X + 1)
    assert TRACED
    assert np.array_equal(fresh(cache)(X, ONE, times=3)["all"], 6 * X + 1)
    assert not TRACED, "it was mended"


def test_an_entry_that_stands_under_another_name_is_none(cache: ProgramCache, known: None) -> None:
    """Even where its digest is made to fit."""
    fresh(cache)(X, ONE, times=3)
    fresh(cache)(X, ONE, times=4)
    one, another = (entry.stem for entry in cache.folder.local.glob("*scaled*.index"))
    entries = ProgramCache(cache.folder, "index")
    content = entries.get(one)
    assert content is not None
    entries.put(another, content)
    found = [fresh(cache)(X, ONE, times=times)["all"] for times in (3, 4)]
    assert np.array_equal(found[0], 6 * X + 1)
    assert np.array_equal(found[1], 8 * X + 1)


def calls_python(x: Any) -> Any:
    return jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def test_a_program_that_calls_python_is_not_entered(cache: ProgramCache, known: None) -> None:
    fresh(cache)
    assert np.array_equal(jitted.jit(calls_python)(X), X)
    assert not list(cache.folder.local.glob("*calls_python*.index"))


def test_within_a_trace_under_other_settings_and_for_plain_numbers_nothing_is_loaded(
    cache: ProgramCache, known: None
) -> None:
    function = fresh(cache)
    assert jax.eval_shape(partial(function, times=3), X, ONE)["all"].shape == (4,)
    with jax.default_matmul_precision("highest"):
        function(X, ONE, times=3)
    function(X, 1.0, times=3)
    assert not list(cache.folder.local.glob("*.index"))


def test_shapes_are_remembered(cache: ProgramCache, known: None) -> None:
    def told() -> Any:
        fresh(cache)
        return jitted.shapes_of(partial(scaled, 2.0), X, ONE)

    assert told()["all"] == jax.ShapeDtypeStruct((4,), np.float32)
    assert TRACED
    assert told()["all"] == jax.ShapeDtypeStruct((4,), np.float32)
    assert not TRACED


def test_donated_arrays_are_used_up_by_a_loaded_program(cache: ProgramCache, known: None) -> None:
    for _ in range(2):
        function, given = fresh(cache, donate_argnums=0), jax.device_put(X, jax.devices()[0])
        found = function(given, ONE, times=1)
        assert np.array_equal(found["all"], 2 * X + 1)
        assert given.is_deleted()


# A key


POLICY = Policy(PRESETS["tiny"])
MESH = distributed.mesh()


def policy(**changes: Any) -> Policy:
    return Policy(dataclasses.replace(PRESETS["tiny"], **changes))


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "an architecture": (POLICY, policy(layers=PRESETS["tiny"].layers[:1])),
    "adapters": (POLICY, policy(adapters=Adapters(("q_proj",), 4, 1.0))),
    "a number format": (POLICY, Policy(PRESETS["tiny"], Computation("bfloat16"))),
    "activation checkpointing": (POLICY, Policy(PRESETS["tiny"], Computation(recompute=True))),
    "ends": ((0, 1), (0, 2)),
    "a number and a truth": (1, True),
    "a number and a text": (1, "1"),
    "floats": (0.1, np.nextafter(0.1, 1)),
    "an argument given": (partial(scaled, 1.0), partial(scaled, 2.0)),
    "a place": (NamedSharding(MESH, PartitionSpec()), NamedSharding(MESH, PartitionSpec("data"))),
    "trees": (
        jax.tree.structure(Rows(Prompts(X, X, X), X, X)),  # type: ignore[arg-type]
        jax.tree.structure((Prompts(X, X, X), X, X)),  # type: ignore[arg-type]
    ),
    "arrays": (X, X + 1),
    "functions on one line": ((lambda x: x + 1, lambda x: x + 2)),
    "constants of code": ((lambda x: x[..., 0], lambda x: x[..., 1])),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_is_different_has_another_description(known: None, what: str) -> None:
    one, another = DIFFERENT[what]
    assert program_key.digest(one) == program_key.digest(one)
    assert program_key.digest(one) != program_key.digest(another)


def test_equal_things_that_were_made_twice_have_one_description(known: None) -> None:
    made = [(policy(), {"a": 1, "b": (2.0, None)}, distributed.mesh(), lambda: POLICY) for _ in range(2)]
    assert program_key.digest(made[0]) == program_key.digest(made[1])


def test_what_is_unknown_has_no_description() -> None:
    class Own:
        pass

    for unknown in (Own(), scaled, jnp.add, object(), np.array([None]), iter(())):
        with pytest.raises(program_key.Indescribable):
            program_key.digest(unknown)


def swapped(name: str, make: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Changes what a function of `program_key` says."""

    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(program_key, name)
        monkeypatch.setattr(program_key, name, functools.wraps(real)(lambda *given: make(real(*given))))

    return change


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "sources": swapped("sources", lambda found: found + "0"),
    "a version": swapped("_version", lambda found: found + ".1"),
    "the processor": swapped("_cpu", lambda found: [*found, "flags : more"]),
    "a device": swapped("_device", lambda found: [*found, "another"]),
    "Python": lambda monkeypatch: monkeypatch.setattr(program_key.platform, "python_version", lambda: "3.0.0"),
    "XLA_FLAGS": lambda monkeypatch: monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true"),
    "LIBTPU_INIT_ARGS": lambda monkeypatch: monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_something=1"),
    "a variable of JAX": lambda monkeypatch: monkeypatch.setenv("JAX_ANYTHING", "1"),
    "threads": lambda monkeypatch: monkeypatch.setenv("NPROC", "77"),
    "processors": lambda monkeypatch: monkeypatch.setattr(program_key.os, "sched_getaffinity", lambda _: range(99)),
    "processes": lambda monkeypatch: monkeypatch.setattr(jax, "process_count", lambda: 7),
    "the process": lambda monkeypatch: monkeypatch.setattr(jax, "process_index", lambda: 7),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_surroundings_have_another_digest(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    before = program_key.surroundings(JOB)
    assert program_key.surroundings(dict(JOB)) == before
    CHANGES[what](monkeypatch)
    assert program_key.surroundings(JOB) != before


def test_settings_of_jax_and_the_job_are_part_of_the_surroundings(cache: ProgramCache) -> None:
    before = program_key.surroundings(JOB)
    assert program_key.surroundings({"model": {"preset": "small"}}) != before
    precision = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        assert program_key.surroundings(JOB) != before
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
    jax.config.update("jax_compilation_cache_dir", str(cache.folder / "another"))
    assert program_key.surroundings(JOB) == before, "where programs are kept shapes none"


def test_sources_are_every_byte_and_every_name(tmp_path: Path) -> None:
    with pytest.raises(program_key.Indescribable):
        program_key.sources(tmp_path)
    file = tmp_path / "a" / "b.py"
    file.parent.mkdir()
    found = []
    for content in ("x = 1", "x = 2"):
        file.write_text(content)
        found.append(program_key.sources(tmp_path))
    found.append(program_key.sources(file.rename(tmp_path / "a" / "c.py").parents[1]))
    assert len({*found}) == 3
