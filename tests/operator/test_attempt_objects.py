"""The objects of an attempt: names, ownership, environment, volumes, nodes."""

from __future__ import annotations

import json
from dataclasses import replace

from plan_story import Story, job

from ratchet_api.canonical import stage_hash
from ratchet_api.job import parse_spec
from ratchet_api.placements import Placement
from ratchet_operator.build import nodes
from ratchet_operator.decide import stamps


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
        "RATCHET_PLATFORM": "tpu",
        "RATCHET_DEVICES_PER_PROCESS": "4",
        "RATCHET_SLICES": "1",
        "JAX_PLATFORMS": "tpu,cpu",
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "HOME": "/tmp",
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
        "/tmp": False,
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
    assert nodes.node_selector(placement) == {
        "team": "x",
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
        "topology.kubernetes.io/zone": "us-central2-b",
    }
    tolerated = {t["key"]: t["effect"] for t in nodes.tolerations(placement)}
    assert tolerated["google.com/tpu"] == tolerated["cloud.google.com/gke-spot"] == "NoSchedule"
    assert "cloud.google.com/impending-node-termination" not in tolerated


def musts(placement):
    """What nodes must not be, as (key, value)."""
    rule = nodes.affinity(placement)["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = rule["nodeSelectorTerms"]
    assert {expression["operator"] for expression in term["matchExpressions"]} == {"NotIn"}
    return [(e["key"].removeprefix("cloud.google.com/"), *e["values"]) for e in term["matchExpressions"]]


IN_MAINTENANCE = ("active-node-maintenance", "ONGOING")


def test_on_demand_stays_off_spot_and_flex_start_machines():
    others = [(f"gke-{kind}", "true") for kind in ("spot", "flex-start", "queued")]
    assert musts(placed(**V6E)) == [*others, IN_MAINTENANCE]
    assert musts(placed(**V6E, capacity="Spot")) == [IN_MAINTENANCE]


def test_nodes_are_preferred_whose_maintenance_is_not_due_soon():
    """Either a node with none announced, or one where it begins later; both weigh the same."""
    jobset = Story(maintenance={"leadSeconds": 7200}).decide().create[1]
    spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    rule = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    due = int(stamps.seconds("2026-01-02T03:04:05Z")) + 7200
    time = "cloud.google.com/scheduled-maintenance-time"
    never, late = (term["preference"]["matchExpressions"] for term in rule)
    assert never == [{"key": time, "operator": "DoesNotExist"}]
    assert late == [{"key": time, "operator": "Gt", "values": [str(due)]}]
    assert len({term["weight"] for term in rule}) == 1
    on_cpus = nodes.affinity(placed(cpu={"hosts": 2}), due)["nodeAffinity"]
    assert "preferredDuringSchedulingIgnoredDuringExecution" not in on_cpus


def test_a_spot_slice_whose_nodes_give_longer_notice_counts_on_it():
    """The label is in the node selector, so the trainer runs on nodes that say so and nowhere else."""
    where = {**V6E, "name": "p", "capacity": "Spot", "nodeSelector": {"ratchet.dev/notice-seconds": "105"}}
    long = {"terminationGracePeriodSeconds": 300}
    assert environment_of(placements=[where], podTemplate=long)["RATCHET_GRACE_SECONDS"] == "105"
    usual = {**where, "nodeSelector": {}}
    assert environment_of(placements=[usual], podTemplate=long)["RATCHET_GRACE_SECONDS"] == "15"
    assert environment_of(placements=[where])["RATCHET_GRACE_SECONDS"] == "30", "no longer than the pod's"


def selected(**placement):
    """Of a placement, besides what every slice has: labels that nodes must have, taints that are tolerated, and whether
    other capacity is kept off."""
    found = placed(**V6E, **placement)
    usual = {t["key"] for t in nodes.tolerations(placed(**V6E))}
    labels = {k: v for k, v in nodes.node_selector(found).items() if "gke-tpu" not in k}
    taints = {t["key"]: t["value"] for t in nodes.tolerations(found) if t["key"] not in usual}
    short = lambda keys: {key.removeprefix("cloud.google.com/"): value for key, value in keys.items()}  # noqa: E731
    return short(labels), short(taints), ("gke-spot", "true") in musts(found)


def test_capacity_is_said_in_the_labels_of_gke():
    assert selected(capacity="Spot") == ({"gke-spot": "true"}, {"gke-spot": "true"}, False)
    assert selected(capacity="FlexStart") == ({"gke-flex-start": "true"}, {"gke-flex-start": "true"}, False)
    queued = {"gke-flex-start": "true", "gke-queued": "true"}
    assert selected(capacity="FlexStart", queuedProvisioning=True) == ({"gke-queued": "true"}, queued, False)
    assert selected(capacity="Reserved", reservation="winter") == ({"reservation-name": "winter"}, {}, False)
    assert selected(capacity="OnDemand") == selected() == ({}, {}, True)


def test_a_compute_class_is_left_its_choice_of_capacity():
    labels, taints, keeps_off = selected(computeClass="cheapest")
    assert labels == {"compute-class": "cheapest"}
    assert taints == {"compute-class": "cheapest", "gke-spot": "true", "gke-flex-start": "true"}
    assert not keeps_off


def test_an_unknown_generation_is_selected_by_what_is_said_of_it():
    placement = placed(accelerator="tpu-v9-slice", hosts=2, chipsPerNode=4)
    selector = nodes.node_selector(placement)
    assert selector == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v9-slice",
        "cloud.google.com/gke-accelerator-count": "4",
    }
    assert "podAffinity" in nodes.affinity(placement)


