"""A round is verified by all processes together; an endpoint that answers nothing at all ends the attempt."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cases import case, spec

from ratchet_trainer import rollout
from ratchet_trainer.algorithm.verifiers.outcome_journal import NAME
from ratchet_trainer.errors import VerifierUnavailable
from ratchet_trainer.rollout.verification import FEWEST, Judges, Verification


class Alone:
    """One process that nobody tells to go. `said`: everything that it told."""

    process, processes = 0, 1

    def __init__(self) -> None:
        self.said = []

    def gather(self, value):
        self.said.append(value)
        return [value]

    def safe_point(self) -> None:
        pass


def verification(url: str, folder: Path) -> Verification:
    endpoint = spec("http", "whole", url=url, secretVariable=None, timeoutSeconds=1, retries=0)
    return Verification(Judges((endpoint,)), folder)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def asked(verification: Verification, responses: list[str]):
    cases = [case(response) for response in responses]
    return verification.of(cases, list(range(len(cases))), [0] * len(cases), Alone())


def test_an_endpoint_that_is_down_ends_the_attempt_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/score"
    down = verification(url, tmp_path)
    with pytest.raises(
        VerifierUnavailable, match=rf"{url} answered none of the {FEWEST} responses.*refused.*See that it is up"
    ):
        asked(down, [str(n) for n in range(FEWEST)])
    with pytest.raises(VerifierUnavailable, match=rf"none of the {FEWEST} responses"):
        asked(down, ["the same"] * FEWEST)
    down.close()
    assert not (tmp_path / "outcomes" / "0-of-1" / NAME).exists()


def test_few_responses_without_an_answer_are_failed_ones_and_are_kept(tmp_path: Path) -> None:
    down = verification(f"http://127.0.0.1:{free_port()}/score", tmp_path)
    outcomes = asked(down, [str(n) for n in range(FEWEST - 1)])
    down.close()
    assert {outcome.status for outcome in outcomes} == {"crash"}
    assert (tmp_path / "outcomes" / "0-of-1" / NAME).read_bytes().count(b"\n") == FEWEST - 1


@pytest.mark.parametrize("cases", [0, 1, 7])
def test_many_outcomes_are_told_in_several_messages(cases: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout.verification, "TOLD_AT_A_TIME", 3)
    exact, group = Verification(Judges()), Alone()
    answers = [str(n) for n in range(cases)]
    outcomes = exact.of([case(text) for text in answers], list(range(cases)), [0] * cases, group)
    exact.close()
    assert [outcome.extracted for outcome in outcomes] == answers
    told = [message for message in group.said if message and isinstance(message[0], list)]
    assert [len(message) for message in told] == {0: [], 1: [1], 7: [3, 3, 1]}[cases]


def test_equal_responses_get_one_outcome_which_a_replay_finds(tmp_path: Path) -> None:
    """A judge that says something else each time: the journal has one outcome for an item and a response."""
    said = iter(range(9))

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"score": 0.%d}' % next(said)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not here."""

    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = []
    for _ in range(2):
        judge = verification(f"http://127.0.0.1:{server.server_port}/score", tmp_path)
        found.append([outcome.score for outcome in asked(judge, ["a", "b", "a", "a"])])
        judge.close()
    server.shutdown()
    server.server_close()
    assert found[0][0] == found[0][2] == found[0][3] != found[0][1]
    assert found[1] == found[0]
    assert next(said) == 2, "each was asked once"
