"""Questions to an API server: get, list, patch, logs and watches, over whichever transport there is.

Decides time-outs, paging and which answer is an error. Errors are `KubeError`s in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from ratchet_cli.kube.errors import KubeError, Unreachable, refused

Object = dict[str, Any]
Page = list[Object]
PAGE = 250
TOKEN = re.compile(rb'"continue":"([^"]+)"[^{}]*\}\s*\}\s*$')
"""The token of the next page at the end of a list, where API servers write it: keys are in alphabetical order."""
TAIL = 4000
MANAGED, AFTER_MANAGED = b'"managedFields":[', b'],"name":"'
SECONDS = 30.0
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Accepted of a collection: names and labels of its items, without what they hold."""


class Answer(Protocol):
    """What http.client and urllib3 have in common."""

    status: int

    def read(self, amt: int | None = None, /) -> bytes: ...

    def readline(self) -> bytes: ...


class Transport(Protocol):
    """A way to the API server."""

    def open(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], seconds: float | None
    ) -> AbstractContextManager[Answer]:
        """One request; `seconds` bound every single read, None waits for ever. Raises Unreachable."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """Which cluster is asked, for messages, and the namespace where nothing else is said."""

    namespace: str
    context: str | None
    server: str | None

    def __str__(self) -> str:
        name = f"the cluster of context {self.context}" if self.context else "the cluster"
        return f"{name} ({self.server})" if self.server else name


class Kube:
    """An API server, and the namespace that is meant where nothing else is said. Safe to use from several threads."""

    def __init__(self, transport: Transport, place: Place):
        self._transport = transport
        self.place = place

    @property
    def namespace(self) -> str:
        return self.place.namespace

    def get(self, path: str, /, *, seconds: float = SECONDS, accept: str = JSON, **query: str | int) -> Object:
        """The object at a path such as /api/v1/namespaces/team/pods/a. Raises KubeError."""
        return self._object(self._send("GET", path, query, None, {"Accept": accept}, seconds))

    def list(
        self, path: str, query: Mapping[str, str | int] | None = None, /, *, seconds: float = SECONDS, **more: str | int
    ) -> Page:
        """All items of a collection; `query`, or keywords, have labelSelector and fieldSelector. Raises KubeError."""
        return [item for page in self.pages(path, {**(query or {}), **more}, seconds=seconds) for item in page]

    def pages(self, path: str, query: Mapping[str, str | int], /, *, seconds: float = SECONDS) -> Iterator[Page]:
        """The same page by page: while one is worked on, the next is on its way. Raises KubeError."""

        def fetch(token: str | None) -> bytes:
            more = {"continue": token} if token else {}
            return self._send("GET", path, {"limit": PAGE, **query, **more}, None, {}, seconds)

        with ThreadPoolExecutor(max_workers=1) as ahead:
            coming: Future[bytes] | None = ahead.submit(fetch, None)
            while coming is not None:
                body = coming.result()
                # The token is looked for in the text, so that the next page can be asked for before this one is parsed.
                token = TOKEN.search(body, max(0, len(body) - TAIL))
                coming = ahead.submit(fetch, token[1].decode()) if token is not None else None
                answer = self._object(without_managed_fields(body))
                if coming is None and (found := (answer.get("metadata") or {}).get("continue")):
                    coming = ahead.submit(fetch, str(found))
                yield answer.get("items") or []

    def text(self, path: str, /, *, seconds: float = SECONDS, **query: str | int) -> str:
        """An answer that is no JSON, such as a log. Raises KubeError."""
        return self._send("GET", path, query, None, {}, seconds).decode(errors="replace")

    def patch(self, path: str, body: Any, kind: str = JSON_PATCH, /, *, seconds: float = SECONDS) -> Object:
        """The object after a patch. Raises KubeError."""
        headers = {"Content-Type": kind}
        return self._object(self._send("PATCH", path, {}, json.dumps(body).encode(), headers, seconds))

    def post(self, path: str, body: Object, /, *, seconds: float = SECONDS) -> Object:
        """What the API server makes of a new object, a SelfSubjectAccessReview for example. Raises KubeError."""
        headers = {"Content-Type": "application/json"}
        return self._object(self._send("POST", path, {}, json.dumps(body).encode(), headers, seconds))

    def lines(self, path: str, /, *, seconds: float | None = None, **query: str | int) -> Iterator[str]:
        """Lines of an answer as they come: a followed log, or a watch. Ends where the answer does. Raises KubeError,
        also where no line comes for `seconds`."""
        with self._opened("GET", path, query, None, {}, seconds) as answer:
            while True:
                line = self._reading(answer.readline)
                if not line:
                    return
                yield line.decode(errors="replace").rstrip("\n")

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> bytes:
        with self._opened(method, path, query, body, headers, seconds) as answer:
            return self._reading(answer.read)

    @contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float | None,
    ) -> Iterator[Answer]:
        target = quote(path, safe="/:") + (f"?{urlencode(query)}" if query else "")
        with self._transport.open(method, target, body, {"Accept": f"{JSON}, */*", **headers}, seconds) as got:
            if got.status >= 300:
                raise refused(str(self.place), f"{WORDS[method]} {path}", got.status, self._reading(got.read))
            yield got

    def _reading(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except TimeoutError:
            raise Unreachable(f"{self.place} stopped in the middle of an answer") from None
        except Exception as error:  # each transport has its own
            raise Unreachable(f"{self.place} broke an answer off: {error}") from None

    def _object(self, body: bytes) -> Object:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{self.place} did not answer with a JSON object; is it an API server?")
        return found


def without_managed_fields(body: bytes) -> bytes:
    """The text of a list without metadata.managedFields, which is half of it and costs half the time of parsing.

    Nothing else can be hit: a quote inside of a JSON string has a backslash before it, and `name`, which every object
    of a list has, is the key that follows.
    """
    kept, at = [], 0
    while (begin := body.find(MANAGED, at)) >= 0 and (end := body.find(AFTER_MANAGED, begin)) >= 0:
        kept.append(body[at:begin])
        at = end + 2
    return b"".join([*kept, body[at:]])


WORDS = {"GET": "read", "PATCH": "change", "POST": "create"}


def together(questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Asks several things at once: what each question returned, or the KubeError that it raised."""

    def ask(question: Callable[[], Any]) -> Any:
        try:
            return question()
        except KubeError as error:
            return error

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(questions, pool.map(ask, questions.values()), strict=True))
