"""The objects of an attempt: names, ownership, environment, volumes, nodes."""

from __future__ import annotations

import json
from dataclasses import replace

from plan_story import Story, job

from ratchet_api.canonical import stage_hash
from ratchet_api.job import parse_spec
from ratchet_api.placements import Placement
from ratchet_operator.build import pod as build


def objects(**spec):
    story = Story(**spec)
    config_map, jobset = story.decide().create
    return config_map, jobset, jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def container(**spec):
    return objects(**spec)[2]["template"]["spec"]["containers"][0]


def placed(**placement):
    return Placement.model_validate({"name": "p", **placement})


V6E = {"accelerator": "tpu-v6e-slice", "topology": "4x4"}


def test_what_belongs_to_a_job_goes_with_it():
    for body in objects()[:2]:
        (owner,) = body["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("RLTrainingJob", "job-uid", True)
        assert body["metadata"]["labels"] == {
            "ratchet.dev/job-name": "sums",
            "ratchet.dev/attempt": "1",
            "ratchet.dev/job-uid": "job-uid",
        }


def test_the_gang_never_restarts_by_itself():
    _, jobset, batch = objects()
    assert jobset["spec"]["failurePolicy"] == {"maxRestarts": 0}
    assert (batch["completionMode"], batch["backoffLimit"]) == ("Indexed", 0)
    assert batch["podReplacementPolicy"] == "TerminatingOrFailed"
    assert batch["template"]["spec"]["restartPolicy"] == "Never"
    assert jobset["spec"]["network"] == {"enableDNSHostnames": True, "publishNotReadyAddresses": True}


def test_the_trainer_knows_who_it_is():
    env = {
        e["name"]: e.get("value", e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"))
        for e in container()["env"]
    }
    assert env == {
        "RATCHET_NAMESPACE": "team",
        "RATCHET_JOB_NAME": "sums",
        "RATCHET_JOB_UID": "job-uid",
        "RATCHET_ATTEMPT": "1",
        "RATCHET_LAST_STEP": "0",
        "RATCHET_GRACE_SECONDS": "15",
        "RATCHET_PROCESSES": "2",
        "RATCHET_HOSTS_PER_SLICE": "2",
        "RATCHET_COORDINATOR": "sums-a1-s-0-0.sums-a1:8482",
        "RATCHET_JOBSET_UID": "metadata.labels['jobset.sigs.k8s.io/jobset-uid']",
        "RATCHET_SLICE": "metadata.labels['jobset.sigs.k8s.io/job-index']",
        "RATCHET_POD_IP": "status.podIP",
        "NPROC": "1",
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }


def test_what_only_speed_depends_on_may_be_set_otherwise():
    own = {"name": "GLIBC_TUNABLES", "value": "glibc.malloc.arena_max=1"}
    env = container(podTemplate={"env": [own]})["env"]
    assert [e for e in env if e["name"] == own["name"]] == [own]


def test_one_process_needs_no_coordinator():
    env = {e["name"] for e in container(placements=[{"name": "laptop", "cpu": {"hosts": 1}}])["env"]}
    assert "RATCHET_COORDINATOR" not in env


def test_the_last_known_step_reaches_the_next_attempt():
    story = Story().begin()
    story.report(step=9, checkpoint={"step": 8}).settle()
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.settle()
    env = story.jobsets[-1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "RATCHET_LAST_STEP", "value": "8"} in env


def test_the_job_file_holds_the_spec_as_admitted():
    config_map, _, _ = objects()
    content = json.loads(config_map["data"]["job.json"])
    assert (content["v"], content["namespace"], content["name"], content["jobUID"], content["mayEnter"]) == (
        1, "team", "sums", "job-uid", 0,
    )  # fmt: skip
    spec = parse_spec(job()["spec"])
    assert content["spec"] == spec.manifest(), "defaults are filled in"
    assert stage_hash(content["spec"]["stages"][0]) == stage_hash(spec.stages[0].manifest())


def test_chips_are_requested_and_limited():
    resources = container(podTemplate={"resources": {"requests": {"cpu": "4"}, "limits": {"memory": "8Gi"}}})[
        "resources"
    ]
    assert resources == {
        "requests": {"cpu": "4", "google.com/tpu": "4"},
        "limits": {"memory": "8Gi", "google.com/tpu": "4"},
    }


def test_volumes():
    _, _, batch = objects(
        datasets=[
            {"name": "sums", "jsonl": {"path": "/data/sums/train.jsonl", "claimName": "sums"}},
            {"name": "more", "jsonl": {"path": "/checkpoints/more.jsonl", "claimName": "checkpoints"}},
        ]
    )
    spec = batch["template"]["spec"]
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in spec["containers"][0]["volumeMounts"]}
    assert mounts == {
        "/etc/ratchet/job": True,
        "/etc/ratchet/word": True,
        "/checkpoints": False,
        "/data/sums": True,
    }
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v
    }
    assert claims == {"checkpoint": "checkpoints", "data-1": "sums"}


