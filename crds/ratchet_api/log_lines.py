"""How a process of Ratchet writes its log: one line an event, as text for people or as JSON for whoever collects logs.

    {"time": "2026-01-02T03:04:05.678Z", "severity": "INFO", "logger": "ratchet_operator.events", "message": "...",
     "namespace": "team", "job": "sums", "attempt": 3}

`severity`, `message` and `time` are the names that Cloud Logging reads by itself. `exception` has a traceback where
there is one. What a process knows of its job (`fields`) is in every line.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from ratchet_api import protocol

ENV_LOG_FORMAT = "RATCHET_LOG_FORMAT"
"""`json`, or text."""
JSON = "json"

Fields = Callable[[], Mapping[str, Any]]
"""What is known of whom a line is about."""


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, fields: Fields = dict):
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in self._fields().items() if value not in (None, "")},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(stream: TextIO, text: logging.Formatter, fields: Fields = dict) -> None:
    """Sets the process's log up: its level from RATCHET_LOG_LEVEL, its form from RATCHET_LOG_FORMAT. Raises ValueError
    for a level that there is not."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(fields) if wants_json(os.environ) else text)
    logging.basicConfig(level=os.environ.get("RATCHET_LOG_LEVEL", "INFO").upper(), handlers=[handler])


def wants_json(env: Mapping[str, str]) -> bool:
    """Whether the log is to be JSON."""
    return env.get(ENV_LOG_FORMAT, "").lower() == JSON


def of_pod(env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What a line of a trainer's log says of its job, by the environment of its pod. Nothing is required, and nothing
    can be wrong."""
    attempt = env.get(protocol.ENV_ATTEMPT, "")
    return {
        "namespace": env.get(protocol.ENV_NAMESPACE),
        "job": env.get(protocol.ENV_JOB_NAME),
        "attempt": int(attempt) if attempt.isdecimal() else None,
    }
