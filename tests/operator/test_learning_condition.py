"""The condition Learning: what the trainer says of learning, as the user sees it."""

from __future__ import annotations

import pytest
from plan_story import Story

from ratchet_api.crd import PRINTER_COLUMNS
from ratchet_api.protocol.documents import LEARNING_REASONS, Learning
from ratchet_operator.job_metrics import Jobs

NOTHING_LEARNED = {"status": "False", "reason": "NoInformativeGroups", "message": "expected 5, given '2 + 3 = 5'"}
LEARNS = {"status": "True", "reason": "Learning", "message": ""}


def running(**learning) -> Story:
    story = Story().begin()
    story.report(step=5, learning=learning or None)
    story.settle()
    return story


def seen(story: Story) -> tuple[str, str]:
    condition = story.condition("Learning")
    return condition["status"], condition["reason"]


def series(story: Story) -> dict[str, float]:
    jobs = Jobs()
    jobs.say("team", "sums", story.job)
    family = next(m for m in jobs.collect() if m.name == "ratchet_condition")
    return {s.labels["reason"]: s.value for s in family.samples if s.labels["type"] == "Learning"}


def test_it_is_unknown_from_the_first_reconcile():
    story = Story()
    story.decide()
    assert seen(story) == ("Unknown", "NotYetKnown")


@pytest.mark.parametrize("reason", sorted(LEARNING_REASONS))
def test_it_shows_what_the_trainer_says(reason):
    said = Learning.because(reason, "in words").plain()
    story = running(**said)
    assert story.condition("Learning")["message"] == "in words"
    assert seen(story) == (LEARNING_REASONS[reason][0], reason)
    assert series(story) == {reason: 1.0}


def test_the_status_is_the_one_that_belongs_to_the_reason():
    """A trainer that says True for AllSolved is not believed in that."""
    assert seen(running(status="True", reason="AllSolved")) == ("False", "AllSolved")


def test_a_reason_that_only_a_newer_trainer_knows_changes_nothing():
    assert seen(running(status="False", reason="MoonPhase")) == ("Unknown", "NotYetKnown")


def test_each_new_reason_is_a_warning_and_the_return_to_learning_is_told():
    story = running(**LEARNS)
    assert not {"Learning", "NoInformativeGroups"} & set(story.events), "that all is well needs no event"
    for learning in (NOTHING_LEARNED, Learning.because("RewardFalling").plain(), LEARNS, LEARNS):
        story.report(step=6, learning=learning)
        story.settle()
    assert [e for e in story.events if e in LEARNING_REASONS] == ["NoInformativeGroups", "RewardFalling", "Learning"]
    kinds = {event.reason: event.type for plan in story.plans for event in plan.events}
    assert (kinds["NoInformativeGroups"], kinds["Learning"]) == ("Warning", "Normal")


def test_other_words_for_the_same_reason_wait_for_the_next_flush():
    story = running(**NOTHING_LEARNED)
    story.flush_due = False
    story.report(step=5, learning={**NOTHING_LEARNED, "message": "expected 5, given 'five'"})
    assert story.decide().empty
    story.flush_due = True
    story.settle()
    assert story.condition("Learning")["message"] == "expected 5, given 'five'"
    assert story.events.count("NoInformativeGroups") == 1


def test_another_reason_does_not_wait():
    story = running(**LEARNS)
    story.flush_due = False
    story.report(step=5, learning=NOTHING_LEARNED)
    assert not story.decide().empty
    assert seen(story) == ("False", "NoInformativeGroups")


def test_the_last_word_stands_while_the_next_attempt_starts():
    story = running(**NOTHING_LEARNED)
    story.leave(story.pod(0), 75, step=5).leave(story.pod(1), 75, step=5)
    story.settle()
    story.up("pool-b")
    assert story.attempt["number"] == 2
    assert seen(story) == ("False", "NoInformativeGroups")
    assert story.events.count("NoInformativeGroups") == 1


def test_kubectl_shows_it():
    column = next(column for column in PRINTER_COLUMNS if column[0] == "Learning")
    assert column[1:4] == ("string", '.status.conditions[?(@.type=="Learning")].status', 0)
