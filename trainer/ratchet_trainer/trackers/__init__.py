"""Trackers: programs that show the metrics of runs, and how they are told of this one.

    lines.py         the committed metric stream as records: what trackers are told
    follower.py      one process a tracker: reads the stream, tells the tracker, says how far it is
    tracker.py       what a tracker is asked, and the table of those that there are
    event_file.py    TensorBoard's file format      tensor_board.py, wandb_run.py, mlflow_run.py, trackio_run.py

`metrics.jsonl` alone says which steps exist. A follower begins by asking the tracker itself what it has: there is no
second record of it, which a kill could leave ahead or behind. So every step is there once, wherever a process died.
The process of the training only starts followers (`process/tracking.py`); nothing that a tracker does reaches a step.
"""
