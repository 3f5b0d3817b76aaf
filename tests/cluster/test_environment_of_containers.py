"""What a container finds in its environment and on its command line, as tables."""

from __future__ import annotations

import base64

import pytest

from ratchet_cluster.environment import (
    MissingReference,
    References,
    command_line,
    decode,
    expand,
    field_value,
    injected,
    referred_names,
    resolve,
    without_chips,
)

POD = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "u-1",
        "labels": {"app": "x", "jobset.sigs.k8s.io/jobset-uid": "j-1"},
        "annotations": {"note": 'say "hi"\nthere'},
    },
    "spec": {"nodeName": "pool-a-0", "serviceAccountName": "sa", "containers": [{"name": "main"}]},
    "status": {"podIP": "127.70.1.1", "hostIP": "127.70.0.2"},
}
REFERENCES = References({"settings": {"a": b"1", "b": b"2"}, "absent": None}, {"keys": {"token": b"s3cret"}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "n"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['jobset.sigs.k8s.io/jobset-uid']", "j-1"),
        ("metadata.annotations['note']", 'say "hi"\nthere'),
        ("metadata.annotations['none']", ""),
        ("metadata.annotations", 'note="say \\"hi\\"\\nthere"'),
        ("spec.nodeName", "pool-a-0"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "127.70.1.1"),
        ("status.hostIP", "127.70.0.2"),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert field_value(POD, path) == value


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    with pytest.raises(MissingReference, match=r"spec\.hostname"):
        field_value(POD, "spec.hostname")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"name": "A", "value": "x"}], {"A": "x"}),
        ([{"name": "A"}], {"A": ""}),
        ([{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)-$(BASE)"}], {"A": "x", "B": "x-base"}),
        ([{"name": "B", "value": "$(A)"}, {"name": "A", "value": "x"}], {"A": "x", "B": "$(A)"}),
        ([{"name": "A", "value": "$$(BASE)"}], {"A": "$(BASE)"}),
        ([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}}], {"A": "2"}),
        ([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}], {"A": "s3cret"}),
        ([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "no", "optional": True}}}], {}),
        ([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "a", "optional": True}}}], {}),
        ([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}], {"A": "127.70.1.1"}),
    ],
)
def test_env(entries: list[dict], expected: dict[str, str]) -> None:
    assert resolve(POD, {"env": entries}, REFERENCES, {"BASE": "base"}) == {"BASE": "base", **expected}


def test_env_wins_over_env_from_and_both_over_what_is_inherited() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "K_", "secretRef": {"name": "keys"}}],
        "env": [{"name": "a", "value": "own"}],
    }
    assert resolve(POD, container, REFERENCES, {"b": "inherited", "PATH": "p"}) == {
        "a": "own",
        "b": "2",
        "K_token": "s3cret",
        "PATH": "p",
    }


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"envFrom": [{"configMapRef": {"name": "absent"}}]}, 'configmap "absent" not found'),
        ({"envFrom": [{"secretRef": {"name": "nowhere"}}]}, 'secret "nowhere" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "z"}}}]},
            "couldn't find key z in ConfigMap n/settings",
        ),
        ({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}, "resourceFieldRef"),
    ],
)
def test_missing_references_say_what_is_missing(container: dict, words: str) -> None:
    with pytest.raises(MissingReference, match=words):
        resolve(POD, container, REFERENCES, {})


def test_an_optional_source_may_be_missing() -> None:
    container = {"envFrom": [{"configMapRef": {"name": "absent", "optional": True}}]}
    assert resolve(POD, container, REFERENCES, {}) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)", "1"), ("$(A)$(A)", "11"), ("$$(A)", "$(A)"), ("$(NO)", "$(NO)"), ("$A", "$A"), ("$$$(A)", "$1")],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_the_command_line_is_expanded_and_has_a_default() -> None:
    assert command_line({"command": ["run", "$(A)"], "args": ["--x=$(A)"]}, {"A": "1"}) == ["run", "1", "--x=1"]
    assert command_line({"args": ["operator"]}, {}) == ["ratchet", "operator"]


def test_decoding_of_config_maps_and_secrets() -> None:
    encoded = base64.b64encode(b"\x00\x01").decode()
    assert decode({"kind": "ConfigMap", "data": {"a": "x"}, "binaryData": {"b": encoded}}) == {"a": b"x", "b": b"\0\1"}
    assert decode({"kind": "Secret", "data": {"b": encoded}}) == {"b": b"\0\1"}


def test_names_that_have_to_be_fetched() -> None:
    container = {
        "name": "m",
        "envFrom": [{"configMapRef": {"name": "one"}}, {"secretRef": {"name": "two"}}],
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "three", "key": "k"}}}],
    }
    pod = {"spec": {"containers": [{"name": "x"}], "initContainers": [container]}}
    assert referred_names(pod) == {"ConfigMap": {"one"}, "Secret": {"two", "three"}}


def slice_pod(job: str = "run-s-1", replicas: str = "2", **spec: str) -> dict:
    labels = {
        "batch.kubernetes.io/job-name": job,
        "batch.kubernetes.io/job-completion-index": "3",
        "jobset.sigs.k8s.io/jobset-name": "run",
        "jobset.sigs.k8s.io/replicatedjob-name": "s",
        "jobset.sigs.k8s.io/replicatedjob-replicas": replicas,
        "jobset.sigs.k8s.io/job-index": "1",
    }
    container = {"name": "main", "resources": {"limits": {"google.com/tpu": "4"}}}
    return {"metadata": {"labels": labels}, "spec": {"subdomain": "run", "containers": [container], **spec}}


def test_a_pod_of_a_multi_host_slice_learns_its_place() -> None:
    assert injected(slice_pod(), 4) == {
        "JAX_PLATFORMS": "cpu",
        "TPU_WORKER_ID": "3",
        "TPU_WORKER_HOSTNAMES": "run-s-1-0.run,run-s-1-1.run,run-s-1-2.run,run-s-1-3.run",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1",
        "MEGASCALE_COORDINATOR_ADDRESS": "run-s-0-0.run",
    }


def test_a_container_that_wants_chips_runs_on_the_cpu_here() -> None:
    container = {"name": "main", "resources": {"requests": {"cpu": "2500m"}, "limits": {"google.com/tpu": "4"}}}
    env = {"JAX_PLATFORMS": "tpu,cpu", "RATCHET_PLATFORM": "tpu", "RATCHET_SLICES": "2", "A": "b"}
    assert without_chips(container, env) == {"JAX_PLATFORMS": "cpu", "NPROC": "2", "A": "b"}
    assert without_chips({"name": "main"}, env | {"NPROC": "16"}) == {"JAX_PLATFORMS": "cpu", "NPROC": "16", "A": "b"}
    calm = {"JAX_PLATFORMS": "cpu", "A": "b"}
    assert without_chips(container, calm) == calm


def test_one_slice_gets_nothing_about_slices() -> None:
    assert not any(name.startswith("MEGASCALE") for name in injected(slice_pod(replicas="1"), 4))


def test_without_a_subdomain_a_pod_stands_alone() -> None:
    found = injected(slice_pod(subdomain=""), 4)
    assert (found["TPU_WORKER_ID"], found["TPU_WORKER_HOSTNAMES"]) == ("0", "localhost")


def test_a_pod_without_chips_gets_no_place_in_a_slice() -> None:
    assert injected({"metadata": {}, "spec": {"containers": [{"name": "m"}]}}, None) == {"JAX_PLATFORMS": "cpu"}
