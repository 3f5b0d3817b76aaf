"""A round is verified by all processes together; an endpoint that answers nothing at all ends the attempt."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cases import case, spec

from ratchet_trainer.algorithm.verifiers.outcome_journal import NAME
from ratchet_trainer.errors import VerifierUnavailable
from ratchet_trainer.rollout.verification import FEWEST, Judges, Verification


class Alone:
    """One process that nobody tells to go."""

    process, processes = 0, 1

    def gather(self, value):
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
    down.close()
    assert not (tmp_path / "outcomes" / "0-of-1" / NAME).exists()


def test_few_responses_without_an_answer_are_failed_ones_and_are_kept(tmp_path: Path) -> None:
    down = verification(f"http://127.0.0.1:{free_port()}/score", tmp_path)
    outcomes = asked(down, [str(n) for n in range(FEWEST - 1)])
    down.close()
    assert {outcome.status for outcome in outcomes} == {"crash"}
    assert (tmp_path / "outcomes" / "0-of-1" / NAME).read_bytes().count(b"\n") == FEWEST - 1
