"""Two releases in one cluster: side by side in namespaces of their own, refused on the same jobs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rendering import CHART, VALUE_SETS

from ratchet_cluster.cluster import Cluster

NO_PODS = ("--set", "replicaCount=0", "--set", "crds.install=false")
DEFINITION = "rltrainingjobs.ratchet.dev"


class Desk:
    """helm on the shared control plane, in namespaces of the test's own."""

    def __init__(self, cluster: Cluster, namespace: str):
        self.cluster, self.namespace = cluster, namespace
        self.places: list[str] = []

    def place(self, name: str) -> str:
        """A namespace of its own."""
        full = f"{self.namespace}-{name}"
        self.cluster.kubectl("create", "namespace", full)
        self.places.append(full)
        return full

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.cluster.bin / "helm", *arguments], capture_output=True, text=True,
            env={**os.environ, **self.cluster.env(), **env},
        )  # fmt: skip

    def install(self, release: str, place: str, *watched: str, flags: tuple[str, ...] = NO_PODS, **env: str):
        scope = ("--set", f"watchNamespaces={{{','.join(watched)}}}") if watched else ()
        return self.run("install", release, str(CHART), "--namespace", place, *scope, *flags, **env)

    def refused(self, *arguments, **options) -> str:
        """What helm says of an installation that it refuses."""
        done = self.install(*arguments, **options)
        assert done.returncode != 0, done.stdout
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done.stderr


@pytest.fixture
def desk(api_server: Cluster, namespace: str) -> Iterator[Desk]:
    it = Desk(api_server, namespace)
    yield it
    for place in it.places:
        for release in json.loads(it.run("list", "--namespace", place, "--output", "json").stdout):
            it.run("uninstall", release["name"], "--namespace", place)
        api_server.kubectl("delete", "namespace", place, "--wait=false")


def test_releases_in_namespaces_of_their_own_live_side_by_side(desk):
    one, two = desk.place("one"), desk.place("two")
    assert desk.install("first", one, one).returncode == 0
    done = desk.install("second", two, two)
    assert done.returncode == 0, done.stderr
    upgraded = desk.run(
        "upgrade", "first", str(CHART), "--namespace", one, "--set", f"watchNamespaces={{{one}}}", *NO_PODS
    )
    assert upgraded.returncode == 0, "a release is no other one to itself"


def test_a_release_that_would_work_on_the_same_jobs_is_refused_with_both_ways_out(desk):
    one, two = desk.place("one"), desk.place("two")
    assert desk.install("first", one, one).returncode == 0
    for watched in ((), (two, one)):
        said = desk.refused("second", two, *watched)
        assert f"watchNamespaces: release first in namespace {one} works on {one} already" in said
        assert f"helm uninstall first --namespace {one}" in said
    assert desk.install("second", two, one, flags=(*NO_PODS, "--set", "refuseOverlap=false")).returncode == 0


def test_a_release_beside_one_that_works_everywhere_is_refused(desk):
    one, two = desk.place("one"), desk.place("two")
    assert desk.install("first", one).returncode == 0
    assert "works on all namespaces already" in desk.refused("second", two, two)


def test_a_definition_of_somebody_else_is_left_alone_until_it_is_handed_over(desk):
    place = desk.place("one")
    flags = ("--set", "replicaCount=0", "--dry-run=server")
    said = desk.refused("first", place, place, flags=flags)
    assert f"crds.install: CustomResourceDefinition {DEFINITION} was not installed by helm" in said
    assert "crds.install=false" in said
    commands = said.split("to this release: ")[1].strip()
    try:
        subprocess.run(["bash", "-ec", commands], check=True, env={**os.environ, **desk.cluster.env()})
        assert desk.install("first", place, place, flags=flags).returncode == 0
        said = desk.refused("second", place, place, flags=flags)
        assert f"belongs to release first in namespace {place}" in said
    finally:
        gone = ("meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-")
        desk.cluster.kubectl("annotate", "crd", DEFINITION, *gone)
        desk.cluster.kubectl("label", "crd", DEFINITION, "app.kubernetes.io/managed-by-")


def test_who_has_rights_in_namespaces_alone_can_install_and_is_refused_the_same_way(desk, tmp_path):
    """The namespaced values read and write nothing outside of namespaces, the search for other releases included."""
    one, two = desk.place("one"), desk.place("two")
    config = {"KUBECONFIG": str(installer(desk.cluster, tmp_path, one, two))}
    asked = desk.run("template", "x", str(CHART), "--kube-version", "1.36.3", **config)
    assert asked.returncode == 0, asked.stderr
    flags = ("--values", str(VALUE_SETS["namespaced"]), *NO_PODS)
    done = desk.install("first", one, one, two, flags=flags, **config)
    assert done.returncode == 0, done.stderr
    said = desk.refused("second", two, two, flags=flags, **config)
    assert f"release first in namespace {one} works on {two} already" in said


def installer(cluster: Cluster, folder: Path, *namespaces: str) -> Path:
    """A kubeconfig of somebody who may do everything in these namespaces and nothing elsewhere."""
    home = namespaces[0]
    cluster.kubectl("create", "serviceaccount", "installer", "-n", home)
    for namespace in namespaces:
        cluster.kubectl("create", "role", "all", "-n", namespace, "--verb=*", "--resource=*.*")
        cluster.kubectl(
            "create", "rolebinding", "all", "-n", namespace, "--role=all", f"--serviceaccount={home}:installer"
        )
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": cluster.kubectl("create", "token", "installer", "-n", home).strip()}
    path = folder / "installer"
    path.write_text(yaml.safe_dump(config))
    return path
