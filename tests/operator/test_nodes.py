"""What is remembered of nodes: the last word of one that is gone, and of the machine that had a name before."""

from __future__ import annotations

import asyncio

from ratchet_operator.observe import Nodes

KEY = ("team", "sums")


def node(uid: str, ready: str = "True") -> dict:
    """A node that says that it is well, or that it is going."""
    word = {"type": "Ready", "status": ready, "message": "" if ready == "True" else "node is shutting down"}
    return {"metadata": {"name": "n", "uid": uid}, "spec": {}, "status": {"conditions": [word]}}


def pod(name: str = "n", phase: str = "Running") -> dict:
    return {"metadata": {"name": f"on-{name}"}, "spec": {"nodeName": name}, "status": {"phase": phase}}


class Answers:
    """What the API server answers, and what is heard from it meanwhile."""

    def __init__(self, nodes: Nodes, answers: dict, meanwhile=lambda nodes: None):
        self.nodes, self.answers, self.meanwhile = nodes, answers, meanwhile

    async def get(self, kind: str, name: str):
        answer = self.answers.get(name)
        self.meanwhile(self.nodes)
        return answer


def ready(found: dict) -> str:
    return found["status"]["conditions"][0]["status"]


def look(nodes: Nodes, pods: list, answers: dict, meanwhile=lambda nodes: None) -> dict:
    return asyncio.run(nodes.of(Answers(nodes, answers, meanwhile), KEY, pods))


def watching() -> Nodes:
    """A job runs on node n, and all is well."""
    nodes = Nodes(lambda key: None)
    nodes.hear(node("one"), gone=False)
    assert ready(look(nodes, [pod()], {})["n"]) == "True"
    return nodes


def test_the_last_word_of_a_node_outlives_it():
    nodes = watching()
    nodes.hear(node("one", "False"), gone=False)
    nodes.hear(node("one", "False"), gone=True)
    found = look(nodes, [pod()], {})["n"]
    assert (found["absent"], ready(found)) == (True, "False")


def test_the_event_of_a_deletion_may_be_the_only_word():
    nodes = watching()
    nodes.hear(node("one", "False"), gone=True)
    assert ready(look(nodes, [pod()], {})["n"]) == "False"


def test_a_slow_answer_does_not_undo_what_was_heard_meanwhile():
    def noticed_and_deleted(nodes: Nodes) -> None:
        nodes.hear(node("one", "False"), gone=False)
        nodes.hear(node("one", "False"), gone=True)

    nodes = watching()
    look(nodes, [pod(phase="Failed")], {"n": node("one")}, noticed_and_deleted)
    found = look(nodes, [pod(phase="Failed")], {})["n"]
    assert (found["absent"], ready(found)) == (True, "False")


def test_a_node_that_goes_while_another_is_read_is_still_the_one_that_was_known():
    nodes = watching()
    nodes.hear(node("two") | {"metadata": {"name": "m", "uid": "two"}}, gone=False)
    answers = {"n": node("one")}
    found = look(
        nodes,
        [pod("n", "Failed"), pod("m")],
        answers,
        lambda nodes: nodes.hear({"metadata": {"name": "m", "uid": "two"}}, gone=True),
    )
    assert set(found) == {"n", "m"}


def test_a_machine_with_the_name_of_another_has_its_own_word():
    nodes = watching()
    nodes.hear(node("one", "False"), gone=True)
    nodes.hear(node("two"), gone=False)
    found = look(nodes, [pod()], {})["n"]
    assert (ready(found), "absent" in found) == ("True", False)
    assert ready(found["before"]) == "False"
    nodes.hear(node("two"), gone=True)
    found = look(nodes, [pod()], {})["n"]
    assert (found["absent"], ready(found), ready(found["before"])) == (True, "True", "False")


def test_nothing_is_remembered_of_nodes_that_no_job_is_on():
    nodes = watching()
    nodes.hear(node("one", "False"), gone=True)
    look(nodes, [], {})
    assert look(nodes, [pod()], {})["n"] is None
    nodes.leave(KEY)
    assert (nodes._last, nodes._before, nodes._jobs) == ({}, {}, {})
