"""Real parts that many tests share: one control plane for the whole run, and the same with node agents."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from ratchet_api.crd import crd_yaml
from ratchet_cluster.cluster import Cluster

CHEAP_PROGRAMS = "--xla_backend_optimization_level=0"
"""Tests compile much and compute little, so XLA may leave its programs slow. End-to-end proofs of modes and buckets,
the demo and the real model run with the flags of the product."""
os.environ.setdefault("XLA_FLAGS", f"--xla_cpu_enable_fast_math=false {CHEAP_PROGRAMS}")  # JAX is not imported yet

settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # other tests run beside it: how long drawing takes says nothing

_numbers = itertools.count(1)

CLUSTER = {"plane", "api_server", "cluster", "namespace"}
"""Fixtures that start a control plane."""
SLOW = {
    # folders and files of tests that train, compile or start processes: not in `make test-fast`
    *("cluster", "chart", "end_to_end", "storage"),
    *(
        "test_commands.py",
        "test_python_package.py",
        "test_trackers.py",
        "test_examples.py",
        "test_model.py",
        "test_fetch.py",
        "test_real_model.py",
        "test_contributing.py",
    ),
    "test_begin_again.py",
    *("test_fleet_board.py", "test_fleet_versions.py", "test_fleet_schedules.py", "test_fleet_requests.py"),
    "test_fleet_storage_faults.py",
    *("test_leaving.py", "test_pending.py", "test_pending_processes.py", "test_proof.py", "test_parallelism.py"),
    *("test_methods.py", "test_run_resumes.py", "test_start_weights.py", "test_evaluations.py", "test_evaluation.py"),
    *(
        "test_frame.py",
        "test_approvals.py",
        "test_artifacts.py",
        "test_lora.py",
        "test_huggingface.py",
        "test_paths.py",
    ),
    *("test_refill.py", "test_sampling_options.py", "test_sampling_keys.py", "test_small_vocabulary.py"),
    *("test_dtype_probe.py", "test_decoder.py", "test_layout.py", "test_damaged_directories.py", "test_fast_tier.py"),
    *("test_code.py", "test_pool.py", "test_reasoning_gym_tasks.py", "test_http.py", "test_rollout_journal.py"),
    *(
        "test_checkpoints.py",
        "test_damaged_steps.py",
        "test_progress.py",
        "test_availability.py",
        "test_train_words.py",
    ),
    *("test_huggingface_tokenizer.py", "test_preflight.py", "test_program_cache.py", "test_drawing.py"),
    "test_program_index.py",
    *("test_selection_runs.py", "test_selection_restarts.py", "test_fit.py", "test_fit_command.py"),
    *("test_fleet_runs.py", "test_fleet_twelve.py"),
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test-fast` leaves out, so that one list says it; and what one worker of `make test` runs: all
    tests of the one control plane, and each file, whose fixtures are its own."""
    for item in items:
        needs_plane = bool(CLUSTER & set(getattr(item, "fixturenames", ())))
        if needs_plane or {item.path.name, item.path.parent.name} & SLOW:
            item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.xdist_group("plane" if needs_plane else item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running control plane (API server, controllers, scheduler, JobSet), without nodes unless `cluster` is used too.

    `plane.kubeconfig` is a path, `plane.env()` what a child process needs, `plane.kubectl(...)` and `plane.helm(...)`
    return text. All tests share it: work in a namespace of your own (fixture `namespace`).
    """
    one = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield one.up(nodes=False, replace_after=3, owner=os.getpid())
    finally:
        one.down(purge=True)


@pytest.fixture(scope="session")
def api_server(plane: Cluster) -> Cluster:
    """`plane`, knowing RLTrainingJob."""
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=crd_yaml())
    established = ("-o", 'jsonpath={.status.conditions[?(@.type=="Established")].status}')
    deadline = time.monotonic() + 60
    # `kubectl wait` fails where the definition has no conditions yet, which is so for a moment.
    while plane.kubectl("get", "crd", "rltrainingjobs.ratchet.dev", *established, check=False) != "True":
        assert time.monotonic() < deadline, "the CRD is not established"
        time.sleep(0.05)
    return plane


@pytest.fixture(scope="session")
def cluster(plane: Cluster) -> Cluster:
    """`plane` with node agents: spot pools `pool-a` and `pool-b` of two TPU hosts each, and the system node."""
    return plane.up()


@pytest.fixture
def flags_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts compile as the product does."""
    monkeypatch.delenv("XLA_FLAGS")


@pytest.fixture
def namespace(plane: Cluster) -> Iterator[str]:
    """A fresh namespace, deleted afterwards."""
    name = f"test-{next(_numbers)}"
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")
