"""What reaches status from the trainer's reports: progress, checkpoint, steps lost, the parts of a recovery."""

from __future__ import annotations

from plan_story import Story

from ratchet_operator.plan import Plan


def test_progress_and_checkpoint_are_shown_as_decimal_strings():
    story = Story().begin()
    story.later(10).report(
        step=4, targetStep=10, reward=0.123456789, accuracy=1.0, tokensPerSecond=1234.5, phase="generate",
        checkpoint={"step": 3, "path": "steps/3-a1-00000000", "time": None},
    )  # fmt: skip
    story.settle()
    progress = story.status["progress"]
    assert (progress["step"], progress["targetStep"], progress["text"]) == (4, 10, "4/10")
    assert (progress["reward"], progress["accuracy"], progress["tokensPerSecond"]) == ("0.123457", "1", "1234.5")
    assert progress["estimatedCompletionTime"] == "2026-01-02T03:05:45Z", "4 steps in 10 s, 36 to go"
    assert story.status["checkpoint"]["step"] == 3
    assert story.status["checkpoint"]["path"] == "steps/3-a1-00000000"


def test_progress_alone_waits_for_the_flush():
    story = Story().begin()
    story.flush_due = False
    story.later(1).report(step=1)
    assert story.decide().status is None
    story.flush_due = True
    assert story.decide().status["progress"]["step"] == 1
    assert story.decide().empty


def test_the_end_of_an_attempt_does_not_wait_for_the_flush():
    story = Story().begin()
    story.flush_due = False
    story.later(1).report(step=7, checkpoint={"step": 6})
    story.leave(story.pod(0), 1)
    status = story.decide().status
    assert (status["progress"]["step"], status["checkpoint"]["step"]) == (7, 6)
    assert story.record(1)["endStep"] == 7


def test_an_answer_of_another_attempt_is_not_believed():
    story = Story().begin()
    story.report(step=5)
    story.progress["jobSetUID"] = "another"
    assert story.decide().empty


def test_a_loss_without_notice_counts_the_steps_that_are_executed_again():
    story = Story().begin()
    story.report(step=12, checkpoint={"step": 9}).settle()
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    story.settle()
    story.up("pool-b")
    story.report(startStep=10, step=10, phase="compile", checkpoint={"step": 10}).settle()
    assert story.record(1)["stepsLost"] == 2, "12 was reported, 10 had been committed without having been reported"
    assert story.counters["stepsLost"] == 2
    assert story.attempt["startStep"] == 10
    assert story.status["progress"]["step"] == 12, "status never goes back"
    story.report(startStep=10, step=11, phase="update").settle()
    assert story.counters["stepsLost"] == 2, "counted once"


def test_an_older_checkpoint_than_the_known_one_is_accepted_once_and_told():
    """Somebody put an older copy in its place, or the newer ones cannot be read."""
    story = Story().begin()
    story.report(step=12, checkpoint={"step": 9}).settle()
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    story.settle()
    story.up("pool-b")
    assert story.attempt["startStep"] == 9
    for step in (4, 5, 6):
        story.report(startStep=4, step=step, checkpoint={"step": step}).settle()
    assert story.attempt["startStep"] == 4
    assert (story.record(1)["stepsLost"], story.counters["stepsLost"]) == (8, 8)
    assert story.events.count("OlderCheckpoint") == 1
    assert story.status["checkpoint"]["step"] == 9, "status never goes below what it recorded"
    assert story.attempt["number"] == 2


def test_what_an_attempt_has_committed_itself_is_no_newer_checkpoint_than_it_began_with():
    """The first that is heard of it may come late."""
    story = Story().begin()
    story.report(step=12, checkpoint={"step": 9}).settle()
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    story.settle()
    story.up("pool-b")
    story.report(startStep=9, step=29, checkpoint={"step": 27}).settle()
    assert "OlderCheckpoint" not in story.events
    assert story.attempt["startStep"] == 9


def test_from_where_on_a_run_is_exact_is_shown():
    story = Story().begin()
    story.report(step=12, exactSince={"step": 10, "reason": "versions.jax: 1 -> 2"}).settle()
    assert story.status["exactSince"] == {"step": 10, "reason": "versions.jax: 1 -> 2"}