def environment_of(**spec):
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container(**spec)["env"]}


SLICES = {"placements": [{"name": "wide", **V6E, "slices": 2}]}


def test_slices_are_told_how_they_find_one_another():
    env = environment_of(**SLICES)
    index = {"fieldRef": {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/job-index']"}}
    assert {name: value for name, value in env.items() if name.startswith("MEGASCALE")} == {
        "MEGASCALE_COORDINATOR_ADDRESS": "sums-a1-s-0-0.sums-a1",
        "MEGASCALE_PORT": "8080",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": index,
    }
    assert env["RATCHET_SLICES"] == "2"
    assert not any(name.startswith("MEGASCALE") for name in environment_of())


def test_what_the_devices_are_told_may_be_set_otherwise_but_stands_once():
    own = [{"name": "MEGASCALE_PORT", "value": "8081"}, {"name": "JAX_PLATFORMS", "value": "cpu"}]
    names = [e["name"] for e in container(**SLICES, podTemplate={"env": own})["env"]]
    assert len(names) == len(set(names)), "the API server takes a name once"
    env = environment_of(**SLICES, podTemplate={"env": own})
    assert (env["MEGASCALE_PORT"], env["JAX_PLATFORMS"]) == ("8081", "cpu")


def test_threads_are_pinned_where_bits_depend_on_them():
    resources = {"podTemplate": {"resources": {"requests": {"cpu": "4"}}}}
    cpu = {"placements": [{"name": "laptop", "cpu": {"hosts": 1}}]}
    exact = {"reproducibility": {"mode": "Exact", "virtualShards": 16}}
    assert "NPROC" not in environment_of(**resources)
    assert environment_of(**resources, **exact)["NPROC"] == "16"
    assert environment_of(**resources, **cpu)["NPROC"] == "4"
    assert environment_of(**cpu)["JAX_PLATFORMS"] == "cpu"


def test_two_devices_a_chip_are_expected_where_there_are_two():
    assert environment_of(placements=[{"name": "p", "accelerator": "tpu7x", "topology": "2x2x2"}])[
        "RATCHET_DEVICES_PER_PROCESS"
    ] == "8"  # fmt: skip


def test_grace_priority_and_the_group_of_volumes():
    spec = objects()[2]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 30
    context = spec["securityContext"]
    assert (context["fsGroup"], context["fsGroupChangePolicy"]) == (10001, "OnRootMismatch")
    assert "priorityClassName" not in spec
    template = {"terminationGracePeriodSeconds": 600, "fsGroup": 2000, "priorityClassName": "training"}
    spec = objects(podTemplate=template)[2]["template"]["spec"]
    assert (spec["terminationGracePeriodSeconds"], spec["priorityClassName"]) == (600, "training")
    assert spec["securityContext"]["fsGroup"] == 2000


def test_the_trainer_is_told_of_no_more_time_than_its_machine_leaves():
    template = {"terminationGracePeriodSeconds": 600}
    for capacity, seconds in (("Spot", "15"), ("FlexStart", "15"), ("OnDemand", "600")):
        placements = [{"name": "p", **V6E, "capacity": capacity}]
        assert environment_of(podTemplate=template, placements=placements)["RATCHET_GRACE_SECONDS"] == seconds
    placements = [{"name": "p", **V6E, "computeClass": "any"}]
    assert environment_of(podTemplate=template, placements=placements)["RATCHET_GRACE_SECONDS"] == "15"


def test_labels_and_annotations_reach_the_jobset():
    added = {"labels": {"kueue.x-k8s.io/queue-name": "research"}, "annotations": {"note": "a"}}
    placements = [{"name": "big", "accelerator": "tpu-v6e-slice", "topology": "16x16", "slices": 8}]
    stages = [{"name": "s", "sft": {"dataset": "sums", "batchSize": 512}, "advance": {"steps": 1}}]
    _, jobset, batch = objects(jobSetTemplate=added, placements=placements, stages=stages)
    metadata = jobset["metadata"]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert metadata["labels"]["ratchet.dev/job-name"] == "sums"
    assert metadata["annotations"]["note"] == "a"
    assert len(metadata["annotations"]) == 2, "the one for very large gangs stays"
    assert "kueue.x-k8s.io/queue-name" not in batch["template"]["metadata"]["labels"]


def test_a_slice_of_several_hosts_has_a_node_pool_of_its_own():
    affinity = nodes.affinity(placed(**V6E))
    for kind in ("podAffinity", "podAntiAffinity"):
        (term,) = affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "cloud.google.com/gke-nodepool"
    single = nodes.affinity(placed(accelerator="tpu-v6e-slice", topology="2x2"))
    assert "podAffinity" not in single, "its anti-affinity would span all jobs of the pool"
    assert "podAffinity" not in nodes.affinity(placed(cpu={"hosts": 2}))


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


def test_a_variable_from_a_secret_is_the_kubelets_to_fill_in():
    reference = {"secretKeyRef": {"name": "wandb", "key": "api-key"}}
    env = container(podTemplate={"env": [{"name": "WANDB_API_KEY", "valueFrom": reference}]})["env"]
    assert {"name": "WANDB_API_KEY", "valueFrom": reference} in env


def test_a_pod_declares_the_ports_that_every_process_serves_and_keeps_the_end_of_its_log():
    """A port that only the leader serves would refuse on all others."""
    story = Story()
    story.settle()
    (replicated,) = story.jobsets[0]["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [8491]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", "what could not say why it ended"
