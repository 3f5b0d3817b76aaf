"""A run of MLflow, found again by a tag with the job's UID.

Decides how it comes to have each step once. MLflow adds a value to a metric's history however often it is told of it,
and a call with many values may be carried out in part. So the histories are asked for at the beginning, and only what
they lack is told; of steps that were made again the first values stay.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ratchet_trainer.trackers.lines import StepRecord
from ratchet_trainer.trackers.tracker import TrackedRun, needed

TAG = "ratchet.job_uid"
VALUES_AT_ONCE = 1000
"""What MLflow takes in one call."""
FORBIDDEN = re.compile(r"[^A-Za-z0-9_\-. :/]")
HTTP = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Its own patience is a quarter of an hour; the follower has more, and says meanwhile what it waits for."""


def make(settings: Mapping[str, Any], run: TrackedRun) -> MlflowRun:
    return MlflowRun(settings, run)


class MlflowRun:
    def __init__(self, settings: Mapping[str, Any], run: TrackedRun):
        self._job, self._experiment = run, settings.get("experiment") or run.name
        self._uri = settings.get("trackingURI") or str(run.directory / "mlflow")
        self._client: Any = None
        self._metric: Any = None
        self._run_id = ""
        self._have: dict[str, set[int]] = {}  # name -> steps in its history, as far as they may be told of again

    def open(self, records: Sequence[StepRecord]) -> int:
        for name, value in HTTP.items():
            os.environ.setdefault(name, value)
        if self._uri.startswith("/"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow = needed("mlflow", "mlflow-skinny")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient(tracking_uri=self._uri)
        self._run_id = self._run()
        names = self._client.get_run(self._run_id).data.metrics
        self._have = {name: {m.step for m in self._client.get_metric_history(self._run_id, name)} for name in names}
        known = 0
        while known < len(records) and not self._lacking(records[known]):
            known += 1
        return known

    def log(self, records: Sequence[StepRecord]) -> None:
        now = int(time.time() * 1000)
        new = [
            self._metric(name, value, now, record.step)
            for record in records
            for name, value in self._lacking(record).items()
        ]
        for at in range(0, len(new), VALUES_AT_ONCE):
            self._client.log_batch(self._run_id, metrics=new[at : at + VALUES_AT_ONCE], synchronous=True)

    def close(self) -> None:
        """Nothing is open, and whether the run is over is the job's status to say."""

    def _run(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(self._experiment)
        runs = self._client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{self._job.uid}'")
        if runs:
            return str(runs[0].info.run_id)
        tags = {TAG: self._job.uid, "ratchet.namespace": self._job.namespace, "ratchet.job": self._job.name}
        return str(self._client.create_run(experiment, tags=tags, run_name=self._job.name).info.run_id)

    def _lacking(self, record: StepRecord) -> dict[str, float]:
        """The values of a record that the histories do not have, by MLflow's names."""
        named = {FORBIDDEN.sub("_", name): value for name, value in record.metrics.items()}
        return {name: value for name, value in named.items() if record.step not in self._have.get(name, ())}
