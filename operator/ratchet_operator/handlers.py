"""kopf glue: watches whose events only say which job to look at.

Decides what is watched and with which selectors. kopf gives list, watch, reconnect and relist; it keeps no state on
objects and is not the state machine: no timers, no daemons, no create or update handlers, for one conflict kills a
timer for good.

kopf runs in a thread with a loop of its own: it takes over signals and cancels tasks that it finds when it ends, and
neither may touch the work of the operator. Events cross over by `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from ratchet_api import job as api
from ratchet_api.protocol import LABEL_JOB
from ratchet_operator import metrics
from ratchet_operator.known import JOBSET, POD, key_of
from ratchet_operator.observe import NODE_LABEL
from ratchet_operator.queue import Key, Version

Raw = dict[str, Any]
log = logging.getLogger(__name__)

KINDS = {api.PLURAL: api.KIND, "jobsets": JOBSET, "pods": POD}
READ_CREDENTIALS_AFTER = timedelta(minutes=10)


class Watches:
    """kopf in its thread. `ended` is a future that gets the reason when kopf gives up."""

    def __init__(
        self,
        configuration: Configuration,
        namespaces: Sequence[str],
        on_key: Callable[[Key, Version], None],
        on_node: Callable[[Raw, bool], None] | None,
        on_object: Callable[[str, Raw, bool], None] = lambda kind, raw, gone: None,
        on_list: Callable[[], None] = lambda: None,
    ):
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._configuration, self._namespaces = configuration, namespaces
        self._on_key, self._on_node, self._on_object, self._on_list = on_key, on_node, on_object, on_list

    def start(self) -> None:
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except Exception as problem:  # whatever it is, the process ends with it and is started again
            self._say(f"the watches ended: {type(problem).__name__} {problem}")

    async def _watch(self) -> None:
        """Returns, once it is told, when the first part of kopf ends. kopf itself would stop all others before it says
        so, and waits for ever for a watch that is between two tries: then some watches are dead, and nobody knows."""
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        problems = [task.exception() for task in ended if not task.cancelled()]
        why = next((f": {type(it).__name__} {it}" for it in problems if it is not None), "")
        self._say(f"the watches ended{why}")

    def _say(self, reason: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            self._loop.call_soon_threadsafe(self._tell, reason)

    def _tell(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    def _tell_of(self, kind: str, raw: Raw, change: str | None) -> None:
        if change is None:
            self._on_list()
        if (key := key_of(kind, raw)) is not None:
            self._on_object(kind, raw, change == "DELETED")
            self._on_key(key, (raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]))

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        call, on_node = self._loop.call_soon_threadsafe, self._on_node

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return await connection(self._configuration)

        @kopf.on.event(api.GROUP, api.VERSION, api.PLURAL, registry=registry)
        @kopf.on.event("", "v1", "pods", registry=registry)
        @kopf.on.event("jobset.x-k8s.io", "v1alpha2", "jobsets", registry=registry)
        async def told(resource: Any, body: Any, type: str | None, **_: Any) -> None:
            metrics.WATCH_LAST_EVENT.labels(resource.plural).set_to_current_time()
            call(self._tell_of, KINDS[resource.plural], dict(body), type)

        if on_node is not None:

            @kopf.on.event("", "v1", "nodes", registry=registry)
            async def node(body: Any, type: str | None, **_: Any) -> None:
                metrics.WATCH_LAST_EVENT.labels("nodes").set_to_current_time()
                call(on_node, dict(body), type == "DELETED")

        return registry


class Nothing(kopf.DiffBaseStorage):
    """What handlers of changes would need: kopf copies each object of each event for them, and there are none."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


def settings() -> kopf.OperatorSettings:
    """kopf's settings: selectors on every watch, time-outs on every request, nothing written to any object."""
    it = kopf.OperatorSettings()
    it.scanning.disabled = True
    it.posting.enabled = False
    it.persistence.diffbase_storage = Nothing()
    it.watching.label_selectors["", "v1", "pods"] = LABEL_JOB
    it.watching.label_selectors["jobset.x-k8s.io", "v1alpha2", "jobsets"] = LABEL_JOB
    it.watching.label_selectors["", "v1", "nodes"] = NODE_LABEL
    it.watching.server_timeout = 300
    it.watching.client_timeout = 310
    it.watching.connect_timeout = 10
    it.watching.chunk_size = 500
    it.networking.request_timeout = 20
    it.networking.connect_timeout = 10
    it.queueing.worker_limit = 100
    it.queueing.exit_timeout = 0.1
    return it


async def connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """kopf's credentials from the client's, so that both always use the same; asked again before a token can expire."""
    token = await configuration.get_api_key_with_prefix("BearerToken") or ""  # re-reads the token file when it is due
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme="Bearer" if token else None,
        token=token.split(" ", 1)[-1] or None,
        expiration=datetime.now(UTC) + READ_CREDENTIALS_AFTER,
    )
