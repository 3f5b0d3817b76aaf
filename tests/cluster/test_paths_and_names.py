"""Volumes as folders, paths without mount namespaces, names and addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet_cluster import addresses, paths, sandbox, volumes
from ratchet_cluster.environment import MissingReference

MAPPING = {"/etc/ratchet/job": "/state/job", "/etc": "/state/etc", "/checkpoints": "/state/ck"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/checkpoints", "/state/ck"),
        ("/checkpoints/sums", "/state/ck/sums"),
        ("--dir=/checkpoints/sums", "--dir=/state/ck/sums"),
        ("/checkpoints:/etc/ratchet/job", "/state/ck:/state/job"),
        ("/etc/ratchet/job/job.json", "/state/job/job.json"),
        ("/etc/ratchet/word", "/state/etc/ratchet/word"),
        ("cat '/checkpoints/a b'", "cat '/state/ck/a b'"),
        ("/checkpoints2", "/checkpoints2"),
        ("/other/checkpoints", "/other/checkpoints"),
        ("gs://bucket/checkpoints", "gs://bucket/checkpoints"),
        ("", ""),
    ],
)
def test_paths_are_rewritten_whole_or_not_at_all(text: str, expected: str) -> None:
    assert paths.rewrite(text, MAPPING) == expected


def test_the_environment_carries_the_table() -> None:
    env = paths.rewritten_environment({"DIR": "/checkpoints"}, MAPPING)
    assert env["DIR"] == "/state/ck"
    assert json.loads(env[paths.VARIABLE]) == MAPPING
    assert env["RATCHET_JOB_FILE"] == "/state/job/job.json"
    assert "RATCHET_TERMINATION_LOG" not in env


def test_the_table_lists_deeper_paths_first() -> None:
    mounts = [sandbox.Mount("/1", "/a"), sandbox.Mount("/2", "/a/b")]
    assert list(paths.table(mounts)) == ["/a/b", "/a"]


def gang_member(name: str, subdomain: str | None = "run") -> dict:
    spec = {"hostname": name} | ({"subdomain": subdomain} if subdomain else {})
    return {"metadata": {"name": f"{name}-x7k2p", "namespace": "n", "uid": f"uid-{name}"}, "spec": spec}


def test_a_hosts_file_knows_the_gang_by_the_names_of_cluster_dns() -> None:
    own, peer = gang_member("run-s-0-0"), gang_member("run-s-0-1")
    text = addresses.hosts_file(own, "127.70.1.1", [(own, "127.70.1.1"), (peer, "127.70.1.2")])
    table = {name: line.split()[0] for line in text.splitlines() for name in line.split()[1:]}
    assert table["localhost"] == "127.0.0.1"
    assert table["run-s-0-0"] == table["run-s-0-0.run"] == "127.70.1.1"
    assert table["run-s-0-1.run"] == table["run-s-0-1.run.n.svc.cluster.local"] == "127.70.1.2"
    assert "run-s-0-1" not in table


def test_addresses_are_stable_unique_and_not_reused_at_once() -> None:
    block = addresses.Addresses(70)
    first, second = block.take(gang_member("a")), block.take(gang_member("b"))
    assert first != second
    assert block.take(gang_member("a")) == first
    block.release("uid-a")
    assert block.take(gang_member("c")) not in (first, second)
    assert first.startswith("127.70.")


def test_an_awaited_pod_gets_the_address_that_was_told_to_others() -> None:
    block = addresses.Addresses(70)
    text = addresses.with_addresses("a.run,b.run.n.svc,b.other,a.run2", gang_member("a"), block.of_name)
    told = text.split(",")
    assert told[2:] == ["b.other", "a.run2"]
    assert [block.take(gang_member("a")), block.take(gang_member("b"))] == told[:2]


def test_overwriting_keeps_the_file_that_is_bound_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    addresses.overwrite(file, "a long first text\n")
    with open(file) as held:
        addresses.overwrite(file, "short\n")
        assert held.read() == "short\n"


def test_published_files_change_all_at_once(tmp_path: Path) -> None:
    volumes.publish(tmp_path, {"word": (b"one", 0o644), "sub/key": (b"k", 0o600)})
    assert (tmp_path / "word").read_bytes() == b"one"
    assert (tmp_path / "sub/key").stat().st_mode & 0o777 == 0o600
    volumes.publish(tmp_path, {"word": (b"two", 0o644)})
    assert (tmp_path / "word").read_bytes() == b"two"
    assert sorted(entry.name for entry in tmp_path.iterdir() if not entry.name.startswith("..")) == ["word"]
    assert len([entry for entry in tmp_path.iterdir() if entry.name.startswith("..1")]) == 1


def test_publishing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    volumes.publish(tmp_path, {"word": (b"one", 0o644)})
    before = os.readlink(tmp_path / "..data")
    volumes.publish(tmp_path, {"word": (b"one", 0o644)})
    assert os.readlink(tmp_path / "..data") == before


def test_a_sub_path_cannot_leave_its_volume(tmp_path: Path) -> None:
    pod = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "../x"}]}
    with pytest.raises(MissingReference, match="inside its volume"):
        volumes.mounts(pod, container, {"v": tmp_path}, {})


def test_sub_paths_are_made_and_expanded(tmp_path: Path) -> None:
    pod = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v/", "subPathExpr": "$(NAME)/x", "readOnly": True}]}
    (mount,) = volumes.mounts(pod, container, {"v": tmp_path}, {"NAME": "a"})
    assert mount == sandbox.Mount(str(tmp_path / "a/x"), "/v", read_only=True)
    assert (tmp_path / "a/x").is_dir()


def test_what_a_mount_would_cover_is_brought_back() -> None:
    mounts = [sandbox.Mount("/v", "/tmp"), sandbox.Mount("/w", "/tmp/checkout/data")]
    places = [Path("/tmp/checkout"), Path("/tmpfiles"), Path("/home/me")]
    assert sandbox.kept(mounts, places) == [sandbox.Mount("/tmp/checkout", "/tmp/checkout")]


@pytest.mark.parametrize("way", [sandbox.ROOT, sandbox.USER])
def test_mounts_are_the_process_s_own_and_leave_no_trace_on_the_machine(tmp_path: Path, way: str) -> None:
    if not sandbox.possible(way):
        pytest.skip(f"this machine does not allow it to this user: {way}")
    (tmp_path / "volume").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "hosts").write_text("127.9.9.9 peer\n")
    place = "/ratchet-test-mount-point/deep/data"
    enter = sandbox.entrance(
        way,
        [
            sandbox.Mount(str(tmp_path / "volume"), place),
            sandbox.Mount(str(tmp_path / "volume"), "/ratchet-test-mount-point/fixed", read_only=True),
            sandbox.Mount(str(tmp_path / "hosts"), "/etc/hosts"),
        ],
        tmp_path / "root",
        "pod-0",
        "/",
    )
    script = (
        f"import socket; open({place!r} + '/file', 'w').write('x'); print(socket.gethostname())\n"
        "print(socket.gethostbyname('peer'))\n"
        "try: open('/ratchet-test-mount-point/fixed/no', 'w')\n"
        "except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], preexec_fn=enter, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["pod-0", "127.9.9.9", "Read-only file system"], done.stderr
    assert (tmp_path / "volume/file").read_text() == "x"
    assert not Path("/ratchet-test-mount-point").exists()
