"""What status and events say of trackers: how far each is, and once when one is no longer told."""

from __future__ import annotations

from plan_story import Story, job

WANTED = {"tensorBoard": {}, "mlflow": {}}


def shown(name: str, state: str, step: int, message: str = "") -> dict[str, object]:
    return {"name": name, "state": state, "step": step, "message": message}


def test_trackers_are_shown_as_the_trainer_says_and_trouble_is_an_event_once():
    story = Story(job(trackers=WANTED)).begin()
    board, behind = shown("tensorBoard", "Following", 3), shown("mlflow", "Behind", 1, "no route")
    story.report(step=3, phase="update", trackers=[board, behind, shown("unasked", "Left", 0, "x")])
    story.settle()
    assert story.status["trackers"] == [
        {"name": "tensorBoard", "state": "Following", "step": 3},
        {"name": "mlflow", "state": "Behind", "step": 1, "message": "no route"},
    ], "only those of the spec"
    story.report(step=4, phase="update", trackers=[board, behind])
    story.settle()
    assert story.events.count("TrackerBehind") == 1
    story.report(step=5, phase="update", trackers=[board, shown("mlflow", "Following", 5)])
    story.settle()
    assert story.status["trackers"][1] == {"name": "mlflow", "state": "Following", "step": 5}
