"""Every way in which an attempt can end, as what is seen of it, with the verdict, who pays and the notice: a table for
`test_verdict_table.py`. A way is a function that makes it happen in a `Story`."""

from __future__ import annotations

import json
from collections.abc import Callable

from plan_story import Story, node

from ratchet_operator.decide import stamps


def _condition(pod, reason, kind="DisruptionTarget"):
    pod["status"]["conditions"].append(
        {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": "2026-01-02T03:04:05Z"}
    )


def ready(story: Story, name: str, value: str, message: str = "Kubelet stopped posting node status.") -> None:
    story.nodes[name]["status"]["conditions"][0] |= {"status": value, "message": message}


def _delete(story: Story, index: int, grace: int = 30) -> None:
    pod = story.pod(index)
    pod["metadata"]["deletionTimestamp"] = stamps.whole(stamps.after(story.now, grace))
    pod["metadata"]["deletionGracePeriodSeconds"] = grace


def spot_notice(s):
    s.shut_down("pool-a-0", "pool-a-1")


def termination_taint(s):
    s.nodes["pool-a-1"]["spec"]["taints"] = [{"key": "cloud.google.com/impending-node-termination"}]


def taint(s, key: str) -> None:
    s.nodes["pool-a-1"]["spec"].setdefault("taints", []).append({"key": key, "timeAdded": s.now})


def announced(s, seconds: float = -60.0) -> None:
    """Maintenance of the second node is announced for so many seconds from now."""
    at = str(int(s.time + seconds))
    s.nodes["pool-a-1"]["metadata"]["labels"]["cloud.google.com/scheduled-maintenance-time"] = at


def maintenance_label(s):
    s.nodes["pool-a-1"]["metadata"]["labels"]["cloud.google.com/active-node-maintenance"] = "ONGOING"


def maintenance_taint(s):
    taint(s, "cloud.google.com/maintenance-window-started")


def maintenance_annotation(s):
    said = json.dumps({"maintenance_status": "ONGOING", "window_start_time": "2026-01-02T03:00:00+00:00"})
    s.nodes["pool-a-1"]["metadata"]["annotations"] = {"node.gke.io/upcoming-maintenance": said}


def maintenance_and_termination(s):
    maintenance_label(s)
    termination_taint(s)


def maintenance_and_drained(s):
    maintenance_label(s)
    _delete(s, 1, grace=300)
    s.leave(s.pod(1), 75, step=3)


def termination_at_the_announced_time(s):
    announced(s)
    termination_taint(s)


def shut_down_at_the_announced_time(s):
    announced(s)
    s.shut_down("pool-a-1")
    s.leave(s.pod(1), 143)
    s.pod(1)["status"]["reason"] = "Terminated"


def gone_at_the_announced_time(s):
    announced(s)
    s.nodes["pool-a-1"]["absent"] = True


def shut_down_at_its_known_end(s):
    at = {"node.gke.io/machine-termination-datetime": stamps.whole(s.now)}
    s.nodes["pool-a-1"]["metadata"]["annotations"] = at
    s.shut_down("pool-a-1")


def restarted_at_the_announced_time(s):
    announced(s)
    s.leave(s.pod(1), 137, reason="ContainerStatusUnknown")


def shut_down_before_the_announced_time(s):
    announced(s, 3600)
    s.shut_down("pool-a-1")


def on_demand_is_taken(s):
    s.nodes["pool-a-1"]["metadata"]["labels"]["cloud.google.com/gke-nodepool"] = "pool-a"
    termination_taint(s)


def restarted_under_its_name(s):
    """The Node is there, it is Ready, and it is the same one: only the container is not."""
    s.leave(s.pod(1), 137, reason="ContainerStatusUnknown")


def restarted_under_its_name_with_containerd(s):
    s.leave(s.pod(1), 255, reason="Unknown")


def deleted_and_lost_from_sight(s):
    """Somebody deleted the pod, and its kubelet had removed the container before it looked."""
    _delete(s, 1)
    s.leave(s.pod(1), 137, reason="ContainerStatusUnknown")


def shut_down_pod(s):
    s.leave(s.pod(1), 143)
    s.pod(1)["status"]["reason"] = "Terminated"


def shut_down_and_drained(s):
    s.leave(s.pod(1), 75, step=3)
    s.pod(1)["status"]["reason"] = "Terminated"


def survivor_then_notice(s):
    s.leave(s.pod(0), 69, message="peer 1 closed the connection")
    s.decide()
    s.shut_down("pool-a-1")


def any_code_on_a_dying_node(s):
    s.shut_down("pool-a-1")
    s.leave(s.pod(1), 1, message="RuntimeError: device lost")


def node_deleted(s):
    s.nodes["pool-a-1"] = None


def noticed_and_deleted(s):
    """Of a quick end only the last state of the node is left: its pods have not been seen to end."""
    s.shut_down("pool-a-1")
    s.nodes["pool-a-1"]["absent"] = True


def noticed_and_replaced_by_its_namesake(s):
    s.shut_down("pool-a-1")
    s.later(10)
    old = s.nodes["pool-a-1"]
    young = node("pool-a-1", created=stamps.whole(s.now))
    s.nodes["pool-a-1"] = young | {"before": old}


def deleted_after_a_good_word(s):
    s.nodes["pool-a-1"]["absent"] = True


def node_replaced_by_its_namesake(s):
    s.later(10)
    s.nodes["pool-a-1"]["metadata"] |= {"creationTimestamp": stamps.whole(s.now), "uid": "another"}


def collected(s):
    _condition(s.pod(1), "DeletionByPodGC")
    s.pod(1)["status"]["phase"] = "Failed"


def survivor_then_node_deleted(s):
    s.leave(s.pod(0), 69)
    s.decide()
    s.later(5)
    s.nodes["pool-a-1"] = None


def ended_on_dead_node(s):
    ready(s, "pool-a-1", "Unknown")
    s.leave(s.pod(1), 137)


def stuck_on_dead_node(s):
    s.leave(s.pod(0), 69)
    s.settle()
    ready(s, "pool-a-1", "Unknown")
    s.later(10)


def not_admitted(s):
    s.pod(1)["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no devices"}


def evicted_by_api(s):
    _condition(s.pod(1), "EvictionByEvictionAPI")
    _delete(s, 1)


def evicted_by_taint(s):
    _condition(s.pod(1), "DeletionByTaintManager")
    _delete(s, 1)


def preempted_by_scheduler(s):
    _condition(s.pod(1), "PreemptionByScheduler")
    _delete(s, 1)


def pod_deleted(s):
    _delete(s, 1)


def pod_deleted_and_drained(s):
    _delete(s, 1)
    s.leave(s.pod(1), 75, step=3)
    s.leave(s.pod(0), 69)


def pod_force_deleted(s):
    s.pods.remove(s.pod(1))


def jobset_deleted(s):
    s.jobsets.clear()


def jobset_being_deleted(s):
    s.jobsets[0]["metadata"]["deletionTimestamp"] = s.now


def taken_back_by_its_queue(s):
    s.evict()


def exits(code, **message) -> Callable[[Story], None]:
    def happening(s):
        s.leave(s.pod(1), code, **message)

    happening.__name__ = f"exit_{code}" + "".join(f"_{value}" for value in message.values())[:20].replace(" ", "_")
    return happening


def failure_whose_siblings_were_then_deleted(s):
    s.leave(s.pod(0), 70, message="Traceback")
    _delete(s, 1)


def out_of_memory(s):
    s.leave(s.pod(1), 137, reason="OOMKilled")


def kubelet_low_on_memory(s):
    s.leave(s.pod(1), 137)
    s.pod(1)["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
    _condition(s.pod(1), "TerminationByKubelet")


def no_such_command(s):
    s.leave(s.pod(1), 128, reason="StartError")


def bad_image_name(s):
    s.pod(1)["status"]["phase"] = "Pending"
    s.pod(1)["status"]["containerStatuses"] = [
        {"name": "trainer", "state": {"waiting": {"reason": "InvalidImageName"}}}
    ]


def image_cannot_be_pulled_for_minutes(s):
    bad_image_name(s)
    s.pod(1)["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] = "ImagePullBackOff"
    assert not s.settle(), "a registry may recover"
    s.later(121)


def fenced(s):
    s.leave(s.pod(1), 73, owner={"jobUID": "job-uid", "attempt": 7})


def fenced_by_another_job(s):
    s.leave(s.pod(1), 73, owner={"jobUID": "another", "attempt": 1})


def says_that_it_drains(s):
    s.report(step=3, draining=True)


def hangs_with_its_watchdog(s):
    s.report(step=3, phase="update", lastSafePointAgeSeconds=2700.0)


def failed_jobset(s):
    s.jobset_failed()


TABLE = [
    # what happens, verdict, who pays, announced?
    (spot_notice, "Preempted", "preemptions", "graceful"),
    (termination_taint, "Preempted", "preemptions", "graceful"),
    (shut_down_pod, "Preempted", "preemptions", "graceful"),
    (shut_down_and_drained, "Preempted", "preemptions", "graceful"),
    (survivor_then_notice, "Preempted", "preemptions", "graceful"),
    (any_code_on_a_dying_node, "Preempted", "preemptions", "graceful"),
    (noticed_and_deleted, "Preempted", "preemptions", "graceful"),
    (noticed_and_replaced_by_its_namesake, "Preempted", "preemptions", "graceful"),
    (shut_down_before_the_announced_time, "Preempted", "preemptions", "graceful"),
    (on_demand_is_taken, "Preempted", "preemptions", "graceful"),
    (maintenance_label, "Maintenance", "preemptions", "graceful"),
    (maintenance_taint, "Maintenance", "preemptions", "graceful"),
    (maintenance_annotation, "Maintenance", "preemptions", "graceful"),
    (maintenance_and_termination, "Maintenance", "preemptions", "graceful"),
    (maintenance_and_drained, "Maintenance", "preemptions", "graceful"),
    (termination_at_the_announced_time, "Maintenance", "preemptions", "graceful"),
    (shut_down_at_the_announced_time, "Maintenance", "preemptions", "graceful"),
    (gone_at_the_announced_time, "Maintenance", "preemptions", "graceful"),
    (shut_down_at_its_known_end, "Maintenance", "preemptions", "graceful"),
    (restarted_at_the_announced_time, "Maintenance", "preemptions", "graceful"),
    (restarted_under_its_name, "NodeLost", "preemptions", "abrupt"),
    (restarted_under_its_name_with_containerd, "NodeLost", "preemptions", "abrupt"),
    (deleted_and_lost_from_sight, "Deleted", "nothing", "graceful"),
    (node_deleted, "NodeLost", "preemptions", "abrupt"),
    (deleted_after_a_good_word, "NodeLost", "preemptions", "abrupt"),
    (node_replaced_by_its_namesake, "NodeLost", "preemptions", "abrupt"),
    (collected, "NodeLost", "preemptions", "abrupt"),
    (survivor_then_node_deleted, "NodeLost", "preemptions", "abrupt"),
    (ended_on_dead_node, "NodeLost", "preemptions", "abrupt"),
    (stuck_on_dead_node, "NodeLost", "preemptions", "abrupt"),
    (not_admitted, "AdmissionRejected", "preemptions", "abrupt"),
    (evicted_by_api, "Evicted", "preemptions", "graceful"),
    (evicted_by_taint, "Evicted", "preemptions", "graceful"),
    (preempted_by_scheduler, "Evicted", "preemptions", "graceful"),
    (pod_deleted, "Deleted", "nothing", "graceful"),
    (pod_deleted_and_drained, "Deleted", "nothing", "graceful"),
    (pod_force_deleted, "Deleted", "nothing", "graceful"),
    (jobset_deleted, "Deleted", "nothing", "graceful"),
    (jobset_being_deleted, "Deleted", "nothing", "graceful"),
    (exits(64, message="seed too large"), "ConfigurationInvalid", "nothing", "none"),
    (exits(65), "DeterministicFailure", "nothing", "none"),
    (exits(77), "CheckpointUnreadable", "nothing", "none"),
    (exits(74), "StorageUnavailable", "nothing", "none"),
    (exits(71), "Hung", "failures", "none"),
    (exits(72, message="open(/dev/vfio/0): Device or resource busy"), "AcceleratorUnavailable", "preemptions", "none"),
    (exits(70, message="Traceback"), "ApplicationFailed", "failures", "none"),
    (exits(1), "ApplicationFailed", "failures", "none"),
    (exits(2), "ApplicationFailed", "failures", "none"),
    (exits(137), "ApplicationFailed", "failures", "none"),
    (exits(139), "ApplicationFailed", "failures", "none"),
    (exits(200), "ApplicationFailed", "failures", "none"),
    (exits(134, message="LLVM ERROR"), "ApplicationFailed", "failures", "none"),
    (exits(134), "PeerLost", "nothing", "abrupt"),
    (exits(69), "PeerLost", "nothing", "abrupt"),
    (exits(75, step=3), "Drained", "nothing", "none"),
    (exits(143), "Drained", "nothing", "none"),
    (exits(0), "ApplicationFailed", "failures", "none"),
    (taken_back_by_its_queue, "QueueEvicted", "preemptions", "graceful"),
    (failure_whose_siblings_were_then_deleted, "ApplicationFailed", "failures", "none"),
    (out_of_memory, "OutOfMemory", "failures", "none"),
    (kubelet_low_on_memory, "OutOfMemory", "failures", "none"),
    (no_such_command, "StartFailed", "failures", "none"),
    (bad_image_name, "StartFailed", "failures", "none"),
    (image_cannot_be_pulled_for_minutes, "StartFailed", "failures", "none"),
    (fenced, "Fenced", "nothing", "none"),
    (fenced_by_another_job, "TakenOver", "nothing", "none"),
    (says_that_it_drains, "Drained", "nothing", "none"),
    (hangs_with_its_watchdog, "Hung", "failures", "none"),
    (failed_jobset, "ApplicationFailed", "failures", "none"),
]


ABOUT = {
    "failure_whose_siblings_were_then_deleted": "pod sums-a1-s-0-0",
    "spot_notice": "pod sums-a1-s-0-0",
    "pod_force_deleted": "1 of 2 pods have vanished",
    "taken_back_by_its_queue": "suspended JobSet sums-a1",
    "jobset_deleted": "JobSet sums-a1 was deleted",
    "jobset_being_deleted": "JobSet sums-a1 is being deleted",
    "failed_jobset": "JobSet sums-a1 failed",
    "says_that_it_drains": "the trainer reports",
    "hangs_with_its_watchdog": "the trainer has shown no sign of life",
}
"""What the evidence names where it is not the second pod."""