FAST = {"directory": "/checkpoints/sums", "claimName": "checkpoints", "localDirectory": "/fast"}


def test_the_fast_tier_is_a_folder_of_the_job_in_the_nodes_own():
    story = Story(checkpoint=FAST)
    story.values = replace(story.values, local_directory="/mnt/disks/ssd0/ratchet")
    pod = story.decide().create[1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (volume,) = (v for v in pod["volumes"] if "hostPath" in v)
    assert volume["hostPath"] == {"path": "/mnt/disks/ssd0/ratchet", "type": "DirectoryOrCreate"}
    (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == volume["name"])
    assert mount == {"name": volume["name"], "mountPath": "/fast", "subPath": "team/sums-job-uid"}


def test_a_job_that_asks_for_no_fast_tier_sees_nothing_of_its_nodes():
    story = Story()
    story.values = replace(story.values, local_directory="/mnt/disks/ssd0/ratchet")
    pod = story.decide().create[1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert not [v for v in pod["volumes"] if "hostPath" in v]


def test_pods_hold_no_credentials_and_no_privileges():
    spec = objects()[2]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


def test_nodes_of_a_spot_slice():
    placement = placed(**V6E, capacity="Spot", zone="us-central2-b", nodeSelector={"team": "x"})
    assert build.node_selector(placement) == {
        "team": "x",
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
        "topology.kubernetes.io/zone": "us-central2-b",
    }
    tolerated = {t["key"]: t["effect"] for t in build.tolerations(placement)}
    assert tolerated["google.com/tpu"] == tolerated["cloud.google.com/gke-spot"] == "NoSchedule"
    assert "cloud.google.com/impending-node-termination" not in tolerated


def test_on_demand_stays_off_spot_machines():
    (term,) = build.affinity(placed(**V6E))["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [{"key": "cloud.google.com/gke-spot", "operator": "NotIn", "values": ["true"]}]


def test_a_slice_of_several_hosts_has_a_node_pool_of_its_own():
    affinity = build.affinity(placed(**V6E))
    for kind in ("podAffinity", "podAntiAffinity"):
        (term,) = affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "cloud.google.com/gke-nodepool"
    single = build.affinity(placed(accelerator="tpu-v6e-slice", topology="2x2"))
    assert "podAffinity" not in single, "its anti-affinity would span all jobs of the pool"
    assert "podAffinity" not in build.affinity(placed(cpu={"hosts": 2}))


def test_a_very_large_gang_is_placed_by_jobset():
    spec = {"placements": [{"name": "big", "accelerator": "tpu-v6e-slice", "topology": "16x16", "slices": 8}]}
    stages = [{"name": "s", "sft": {"dataset": "sums", "batchSize": 512}, "advance": {"steps": 1}}]
    _, jobset, batch = objects(**spec, stages=stages)
    template = batch["template"]
    assert jobset["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"] == (
        "cloud.google.com/gke-nodepool"
    )
    assert "podAffinity" not in template["spec"]["affinity"]
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == 8
    assert (batch["parallelism"], batch["completions"]) == (64, 64)


def test_names_fit_at_their_longest():
    """JobSet wants DNS-1035 names and at most 63 characters for the longest pod name."""
    manifest = job(placements=[{"name": "p", **V6E, "slices": 99}], stages=job()["spec"]["stages"][:1])
    manifest["metadata"]["name"] = "j" * 39
    manifest["spec"]["stages"][0]["sft"]["batchSize"] = 99 * 4
    jobset = Story(manifest).decide().create[1]
    assert len(f"{jobset['metadata']['name']}9999-s-255-63-abcde") <= 63