def test_with_notice_nothing_is_lost():
    story = Story().begin()
    story.report(step=12, checkpoint={"step": 9}).settle()
    story.shut_down("pool-a-0", "pool-a-1")
    story.settle()
    for index in (0, 1):
        story.leave(story.pod(index), 75, step=13)
    story.settle()
    assert story.record(1)["endStep"] == 13
    story.up("pool-b")
    story.report(startStep=13, step=13, phase="compile").settle()
    assert story.record(1)["stepsLost"] == 0


def test_nothing_is_lost_though_nobody_heard_the_last_words():
    """Pods may be gone before their end was seen, and the next attempt may be steps ahead before it is first asked."""
    story = Story().begin()
    story.report(step=12, checkpoint={"step": 9}).settle()
    story.shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.pods, story.nodes["pool-a-0"], story.nodes["pool-a-1"] = [], None, None
    story.settle()
    story.up("pool-b")
    story.report(step=12, phase="restore").settle()
    assert "stepsLost" not in story.record(1), "not known yet"
    story.report(startStep=13, step=20, phase="generate", parts={"restore": 0.2, "step": 0.5}).settle()
    assert story.record(1)["stepsLost"] == 0
    assert story.attempt["startStep"] == 13


def test_attempts_that_made_no_step_lose_none():
    story = Story().begin()
    story.report(step=5, checkpoint={"step": 5}).settle()
    for _ in range(2):
        story.leave(story.pod(0), 69).leave(story.pod(1), 69)
        story.settle()
        story.up("pool-b")
    story.report(startStep=5, step=5, phase="generate").settle()
    assert [r["stepsLost"] for r in story.status["attempts"]] == [0, 0]


def test_every_part_of_a_recovery_is_kept():
    story = Story().begin()
    story.report(step=12, checkpoint={"step": 12}).settle()
    story.shut_down("pool-a-0", "pool-a-1")
    for name in ("pool-a-0", "pool-a-1"):
        story.nodes[name]["status"]["conditions"][0]["lastTransitionTime"] = story.now  # to the millisecond
    story.later(0.2).settle()  # detect
    story.later(1.1)  # drain
    story.leave(story.pod(0), 75, step=12).leave(story.pod(1), 75, step=12)
    plans = [story.decide()]
    story.later(0.05)  # the JobSet is created and seen
    story.settle()
    story.later(0.3).up("pool-b")  # place
    seconds = {"start": 1.25, "restore": 0.4, "compile": 0.9, "step": 0.65}
    story.later(3).report(step=13, phase="update", parts=seconds, checkpoint={"step": 13}).settle()
    assert story.record(1)["recovery"] == {
        "detect": "0.2", "drain": "1.1", "fence": "0.05", "place": "0.3",
        "start": "1.25", "restore": "0.4", "compile": "0.9", "step": "0.65", "total": "4.65",
    }  # fmt: skip
    assert all(isinstance(plan, Plan) for plan in plans)
    before = story.record(1)
    story.later(5).report(step=14, phase="update", parts=seconds).settle()
    assert story.record(1) == before, "written once"


def test_whole_seconds_are_read_as_their_middle():
    """Kubernetes cuts the stamps of conditions to whole seconds, which alone would make half a second of `detect`."""
    story = Story().begin()
    story.later(0.4).shut_down("pool-a-0", "pool-a-1")
    story.later(0.2).settle()
    assert story.record(1)["recovery"]["detect"] == "0.1"


def test_a_restarted_operator_still_knows_the_last_step():
    story = Story().begin()
    story.later(1).report(step=7, checkpoint={"step": 6}).settle()
    story.progress = None
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.settle()
    assert story.record(1)["endStep"] == 7


def test_a_kubelet_whose_clock_is_ahead_makes_no_negative_times():
    story = Story().begin()
    story.shut_down("pool-a-0", "pool-a-1")
    story.nodes["pool-a-0"]["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-02T03:05:00Z"
    story.settle()
    assert story.record(1)["recovery"]["detect"] == "0"


def test_only_the_last_twenty_attempts_are_kept():
    story = Story().begin()
    for step in range(1, 26):
        story.report(step=step, checkpoint={"step": step}).settle()
        story.leave(story.pod(0), 69).leave(story.pod(1), 69)
        story.settle()
        story.later(1).up("pool-b")
        story.pods = story.pods[-2:]
    assert [r["number"] for r in story.status["attempts"]] == list(range(6, 26))
    assert story.counters["attempts"] == 26
