"""The parts of the demo that decide something: when to disturb, how a stream of JSON is cut, how a curve is drawn."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import yaml

from ratchet_api import protocol
from ratchet_api.job import parse_spec
from ratchet_cli.curve_drawing import draw
from ratchet_cli.demo import proof
from ratchet_cli.demo.disturbances import certain_steps, schedule
from ratchet_cli.demo.watch import Leader, documents
from ratchet_cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spec():
    return parse_spec(yaml.safe_load((ROOT / "examples/sums.yaml").read_text())["spec"])


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("seed", [1, 11, 99])
def test_disturbances_alternate_and_strike_in_rl_stages_that_are_sure_to_run(spec, count, seed):
    found = schedule(spec, count, seed)
    first_rl = sum(certain_steps(stage) for stage in spec.stages if stage.sft)
    last = sum(certain_steps(stage) for stage in spec.stages)
    assert [d.kind for d in found] == ["graceful", "abrupt", "graceful", "abrupt"][:count]
    assert [d.during for d in found][:1] == ["generate"][:count]
    steps = [d.step for d in found]
    assert steps == sorted(set(steps))
    assert all(first_rl < step < last for step in steps)


def test_a_curate_stage_is_as_long_as_its_data_which_nobody_knows(spec):
    curate = parse_spec(
        spec.manifest()
        | {
            "stages": [
                {"name": "look", "curate": {"dataset": spec.stages[1].dataset_names[0]}},
                *spec.manifest()["stages"],
            ]
        }
    )
    assert schedule(curate, 4, 1)[-1].step <= 1 + sum(certain_steps(stage) for stage in spec.stages)


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another(spec):
    assert schedule(spec, 4, 3) == schedule(spec, 4, 3) != schedule(spec, 4, 4)


def test_a_stream_of_indented_objects_is_cut_at_their_ends():
    text = '{\n  "a": {\n    "b": 1\n  }\n}\n{\n  "a": 2\n}\n{\n  "unfinished'
    assert list(documents(iter(text.splitlines(keepends=True)))) == [{"a": {"b": 1}}, {"a": 2}]


def test_a_curve_rises_from_left_to_right_and_carries_its_marks():
    lines = draw([(step, step / 100) for step in range(1, 101)], [(50, "▲")], width=50, height=4).splitlines()
    assert lines[0].startswith("1.00 │")
    assert lines[0].endswith("█")
    assert lines[3].count("█") > lines[0].count("█")
    assert lines[5].index("▲") == 6 + 24
    assert lines[-1].startswith("      step 1")
    assert lines[-1].endswith("step 100")


def test_a_curve_of_one_point_and_of_none_can_be_drawn():
    assert "1.00" in draw([(5, 0.5)])
    assert draw([]) == "(no points)"


def test_a_leader_that_dies_in_the_middle_of_an_answer_has_said_nothing() -> None:
    """As the demo meets it when a node is taken away: a length is promised and the connection ends before it."""
    address = "127.0.0.98"
    with socket.create_server((address, protocol.PORT)) as server:

        def answer_half() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 583\r\n\r\n{"attempt": 1')

        thread = threading.Thread(target=answer_half, daemon=True)
        thread.start()
        leader = Leader(Cluster(Path("nowhere")), "default", "sums")
        leader._address = (1, address)
        assert leader.progress(1) is None
        thread.join(timeout=10)


def test_of_the_undisturbed_run_the_step_and_the_weights_are_said(tmp_path: Path) -> None:
    """Whatever else `ratchet train` has to say after them."""
    manifest = yaml.safe_load((ROOT / "examples/minimal.yaml").read_text())
    manifest["spec"]["stages"] = manifest["spec"]["stages"][1:]
    manifest["spec"]["stages"][0]["advance"] = {"steps": 1}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(manifest))
    said: list[str] = []
    found = proof.undisturbed(tmp_path / "job.yaml", tmp_path / "run", tmp_path / "cache", said.append)
    assert said == [f"  step 1, stage reason, weights {found['weightsSha256']}"]
