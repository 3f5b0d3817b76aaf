"""An endpoint may be down, slow or mad: each is named, and what it says in the end counts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest
from cases import case, spec, verified
from serving import served

from ratchet_trainer.algorithm.outcome import Case, NoOutcome, Outcome
from ratchet_trainer.algorithm.verifiers import http
from ratchet_trainer.algorithm.verifiers.pool import VerifierPool
from ratchet_trainer.errors import ConfigurationInvalid

Answer = Callable[["Endpoint"], None]


class Endpoint(BaseHTTPRequestHandler):
    """Answers by the last word of the response that it is asked about."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Endpoint.asked.append(question | {"authorization": self.headers["Authorization"]})
        times = sum(q["response"] == question["response"] for q in Endpoint.asked)
        how = question["response"]
        if how == "503 once":
            self.say(503 if times == 1 else 200, b'{"score": 1}')
        elif how.isdigit():
            self.send_response(int(how))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif how == "slow":
            time.sleep(1.5)
        elif how == "trickle":
            self.send_response(200)
            self.end_headers()
            for _ in range(30):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif how == "hangs up":
            self.connection.close()
        elif how == "no http":
            self.wfile.write(b"hello\n")
        elif how == "endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b"[" * 65_536)
        else:
            self.say(200, how.encode())

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Endpoint.asked = []
    with served(Endpoint) as url:
        yield f"{url}/score"


def built(url: str, retries: int = 0, secret: str | None = None) -> Callable[[Case], Outcome]:
    return http.build(spec("http", "whole", url=url, secretVariable=secret, timeoutSeconds=1, retries=retries))


def test_what_the_endpoint_says_is_the_outcome(url: str):
    said = {"score": 0.5, "accuracy": 1, "parts": {"style": 0.25}, "extracted": "five"}
    outcome = built(url)(case(json.dumps(said), index=3, level="hard"))
    assert outcome == Outcome(1.0, 0.5, "five", {"style": 0.25}, pure=False)
    (asked,) = Endpoint.asked
    assert (asked["question"], asked["answer"], asked["finish"]) == ("2 + 3 =", "5", "end")
    assert asked["item"] == {"question": "2 + 3 =", "answer": "5", "index": 3, "level": "hard"}


def test_the_secret_goes_with_the_request_and_without_it_the_job_is_refused(url: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationInvalid, match="JUDGE_SECRET"):
        built(url, secret="JUDGE_SECRET")
    monkeypatch.setenv("JUDGE_SECRET", "abc\n")
    built(url, secret="JUDGE_SECRET")(case('{"score": 1}'))
    assert Endpoint.asked[0]["authorization"] == "Bearer abc"


@pytest.mark.parametrize("secret", ["zyx\nzyx", "zyxü"])
def test_a_secret_that_cannot_be_sent_is_refused_and_not_shown(url: str, secret: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_SECRET", secret)
    with pytest.raises(ConfigurationInvalid, match="JUDGE_SECRET has characters that no header can have") as error:
        built(url, secret="JUDGE_SECRET")
    assert "zyx" not in str(error.value)
    assert not Endpoint.asked


def test_an_endpoint_that_is_busy_for_a_moment_is_asked_again(url: str):
    assert built(url, retries=1)(case("503 once")).score == 1.0


@pytest.mark.parametrize(
    ("how", "status", "message", "times"),
    [
        ("503", "crash", "answered 503", 2),
        ("404", "crash", "answered 404", 1),
        ("401", "crash", "answered 401", 1),
        ("302", "crash", "answered 302", 1),
        ("hangs up", "crash", "http", 2),
        ("no http", "crash", "http", 2),
        ("nonsense", "crash", "no JSON", 1),
        ("", "crash", "no JSON", 1),
        ("[1.0]", "crash", "expected is an object", 1),
        ("{}", "crash", "no score", 1),
        ('{"score": "good"}', "crash", "no number", 1),
        ('{"score": NaN}', "crash", "score is nan", 1),
        ('{"score": 1e999}', "crash", "score is inf", 1),
        ('{"score": null}', "crash", "no number", 1),
        ('{"score": 7}', "crash", "not between 0 and 1", 1),
        ('{"score": -0.5, "accuracy": 0}', "crash", "not between 0 and 1", 1),
        ('{"score": 1, "parts": {"style": 1e300}}', "crash", r"part style is 1e\+300", 1),
        ('{"score": 1, "accuracy": 0.5}', "crash", "neither 0 nor 1", 1),
        ('{"mark": 1}', "crash", "mark", 1),
        ("[" * 100_000, "crash", "no JSON", 1),
        ("endless", "crash", "more than", 1),
    ],
)
def test_an_endpoint_that_gives_no_score_is_named(url: str, how: str, status: str, message: str, times: int):
    with pytest.raises(NoOutcome, match=message) as error:
        built(url, retries=1)(case(how))
    assert error.value.status == status
    assert len(Endpoint.asked) == times


@pytest.mark.parametrize("how", ["slow", "trickle"])
def test_an_endpoint_that_is_slow_is_a_timeout(url: str, how: str):
    with pytest.raises(NoOutcome, match=r"no answer in 1 s") as error:
        built(url)(case(how))
    assert error.value.status == "timeout"


def test_an_endpoint_that_is_down_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        with pytest.raises(NoOutcome, match="cannot be reached"):
            built(url)(case("5"))
    with pytest.raises(NoOutcome, match="cannot be reached"):
        built("http://no-such-host.invalid/")(case("5"))


def test_in_the_pool_a_bad_answer_is_an_outcome_and_is_not_asked_for_again(url: str):
    settings = {"url": url, "secretVariable": None, "timeoutSeconds": 5, "retries": 0}
    with VerifierPool(spec("http", "whole", **settings).to_json(), workers=1) as pool:
        good, bad = verified(pool, [case('{"score": 1}'), case("404", index=9)])
        assert (good.accuracy, good.pure, bad.accuracy, bad.status, bad.pure) == (1.0, False, 0.0, "crash", False)
        assert (pool.anomalies[0].item, len(Endpoint.asked)) == (9, 2)
        assert "answered 404" in pool.anomalies[0].message
