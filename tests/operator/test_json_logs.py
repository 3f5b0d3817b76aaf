"""The operator's log in JSON, every line of it, and what it has trainers do."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

from plan_story import Story
from running_operator import until

from ratchet_operator.app import Config


async def test_every_line_is_an_object_and_lines_about_a_job_name_it(world):
    operator = await (await world.operator(RATCHET_LOG_FORMAT="json")).leads()
    await world.apply()
    await world.running()
    lines = [json.loads(line) for line in operator.log.splitlines()]
    (starts,) = [line for line in lines if "AttemptStarts" in line["message"]]
    assert (starts["namespace"], starts["job"], starts["severity"]) == (world.namespace, "sums", "INFO")
    (lease,) = [line for line in lines if "holding Lease" in line["message"]]
    assert "job" not in lease
    placed = [line for line in lines if line.get("attempt") == 1]
    assert all(line["job"] == "sums" for line in placed)
    os.kill(operator.worker, signal.SIGKILL)
    await until("the parent says so", lambda: "starting it again" in operator.log)
    assert all(json.loads(line)["time"] for line in operator.log.splitlines())


def test_trainers_write_as_the_operator_does():
    def env(json_logs):
        story = Story()
        story.values = replace(story.values, json_logs=json_logs)
        template = story.decide().create[1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
        return {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}

    assert env(True)["RATCHET_LOG_FORMAT"] == "json"
    assert "RATCHET_LOG_FORMAT" not in env(False)
    assert Config.from_environment({"RATCHET_LOG_FORMAT": "json"}).values.json_logs is True
