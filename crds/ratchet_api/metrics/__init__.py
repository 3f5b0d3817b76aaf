"""The registry of metrics: every name that operator and trainer export, with its type, labels, help text and owner.

Exporters take names and texts from here, and the documentation, the dashboards and the alert rules are made from it or
checked against it. One owner a name: no series is exported by two programs.
"""

from ratchet_api.metrics.metric import GROUPS, JOB_LABELS, Metric
from ratchet_api.metrics.of_operator import OPERATOR
from ratchet_api.metrics.of_trainer import TRAINER

METRICS: tuple[Metric, ...] = (*OPERATOR, *TRAINER)
BY_NAME = {metric.name: metric for metric in METRICS}

__all__ = ["BY_NAME", "GROUPS", "JOB_LABELS", "METRICS", "OPERATOR", "TRAINER", "Metric"]
