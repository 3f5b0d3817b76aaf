"""What is found to be wrong with a cluster or a bucket before a job runs, and how it is mended."""

from __future__ import annotations

from typing import Any

import pytest
from plan_story import job

from ratchet_api.crd import crd
from ratchet_api.job import parse_spec
from ratchet_api.placements import Placement
from ratchet_cluster import pools
from ratchet_operator.checks import buckets, installation, node_pools, objects
from ratchet_operator.checks.buckets import Account, StorageLocation
from ratchet_operator.checks.gcloud import node_pool_command

V6E = {"name": "p", "accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 4, "capacity": "Spot"}
SMALL = {"name": "p", "accelerator": "tpu-v6e-slice", "topology": "2x2", "capacity": "Spot"}
RESERVED = {"capacity": "Reserved", "reservation": "r"}
IDENTITY = "iam.gke.io/gke-metadata-server-enabled"


def pool(text: str, **labels: str) -> list[dict[str, Any]]:
    """The nodes of a pool of the local cluster, which look like GKE's."""
    one = pools.parse(text)
    nodes = [pools.node_object(one, name) for name in one.nodes]
    for node in nodes:
        node["metadata"]["labels"] |= labels
        node["status"] = {"allocatable": pools.capacity(one)}
    return nodes


def found(nodes: list[dict[str, Any]], **placement: Any) -> list[str]:
    spec = job(placements=[placement])["spec"]
    return [str(finding) for finding in node_pools.findings(parse_spec(spec), nodes)]


PAIR = "a=tpu-v6e-slice:2x4:4:spot"


def test_a_cluster_that_fits_has_no_findings():
    assert found(pool(PAIR), **V6E) == []
    assert found(pool("a=tpu-v6e-slice:2x2:4:spot"), **SMALL) == []
    two = pool("a=tpu-v6e-slice:4x4:4:spot") + pool("b=tpu-v6e-slice:4x4:4:spot")
    assert found(two, **V6E | {"topology": "4x4", "slices": 2}) == []
    assert found(pool("c=cpu:2") + pool(PAIR), name="p", cpu={"hosts": 2}) == [], "TPU nodes are not needed"


def one_node_short() -> list[dict[str, Any]]:
    return pool(PAIR)[:1]


def without_chips() -> list[dict[str, Any]]:
    nodes = pool(PAIR)
    nodes[1]["status"] = {"allocatable": {"cpu": "4"}}
    return nodes


def tainted(key: str, value: str = "x") -> list[dict[str, Any]]:
    nodes = pool(PAIR)
    nodes[0]["spec"]["taints"].append({"key": key, "value": value, "effect": "NoSchedule"})
    return nodes


def labelled_by_hand(topology: str) -> list[dict[str, Any]]:
    return pool(PAIR, **{"cloud.google.com/gke-tpu-topology": topology})


def of_two_kinds() -> list[dict[str, Any]]:
    nodes = pool(PAIR)
    nodes[1]["metadata"]["labels"]["cloud.google.com/gke-accelerator-count"] = "8"
    return nodes


CASES = {
    # what is there, placement -> what is said, in order
    "no node at all": ([], V6E, ["no node has cloud.google.com/gke-tpu-accelerator=tpu-v6e-slice"]),
    "another generation": (pool("a=tpu-v5p-slice:2x2x2"), V6E, ["no node has cloud.google.com/gke-tpu-accelerator"]),
    "another topology": (pool("a=tpu-v6e-slice:4x4:4:spot"), V6E, ["has topology 2x4", "there is 4x4"]),
    "not spot": (pool("a=tpu-v6e-slice:2x4:4"), V6E, ["the nearest lacks cloud.google.com/gke-spot=true"]),
    "another machine": (
        pool("a=tpu-v6e-slice:2x4:8:spot"), V6E, ["the nearest lacks cloud.google.com/gke-accelerator-count=4"],
    ),
    "another zone": (pool(PAIR), V6E | {"zone": "us-east5-a"}, ["lacks topology.kubernetes.io/zone=us-east5-a"]),
    "half a slice": (
        one_node_short(), V6E, ["node pool a: 1 of the 2 nodes of a slice 2x4 are there", "--num-nodes=2"],
    ),
    "one slice of two": (
        pool("a=tpu-v6e-slice:4x4:4:spot"), V6E | {"topology": "4x4", "slices": 2},
        ["1 of 2 node pools are there", "--tpu-topology=4x4 --num-nodes=4 --spot"],
    ),
    "no chips yet": (
        without_chips(), V6E, ["node a-1: offers 0 of 4 chips", "1 of the 2 nodes of a slice 2x4 can be used"],
    ),
    "a taint": (tainted("team"), V6E, ["node a-0: has the taint team=x:NoSchedule", "placement's tolerations"]),
    "maintenance": (
        tainted("cloud.google.com/maintenance-window-started"), V6E, ["maintenance-window-started", "wait until"],
    ),
    "a topology by hand": (labelled_by_hand("3x5"), V6E, ["pool a: its label", "not known here", "has topology 2x4"]),
    "a topology of fewer nodes": (
        pool("a=tpu-v6e-slice:4x4:4:spot", **{"cloud.google.com/gke-tpu-topology": "2x4"}), V6E,
        ["is 2x4, which has 2 nodes; the pool has 4"],
    ),
    "nodes that differ": (of_two_kinds(), V6E, ["its nodes differ"]),
    "an impossible placement": (pool(PAIR), V6E | {"topology": "2x5"}, ["has no slice 2x5"]),
    "too few processors": (pool("c=cpu:1"), {"name": "p", "cpu": {"hosts": 2}}, ["1 of 2 nodes are there"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_with_nodes_is_said_with_the_way_out(case):
    nodes, placement, words = CASES[case]
    said = "\n".join(found(nodes, **placement))
    assert "error: " in said
    at = 0
    for word in words:
        assert word in said[at:], said
        at = said.index(word, at)


def test_a_slice_that_is_newer_than_the_tables_is_a_warning_and_none_where_it_is_named_by_its_hosts():
    (said,) = found(labelled_by_hand("3x5") + pool("b=tpu-v6e-slice:2x4:4:spot"), **V6E)
    assert said.startswith("warning: node pool a: ")
    by_hosts = {"topology": "3x5", "hosts": 2, "chipsPerNode": 4}
    assert found(labelled_by_hand("3x5"), **V6E | by_hosts) == []


def test_a_taint_that_is_tolerated_is_none():
    assert found(tainted("team"), **V6E, tolerations=[{"key": "team", "operator": "Exists"}]) == []
    assert found(tainted("team"), **V6E, tolerations=[{"key": "team", "value": "x"}]) == []
    assert found(tainted("team"), **V6E, tolerations=[{"key": "team", "value": "y"}]) != []


def test_nodes_that_are_made_on_demand_need_not_be_there():
    asked = {key: value for key, value in V6E.items() if key != "capacity"}
    for how in ({"capacity": "FlexStart"}, {"computeClass": "tpus"}):
        (said,) = found([], **asked, **how)
        assert said.startswith("warning: placement p: ")
    assert "see that ComputeClass tpus exists" in said


@pytest.mark.parametrize(
    ("placement", "command"),
    [
        (V6E, "--machine-type=ct6e-standard-4t --tpu-topology=2x4 --num-nodes=2 --spot"),
        (SMALL | {"capacity": "OnDemand"}, "--machine-type=ct6e-standard-4t --num-nodes=1 --workload"),
        (SMALL | {"topology": "2x4", "chipsPerNode": 8}, "--machine-type=ct6e-standard-8t --num-nodes=1 --spot"),
        (
            {"name": "p", "accelerator": "tpu-v5p-slice", "topology": "2x2x4"} | RESERVED,
            "--machine-type=ct5p-hightpu-4t --tpu-topology=2x2x4 --num-nodes=4 --reservation-affinity=specific "
            "--reservation=r",
        ),
        (V6E | {"capacity": "FlexStart", "queuedProvisioning": True}, "--enable-queued-provisioning --num-nodes=0"),
        (V6E | {"nodeSelector": {"team": "x", "cloud.google.com/gke-gvnic": "true"}}, "--node-labels=team=x"),
        (V6E | {"zone": "us-east5-a"}, "--node-locations=us-east5-a "),
    ],
)  # fmt: skip
def test_the_command_that_makes_a_node_pool(placement, command):
    assert command in node_pool_command(Placement.model_validate(placement))


@pytest.mark.parametrize(
    "placement",
    [
        {"name": "p", "cpu": {"hosts": 1}},
        {"name": "p", "accelerator": "tpu7x", "topology": "2x2x1"},
        {"name": "p", "accelerator": "tpu-v9-slice", "hosts": 2, "chipsPerNode": 4},
        {**SMALL, "capacity": None, "computeClass": "tpus"},
    ],
)
def test_what_no_single_line_makes_has_none(placement):
    assert node_pool_command(Placement.model_validate(placement)) is None


# --- what must be installed -------------------------------------------------------------------------------------------


def definition(name: str, version: str, served: bool = True, established: str = "True") -> dict[str, Any]:
    conditions = [{"type": "Established", "status": established}]
    versions = [{"name": version, "served": served}]
    return {"metadata": {"name": name}, "spec": {"versions": versions}, "status": {"conditions": conditions}}


JOBSETS = ("jobsets.jobset.x-k8s.io", "v1alpha2")
OURS = crd() | {"status": {"conditions": [{"type": "Established", "status": "True"}]}}


def test_both_kinds_are_needed():
    assert installation.findings([definition(*JOBSETS), OURS]) == []
    missing = [str(finding) for finding in installation.findings([])]
    assert ["no CustomResourceDefinition jobsets.jobset.x-k8s.io" in missing[0], "rltrainingjobs" in missing[1]] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("jobsets", "words"),
    [
        (definition(JOBSETS[0], "v1beta1"), "version v1alpha2 is not served, only v1beta1"),
        (definition(*JOBSETS, served=False), "version v1alpha2 is not served, only none"),
        (definition(*JOBSETS, established="False"), "is not established"),
    ],
)
def test_a_kind_that_is_of_no_use_is_named(jobsets, words):
    (finding,) = installation.findings([jobsets, OURS])
    assert words in str(finding)


# --- buckets ----------------------------------------------------------------------------------------------------------

NODES = pool(PAIR, **{IDENTITY: "true"})  # in us-central2
HERE = StorageLocation("runs", "US-CENTRAL2")
BOUND = {"metadata": {"annotations": {"iam.gke.io/gcp-service-account": "t@p.iam.gserviceaccount.com"}}}


def of_bucket(bucket=HERE, manifest=BOUND, nodes=NODES) -> list[str]:
    account = Account("team", "trainer", manifest)
    return [str(finding) for finding in buckets.findings(bucket, account, nodes)]


def test_a_bucket_beside_the_nodes_and_an_account_with_rights_are_well():
    assert of_bucket() == []


@pytest.mark.parametrize(
    ("location", "near"),
    [
        ("us-central2", True), ("US", True), ("EU", False), ("ASIA", False), ("us-east5", False), ("EUR4", False),
        ("NAM4", False),
    ],
)  # fmt: skip
def test_a_bucket_in_another_region_is_told_with_the_region_of_the_nodes(location, near):
    said = of_bucket(StorageLocation("runs", location))
    assert (said == []) is near
    if not near:
        assert f"it is in {location}, the nodes of a are in us-central2" in said[0]
        assert "--location=us-central2" in said[0]


def test_a_dual_region_of_ones_own_has_two_regions():
    both = ("US-CENTRAL2", "US-EAST5")
    assert of_bucket(StorageLocation("runs", "US", both)) == []
    assert of_bucket(StorageLocation("runs", "CUSTOM", both)) == []
    assert len(of_bucket(StorageLocation("runs", "CUSTOM", ("US-EAST1", "US-EAST5")))) == 1


def test_an_account_without_annotation_may_have_rights_of_its_own():
    (said,) = of_bucket(manifest={"metadata": {"name": "trainer"}})
    assert said.startswith("warning: service account team/trainer: it has no annotation iam.gke.io/gcp-service-account")
    assert "PROJECT_ID.svc.id.goog/subject/ns/team/sa/trainer" in said
    assert "gs://runs" in said


def test_an_account_that_is_none_and_one_that_names_none():
    (missing,) = of_bucket(manifest=None)
    assert "kubectl create serviceaccount trainer --namespace team" in missing
    (odd,) = of_bucket(manifest={"metadata": {"annotations": {"iam.gke.io/gcp-service-account": "me@example.com"}}})
    assert "is 'me@example.com', which is no Google service account" in odd


def test_nodes_that_give_pods_no_identity_are_told():
    (said,) = of_bucket(nodes=pool(PAIR))
    assert said.startswith("error: node pool a: its nodes give pods no identity of their own")
    assert of_bucket(nodes=NODES + pool("c=cpu:2")) == [], "trainers run on TPU nodes"


def test_what_the_pod_template_names_is_looked_for():
    template = {
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
        "envFrom": [{"secretRef": {"name": "wandb"}}, {"configMapRef": {"name": "maybe", "optional": True}}],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "ca", "mountPath": "/ca", "secret": {"secretName": "ca"}},
            {"name": "lists", "mountPath": "/lists", "configMap": {"name": "lists"}},
            {"name": "more", "mountPath": "/more", "persistentVolumeClaim": {"claimName": "more"}},
        ],
    }
    found = objects.named(parse_spec(job(podTemplate=template)["spec"]))
    of = "spec.podTemplate"
    assert {where: name for name, where in found.items() if where.startswith(of)} == {
        f"{of}.env[0]": ("secret", "hub"),
        f"{of}.envFrom[0]": ("secret", "wandb"),
        f"{of}.imagePullSecrets[0]": ("secret", "registry"),
        f"{of}.volumes[0]": ("secret", "ca"),
        f"{of}.volumes[1]": ("configmap", "lists"),
        f"{of}.volumes[2]": ("persistentvolumeclaim", "more"),
    }
