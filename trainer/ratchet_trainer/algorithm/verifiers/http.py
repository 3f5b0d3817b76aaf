"""The verifier `http`: an endpoint that scores responses. Impure; runs in workers, so that requests overlap.

Decides what is asked, what is asked again and what an answer means. The endpoint gets a POST of
`{"question", "prompt", "response", "extracted", "answer", "finish", "item"}` and answers `{"score": 0.0 to 1.0}`, with
`accuracy`, `parts` and `extracted` if it likes. What gets no answer, or a status that means "later", is sent again
after 1, 2, 4, ... seconds (30 at most). Then: no answer in time is `timeout`; refused connections, other statuses and
answers that are no score are `crash`, and the log says which. Redirects are not followed: a secret goes to the url that
the manifest names, and nowhere else.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from ratchet_trainer.algorithm.outcome import Case, NoOutcome, Outcome
from ratchet_trainer.algorithm.verifiers import steps
from ratchet_trainer.algorithm.verifiers.extract import extract
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.algorithm.verifiers.user_replies import BadAnswer
from ratchet_trainer.errors import ConfigurationInvalid

VERSION = "1"
ANSWER_MAX = 1024 * 1024
LATER = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Statuses that mean: ask again later."""
PAUSE_MAX = 30.0


class NoAnswer(NoOutcome):
    """The endpoint gave no answer that counts. `later`: it is worth asking again."""

    def __init__(self, message: str, *, later: bool, timeout: bool = False):
        super().__init__(message, "timeout" if timeout else "crash")
        self.later = later


class _Refuse(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None  # the status becomes an error of its own


def build(spec: VerifierSpec) -> Callable[[Case], Outcome]:
    """The verifier. Raises ConfigurationInvalid without the secret that the manifest names, or for one that cannot be
    sent."""
    url, variable = spec.settings["url"], spec.settings.get("secretVariable")
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "ratchet"}
    if variable is not None:
        secret = os.environ.get(variable, "").strip()
        if not secret:
            raise ConfigurationInvalid(
                f"verifier http {url}: the secret is missing: the variable {variable} is empty; on Kubernetes it comes "
                "from http.secret, elsewhere set it"
            )
        if not (secret.isascii() and secret.isprintable()):  # an error of a request would show it in the log
            raise ConfigurationInvalid(
                f"verifier http {url}: the secret in the variable {variable} has characters that no header can have, "
                "such as line ends; it must be one line of printable ASCII"
            )
        headers["Authorization"] = f"Bearer {secret}"
    opener = urllib.request.build_opener(_Refuse)
    timeout, retries = float(spec.settings["timeoutSeconds"]), int(spec.settings["retries"])

    def verify(case: Case) -> Outcome:
        found = extract(spec.extraction, case.response)
        parts = steps.of_response(spec, case.response)
        question = question_of(case, found) | ({} if parts is None else {"steps": parts})
        body = json.dumps(question).encode()
        for attempt in range(retries + 1):
            try:
                return in_range(steps.meant(ask(opener, url, headers, body, timeout), found, parts, pure=False))
            except NoAnswer as error:
                if attempt == retries or not error.later:
                    raise
                time.sleep(min(2.0**attempt, PAUSE_MAX))
        raise AssertionError

    return verify


def in_range(outcome: Outcome) -> Outcome:
    """The outcome. Raises BadAnswer for a score beyond 0 to 1: 7 of 10 would count as right."""
    if not 0.0 <= outcome.score <= 1.0:
        raise BadAnswer(f"score is {outcome.score:g}, not between 0 and 1; divide it by the best that there is")
    return outcome


def longest(settings: dict[str, Any]) -> float:
    """Seconds that a case takes at most, all retries and pauses counted."""
    retries = int(settings["retries"])
    return (retries + 1) * float(settings["timeoutSeconds"]) + sum(min(2.0**n, PAUSE_MAX) for n in range(retries))


def question_of(case: Case, found: str | None) -> dict[str, Any]:
    """What the endpoint is asked, as JSON data; what of the item is no JSON is said as text."""
    return {
        "question": case.item["question"],
        "prompt": case.prompt,
        "response": case.response,
        "extracted": found,
        "answer": case.item["answer"],
        "finish": case.finish,
        "item": json.loads(json.dumps(dict(case.item), default=str)),
    }


def ask(
    opener: urllib.request.OpenerDirector, url: str, headers: dict[str, str], body: bytes, timeout: float
) -> dict[str, Any]:
    """One request. Raises NoAnswer, and BadAnswer for an answer that is no JSON object."""
    end = time.monotonic() + timeout
    try:
        request = urllib.request.Request(url, body, headers, method="POST")
        with opener.open(request, timeout=timeout) as answer:
            text = read(answer, end, timeout)
    except urllib.error.HTTPError as error:
        raise NoAnswer(f"{url} answered {error.code} {error.reason}", later=error.code in LATER) from error
    except TimeoutError as error:
        raise NoAnswer(f"{url} gave no answer in {timeout:g} s", later=True, timeout=True) from error
    except OSError as error:
        cause = getattr(error, "reason", error)
        late = isinstance(cause, TimeoutError)
        raise NoAnswer(f"{url} cannot be reached: {cause}", later=True, timeout=late) from error
    except BadAnswer:
        raise
    except Exception as error:  # http.client has errors of its own, none of them an OSError
        raise NoAnswer(f"{url} does not speak HTTP: {error!r:.200}", later=True) from error
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"{url} answered no JSON: {text[:100]!r}") from error
    if not isinstance(said, dict):
        raise BadAnswer(f"{url} answered {text[:100]!r}; expected is an object with a score")
    return said


def read(answer: Any, end: float, timeout: float) -> bytes:
    """All of an answer, which may not be longer than ANSWER_MAX nor trickle on beyond `end`. Raises NoAnswer."""
    text = b""
    while part := answer.read1(65_536):
        text += part
        if len(text) > ANSWER_MAX:
            raise BadAnswer(f"the endpoint answered more than {ANSWER_MAX} bytes")
        if time.monotonic() > end:
            raise TimeoutError(f"{timeout:g} s")
    return text
