"""The ladder of placements: tried in order, kept while it works, begun again at the top after a restart."""

from __future__ import annotations

import pytest
from plan_story import Story

from ratchet_operator.decide import decide

SPOT = {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 4, "capacity": "Spot"}
LADDER = [{**SPOT, "waitSeconds": 60}, {**SPOT, "name": "on-demand", "capacity": "OnDemand", "waitSeconds": 60}]


def waiting(story: Story) -> Story:
    """Pods that find no node."""
    story.settle()
    story.make_pods()
    story.settle()
    return story


def test_the_next_placement_is_tried_when_the_first_has_no_room():
    story = waiting(Story(placements=LADDER))
    assert story.condition("Placed")["reason"] == "WaitingForCapacity"
    story.later(59).settle()
    assert story.attempt["placement"] == "spot"
    story.later(2).settle()
    assert (story.attempt["number"], story.attempt["placement"]) == (2, "on-demand")
    record = story.record(1)
    assert (record["verdict"], record["chargedTo"]) == ("Unschedulable", "nothing")
    assert story.counters["disturbancesWithoutProgress"] == 0


def test_the_ladder_goes_round():
    story = waiting(Story(placements=LADDER))
    for placement in ("on-demand", "spot", "on-demand"):
        story.later(61).settle()
        assert story.attempt["placement"] == placement
        waiting(story)


def test_a_single_placement_is_waited_for():
    story = waiting(Story(placements=LADDER[:1]))
    story.later(100_000).settle()
    assert story.attempt["number"] == 1


def test_a_job_that_runs_stays_and_goes_back_to_the_top_after_a_restart():
    story = waiting(Story(placements=LADDER))
    story.later(61).settle()
    story.up()
    story.later(3600)
    assert story.decide().empty
    story.shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    assert story.attempt["placement"] == "spot"


def test_soon_after_a_vain_try_the_working_placement_is_kept():
    story = waiting(Story(placements=LADDER))
    story.later(61).settle()
    story.up()
    story.shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    assert story.attempt["placement"] == "on-demand"


def test_a_gang_that_found_only_some_nodes_moves_as_a_whole():
    story = waiting(Story(placements=LADDER))
    keep = story.pods.pop()
    story.place()
    story.pods.append(keep)
    story.later(61)
    plan = story.decide()
    assert sorted(d.kind for d in plan.delete) == ["JobSet", "Pod", "Pod"]


def half_placed(story: Story) -> Story:
    """One pod runs, the other one finds no node; the one that runs gives up waiting for it."""
    waiting(story)
    keep = story.pods.pop()
    story.place()
    story.run()
    story.pods.append(keep)
    story.settle()
    story.leave(story.pod(0), 69, message="process 1 did not come")
    return story


def test_peers_that_never_found_a_node_are_no_failure_and_the_next_placement_is_tried():
    story = half_placed(Story(placements=LADDER))
    story.settle()
    record = story.record(1)
    assert (record["verdict"], record["chargedTo"]) == ("Unschedulable", "nothing")
    assert story.attempt["placement"] == "on-demand"
    assert story.counters["failures"] == 0


def test_no_attempt_that_never_ran_as_a_whole_is_charged_for_lost_peers():
    story = Story(placements=LADDER[:1], restart={"failureLimit": 0})
    for number in (1, 2, 3):
        half_placed(story).settle()
        record = story.record(number)
        assert (record["verdict"], record["chargedTo"]) == ("PeerLost", "nothing")
        story.gone()
        story.later(700)
    assert story.counters["failures"] == 0


def test_members_that_drain_do_not_hide_that_there_was_no_room():
    story = waiting(Story(placements=LADDER))
    keep = story.pods.pop()
    story.place()
    story.run()
    story.pods.append(keep)
    story.later(61).decide()
    story.leave(story.pod(0, 1), 75)
    story.settle()
    assert story.record(1)["verdict"] == "Unschedulable"
    assert story.attempt["placement"] == "on-demand"


def test_a_ladder_that_changes_before_the_objects_are_made_is_written_down_with_them():
    story = Story(placements=LADDER[:1])
    story.apply(decide(story.snapshot()), acts=1)  # authorized, and then the operator ended
    assert story.attempt["podsTotal"] == 2
    story.job["spec"]["placements"] = [{**SPOT, "name": "small", "topology": "2x2"}]
    story.job["metadata"]["generation"] += 1
    plan = story.decide()
    assert plan.status_first
    assert (story.attempt["placement"], story.attempt["podsTotal"]) == ("small", 1)
    story.make_pods()
    assert len(story.pods) == 1


@pytest.mark.parametrize(
    "ladder", [LADDER[1:], [{**LADDER[0], "name": "other"}], [*LADDER[1:], {**LADDER[0], "name": "x"}]]
)
def test_an_attempt_that_waits_on_a_placement_which_was_removed_gives_up(ladder):
    story = waiting(Story(placements=LADDER))
    story.job["spec"]["placements"] = ladder
    story.settle()
    assert story.record(1)["verdict"] == "Unschedulable"
    assert "no longer in the spec" in story.record(1)["evidence"]
    assert story.attempt["placement"] == ladder[0]["name"]
