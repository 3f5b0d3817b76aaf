"""A log in JSON: one object a line, whatever is said."""

from __future__ import annotations

import io
import json
import logging

from ratchet_api.log_lines import JsonLines


def said(fields, act) -> list[dict]:
    """What a logger with these fields writes, line by line."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(lambda: fields))
    logger = logging.Logger("some.part")
    logger.addHandler(handler)
    act(logger)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_object_with_whom_it_is_about():
    (line,) = said(
        {"job": "sums", "attempt": 3, "process": 0, "namespace": None}, lambda log: log.warning("%s\n%d", "a", 1)
    )
    assert line.pop("time").endswith("Z")
    assert line == {
        "severity": "WARNING",
        "logger": "some.part",
        "message": "a\n1",
        "job": "sums",
        "attempt": 3,
        "process": 0,
    }


def test_a_traceback_is_part_of_its_line():
    def act(log):
        try:
            raise ValueError("no\nway")
        except ValueError:
            log.exception("it failed")

    (line,) = said({}, act)
    assert line["message"] == "it failed"
    assert line["exception"].endswith("ValueError: no\nway")
