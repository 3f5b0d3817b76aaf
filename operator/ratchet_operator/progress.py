"""Asks each running job's leader how far it is: the client side of `GET /progress`.

Decides what of a trainer's answer is believed. A trainer runs users' code, so an answer is a claim: it is small, well
formed and carries the identity of the attempt that is being followed, or it is dropped and counted. Losing the channel
costs a wait, nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import ValidationError

from ratchet_api.protocol import PORT, PROGRESS_LIMIT
from ratchet_api.protocol.documents import ProgressDocument
from ratchet_operator import metrics
from ratchet_operator.clock import Clock
from ratchet_operator.queue import Key

Raw = dict[str, Any]
log = logging.getLogger(__name__)

HELD_MOST = 500
"""Long polls held at once; further jobs are asked now and then."""
HOLD_SECONDS = 60.0
CONNECT_SECONDS = 5.0
RETRY_FIRST, RETRY_MOST = 0.1, 1.0
PACE_SECONDS = 0.2
SILENT_SECONDS = 60.0
"""A trainer that has shown no sign of life for so long is looked at though it has no news."""


@dataclass(frozen=True)
class Leader:
    """The pod that is asked, and who it must say it is."""

    address: str
    job_uid: str
    attempt: int
    jobset_uid: str


class _InVain:
    """How long a leader has been asked without an answer."""

    def __init__(self) -> None:
        self._since: float | None = None

    def ask(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def answered(self) -> None:
        self._since = None

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since


class Invalid(ValueError):
    """An answer that is not what the protocol says."""


class Progress:
    """One poll for each followed job; `on_news(key, urgent)` is called for each new answer."""

    def __init__(self, clock: Clock, on_news: Callable[[Key, bool], None]):
        self._clock = clock
        self._on_news = on_news
        self._leaders: dict[Key, Leader] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._answers: dict[Key, Raw] = {}
        self._heard: dict[Key, str] = {}  # when the present leader answered last, or was first asked
        self._silent: set[Key] = set()
        self._held = 0
        self._session: aiohttp.ClientSession | None = None

    def latest(self, key: Key) -> Raw | None:
        """The last believed answer, with `receivedAt`; of an attempt that has ended until the next one answers."""
        return self._answers.get(key)

    def silent_since(self, key: Key) -> str | None:
        """When the leader was last heard, or first asked, if it has been asked in vain for SILENT_SECONDS."""
        return self._heard[key] if key in self._silent else None

    def follow(self, key: Key, leader: Leader | None) -> None:
        """From now on asks this leader for this job; None: nobody."""
        if leader == self._leaders.get(key):
            return
        if task := self._tasks.pop(key, None):
            task.cancel()
        self._leaders.pop(key, None)
        self._heard.pop(key, None)
        self._silent.discard(key)
        if leader is not None:
            self._leaders[key] = leader
            self._heard[key] = self._clock.now()
            self._tasks[key] = asyncio.create_task(self._poll(key, leader))
        metrics.PROGRESS_FOLLOWED.set(len(self._tasks))

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self.follow(key, None)
        self._answers.pop(key, None)

    async def close(self) -> None:
        for key in tuple(self._tasks):
            self.follow(key, None)
        if self._session:
            await self._session.close()

    async def _poll(self, key: Key, leader: Leader) -> None:
        """Asks until cancelled: nothing that a trainer answers may end it, because nobody would start it again."""
        in_vain = _InVain()
        while True:
            try:
                await self._listen(key, leader, in_vain)
            except Exception:
                log.exception("%s/%s: polling %s failed; it goes on", *key, leader.address)
                metrics.PROGRESS_ANSWERS.labels("failed").inc()
                self._unheard(key, in_vain)
                await asyncio.sleep(RETRY_MOST)

    def _unheard(self, key: Key, in_vain: _InVain) -> None:
        """Nothing came that counts as an answer. A while of that is news."""
        if key not in self._silent and in_vain.seconds >= SILENT_SECONDS:
            self._silent.add(key)
            self._on_news(key, True)

    async def _listen(self, key: Key, leader: Leader, in_vain: _InVain) -> None:
        revision: str | int | None = None
        urgency: tuple[Any, ...] | None = None
        steps: list[int | None] = []
        wait = RETRY_FIRST
        while True:
            held = self._held < HELD_MOST
            in_vain.ask()
            try:
                self._held += held
                answer = await self._ask(leader, revision if held else None)
            except (aiohttp.ClientError, TimeoutError, OSError) as problem:
                log.debug("%s/%s: no progress from %s: %s", *key, leader.address, problem)
                metrics.PROGRESS_ANSWERS.labels("failed").inc()
                self._unheard(key, in_vain)
                await asyncio.sleep(wait)
                wait = min(RETRY_MOST, wait * 1.5)
                continue
            except Invalid as problem:
                result = "mismatch" if isinstance(problem, Mismatch) else "invalid"
                metrics.PROGRESS_ANSWERS.labels(result).inc()
                log.warning("%s/%s: dropped an answer of %s: %s", *key, leader.address, problem)
                self._unheard(key, in_vain)
                await asyncio.sleep(RETRY_MOST)
                continue
            finally:
                self._held -= held
            wait = RETRY_FIRST
            in_vain.answered()
            self._heard[key] = self._clock.now()
            if key in self._silent:
                self._silent.discard(key)
                self._on_news(key, True)
            news = answer.revision != revision
            metrics.PROGRESS_ANSWERS.labels("new" if news else "same").inc()
            if news:
                revision = answer.revision
                self._answers[key] = {**answer.plain(), "receivedAt": self._clock.now()}
                if answer.step not in steps and len(steps) < 3:
                    steps.append(answer.step)  # the first steps of an attempt end a recovery: told at once
                before, urgency = urgency, (_urgency(answer), len(steps))
                self._on_news(key, urgency != before)
            elif (answer.last_safe_point_age_seconds or 0) > SILENT_SECONDS:  # no news is news
                self._answers[key] = {**answer.plain(), "receivedAt": self._clock.now()}
                self._on_news(key, False)
            if not held:
                await asyncio.sleep(max(10.0, len(self._tasks) / 50))
            else:
                await asyncio.sleep(PACE_SECONDS)  # a fast trainer has news many times a second; asking costs it steps

    async def _ask(self, leader: Leader, revision: str | int | None) -> ProgressDocument:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=HOLD_SECONDS, sock_connect=CONNECT_SECONDS),
            )
        host = f"[{leader.address}]" if ":" in leader.address else leader.address
        query = {} if revision is None else {"after": str(revision)}
        url = f"http://{host}:{PORT}/progress"
        async with self._session.get(url, params=query, allow_redirects=False) as response:
            if response.status != 200:
                raise Invalid(f"HTTP {response.status}")
            body = await response.content.read(PROGRESS_LIMIT + 1)
            while len(body) <= PROGRESS_LIMIT and (more := await response.content.read(PROGRESS_LIMIT + 1 - len(body))):
                body += more
            if len(body) > PROGRESS_LIMIT:
                raise Invalid(f"longer than {PROGRESS_LIMIT} bytes")
        return parse(body, leader)


class Mismatch(Invalid):
    """A well-formed answer of another attempt, or of another job."""


def parse(body: bytes, leader: Leader) -> ProgressDocument:
    """The answer. Raises Invalid, or Mismatch when it is not this leader's."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise Invalid(f"no JSON: {problem}") from None
    if not isinstance(answer, dict):
        raise Invalid("no JSON object")
    said = (answer.get("jobUID"), answer.get("attempt"), answer.get("jobSetUID"))
    if said != (leader.job_uid, leader.attempt, leader.jobset_uid):
        raise Mismatch(f"it says job {said[0]}, attempt {said[1]}, JobSet {said[2]}")
    try:
        return ProgressDocument.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _urgency(said: ProgressDocument) -> tuple[Any, ...]:
    """What the operator must act on at once; all else can wait for the next flush of status."""
    return (
        said.phase if said.phase in ("boundary", "drain", "done") else None,
        bool(said.draining),
        said.boundary,
        said.artifacts,
        said.stage.index if said.stage is not None else None,
    )
