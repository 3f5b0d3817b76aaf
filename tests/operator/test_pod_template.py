"""What a manifest may add to its pods (variables from Secrets, pull secrets, scratch, shared memory), and what not.

The operator passes it on, the real API server takes it, and what would cover something of the run is refused.
"""

from __future__ import annotations

import pytest
from plan_story import Story
from test_pod_security import ENFORCE, pod

from ratchet_api.job import parse_spec
from ratchet_api.validate import semantic_problems

TEMPLATE = {
    "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
    "envFrom": [
        {"secretRef": {"name": "wandb"}},
        {"prefix": "PROXY_", "configMapRef": {"name": "proxies", "optional": True}},
    ],
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [
        {"name": "shm", "mountPath": "/dev/shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"sizeLimit": "20Gi"}},
        {"name": "ca", "mountPath": "/etc/company", "secret": {"secretName": "ca"}},
        {"name": "lists", "mountPath": "/lists", "configMap": {"name": "lists"}},
    ],
}
ON_A_CLASS = {"name": "big", "mountPath": "/big", "ephemeral": {"storage": "200Gi", "storageClassName": "ssd"}}


def test_variables_come_from_objects_and_the_operator_reads_none_of_them():
    container = pod(podTemplate=TEMPLATE)["containers"][0]
    assert container["envFrom"] == [
        {"secretRef": {"name": "wandb"}},
        {"prefix": "PROXY_", "configMapRef": {"name": "proxies", "optional": True}},
    ]
    assert TEMPLATE["env"][0] in container["env"]
    assert "envFrom" not in pod()["containers"][0]


def test_volumes_have_names_of_their_own():
    """A volume of the user's may be called as one of the operator's."""
    given = [
        {"name": "checkpoint", "mountPath": "/scratch", "emptyDir": {}},
        ON_A_CLASS,
        {"name": "mine", "mountPath": "/mine", "persistentVolumeClaim": {"claimName": "mine", "readOnly": True}},
    ]
    spec = pod(podTemplate={"volumes": given})
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(names) == len(set(names))
    by_name = {volume["name"]: volume for volume in spec["volumes"]}
    assert by_name["template-checkpoint"] == {"name": "template-checkpoint", "emptyDir": {}}
    asked = by_name["template-big"]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (asked["storageClassName"], asked["resources"]["requests"]) == ("ssd", {"storage": "200Gi"})
    assert by_name["template-mine"]["persistentVolumeClaim"] == {"claimName": "mine", "readOnly": True}
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in spec["containers"][0]["volumeMounts"]}
    assert (mounts["/mine"], mounts["/scratch"], mounts["/tmp"]) == (True, False, False)


def test_a_volume_of_the_users_takes_the_place_of_the_one_at_tmp():
    own = {"name": "tmp", "mountPath": "/tmp", "emptyDir": {"sizeLimit": "5Gi"}}
    spec = pod(podTemplate={"volumes": [own]})
    assert [m["name"] for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == "/tmp"] == ["template-tmp"]
    assert "tmp" not in [volume["name"] for volume in spec["volumes"]]


def at(place: str):
    return {"podTemplate": {"volumes": [{"name": "v", "mountPath": place, "emptyDir": {}}]}}


PLACE = "spec.podTemplate.volumes[0].mountPath"
REFUSED = [
    # what is asked for, the path that is named, a word of the way out
    (at("/checkpoints"), PLACE, "claim checkpoints is mounted at /checkpoints; use another folder"),
    (at("/checkpoints/sums"), PLACE, "use another folder"),
    (at("/usr"), PLACE, "use /scratch"),
    (at("/etc/ratchet/job"), PLACE, "use /scratch"),
    (at("/dev/vfio"), PLACE, "use /scratch"),
    (at("/proc"), PLACE, "use /scratch"),
    (at("/scratch/../etc"), PLACE, "write it without"),
    (at("/scratch:ro"), PLACE, "write it without"),
    (at("/" + "a" * 7 + "\x07"), PLACE, "write it without"),
    (
        {"podTemplate": {"volumes": [{**v, "mountPath": "/same"} for v in TEMPLATE["volumes"][:2]]}},
        "spec.podTemplate.volumes[1].mountPath",
        "volume shm is mounted at /same",
    ),
    (
        {"podTemplate": {"envFrom": [{"prefix": "RATCHET_", "secretRef": {"name": "s"}}]}},
        "spec.podTemplate.envFrom[0].prefix",
        "another prefix",
    ),
    ({"podTemplate": {"serviceAccountName": "root"}}, "spec.podTemplate.serviceAccountName", "trainer.serviceAccounts"),
]


@pytest.mark.parametrize(("spec", "path", "words"), REFUSED, ids=[f"{p}-{w}" for _, p, w in REFUSED])
def test_what_would_harm_the_run_is_refused_with_its_path_and_a_way_out(spec, path, words):
    story = Story(**spec)
    assert story.decide().create == ()
    said = story.condition("Accepted")["message"]
    assert said.startswith(f"{path}: ")
    assert words in said


def test_what_companies_have_is_accepted():
    spec = Story(podTemplate=TEMPLATE).job["spec"]
    assert semantic_problems(parse_spec(spec)) == []


HOST_ACCESS = [
    ("hostNetwork", True),
    ("hostPID", True),
    ("hostIPC", True),
    ("securityContext", {"privileged": True}),
    ("containers", [{"name": "other"}]),
    ("volumes", [{"name": "v", "mountPath": "/v", "hostPath": {"path": "/"}}]),
]


@pytest.mark.parametrize(("field", "value"), HOST_ACCESS, ids=[field for field, _ in HOST_ACCESS])
async def test_the_api_server_knows_no_way_to_the_host(world, field, value):
    body = {"spec": {"podTemplate": {field: value}}}
    await world.apply()
    where = world.path("rltrainingjobs", "sums") + "?fieldValidation=Strict&dryRun=All"
    with pytest.raises(Exception, match=r"unknown field|exactly one of") as caught:
        await world.api.patch(where, body, "application/merge-patch+json")
    assert f"podTemplate.{field}" in str(caught.value)


async def test_a_job_with_all_of_it_runs_where_only_restricted_pods_are_admitted(world):
    await world.api.patch(f"/api/v1/namespaces/{world.namespace}", ENFORCE, "application/merge-patch+json")
    for kind, name in (("Secret", "hub"), ("Secret", "wandb"), ("Secret", "ca"), ("ConfigMap", "lists")):
        data = {"data": {"token": "eA=="}} if kind == "Secret" else {"data": {"a": "b"}}
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **data}
        await world.api.create(world.path(f"{kind.lower()}s"), body)
    await (await world.operator()).leads()
    await world.apply(podTemplate=TEMPLATE)
    await world.running()
    (first, *_) = await world.items("pods")
    assert first["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    volumes = {volume["name"]: volume for volume in first["spec"]["volumes"]}
    assert volumes["template-shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert volumes["template-ca"]["secret"]["secretName"] == "ca"
    await world.completed()


async def test_a_volume_of_a_storage_class_is_admitted(world):
    await world.api.patch(f"/api/v1/namespaces/{world.namespace}", ENFORCE, "application/merge-patch+json")
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    spec = pod(podTemplate={"volumes": [ON_A_CLASS]})
    await world.api.create(world.path("pods") + "?dryRun=All", made | {"spec": spec})
