"""The worker: the process in which the operator works, from the Lease to the last write.

Decides the order of start and end: health at once, then the Lease, then watches and queue; on SIGTERM no new pass, the
Lease given up, out. Whatever else ends, ends the process: the parent (`supervisor`) starts it again, and all that
counts is in the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from ratchet_api import job as api
from ratchet_api import log_lines
from ratchet_api.protocol import LABEL_JOB
from ratchet_operator import admission, log_context, metrics
from ratchet_operator.clock import Clock
from ratchet_operator.directories import Directories
from ratchet_operator.events import Events
from ratchet_operator.gone_pods import GonePods
from ratchet_operator.handlers import Watches
from ratchet_operator.known import POD, Known
from ratchet_operator.kube import Kube, Refused, Unreachable, load_configuration
from ratchet_operator.lease import Lease, Terms
from ratchet_operator.observe import Nodes
from ratchet_operator.plan import Event
from ratchet_operator.progress import Progress
from ratchet_operator.queue import Key, Queue
from ratchet_operator.reconcile import Reconciler
from ratchet_operator.snapshot import Values

log = logging.getLogger(__name__)

EXIT_AGAIN = 1
"""The parent starts the worker again."""
EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits: starting again cannot help."""
STALE_SECONDS = 30.0
LISTED_SECONDS = 1.0
"""When nothing more has come of a list for so long, a watch that began anew has told of all of it."""
LAST_PASSES_SECONDS = 0.8
WEBHOOK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Config:
    """What the operator is told by its environment."""

    namespace: str = "default"
    identity: str = ""
    watch_namespaces: tuple[str, ...] = ()
    watch_nodes: bool = True
    address: str = "0.0.0.0"
    port: int = 8080
    webhook_port: int = 0
    """Port of the admission webhook; 0: there is none."""
    webhook_certificates: str = "/etc/ratchet/webhook"
    values: Values = field(default_factory=Values)
    terms: Terms = field(default_factory=Terms)
    resync_seconds: float = 300.0

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Config:
        """Raises ValueError that names the variable."""

        def listed(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in env.get(name, "").split(",") if part.strip())

        def number(name: str, default: float) -> float:
            text = env.get(name) or str(default)
            try:
                value = float(text)
            except ValueError:
                raise ValueError(f"{name}={text!r} is no number") from None
            if not 0 < value < 1e6:
                raise ValueError(f"{name}={text} is out of range")
            return value

        def whole(name: str, default: int) -> int:
            text = env.get(name) or str(default)
            if not text.isdecimal() or int(text) >= 2**31:
                raise ValueError(f"{name}={text!r} is no id of a user or group; write a number from 0 to 2147483647")
            return int(text)

        duration = number("RATCHET_LEASE_SECONDS", Terms.duration)
        return cls(
            namespace=env.get("RATCHET_OPERATOR_NAMESPACE") or cls.namespace,
            identity=env.get("RATCHET_IDENTITY") or f"{socket.gethostname()}_{os.urandom(4).hex()}",
            watch_namespaces=listed("RATCHET_WATCH_NAMESPACES"),
            watch_nodes=env.get("RATCHET_WATCH_NODES", "true").lower() != "false",
            address=env.get("RATCHET_POD_IP") or cls.address,
            port=int(number("RATCHET_METRICS_PORT", cls.port)),
            webhook_port=int(number("RATCHET_WEBHOOK_PORT", 1)) if env.get("RATCHET_WEBHOOK_PORT") else 0,
            webhook_certificates=env.get("RATCHET_WEBHOOK_CERTIFICATES") or cls.webhook_certificates,
            values=Values(
                image=env.get("RATCHET_TRAINER_IMAGE") or Values.image,
                service_accounts=listed("RATCHET_SERVICE_ACCOUNTS"),
                local_directory=env.get("RATCHET_LOCAL_DIRECTORY") or Values.local_directory,
                run_as_user=whole("RATCHET_RUN_AS_USER", Values.run_as_user),
                run_as_group=whole("RATCHET_RUN_AS_GROUP", Values.run_as_group),
                allow_root=env.get("RATCHET_ALLOW_ROOT", "false").lower() == "true",
                worker_priority_class=env.get("RATCHET_WORKER_PRIORITY_CLASS") or Values.worker_priority_class,
                json_logs=log_lines.wants_json(env),
                read_only_root=env.get("RATCHET_READ_ONLY_ROOT", "true").lower() != "false",
            ),
            terms=Terms(duration=duration, deadline=duration * 2 / 3, retry=duration / 5),
            resync_seconds=number("RATCHET_RESYNC_SECONDS", cls.resync_seconds),
        )


class Heart:
    """The heartbeat that /healthz shows: stamped by whichever loop the operator is in."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self.queue: Queue | None = None

    def beat(self) -> None:
        self._at = time.monotonic()

    @property
    def age(self) -> float:
        return time.monotonic() - max(self._at, self.queue.beat if self.queue else 0.0)


async def serve(config: Config, heart: Heart) -> web.AppRunner:
    """/healthz and /metrics, from the first moment, also on the standby. Raises OSError when the port is taken."""

    async def healthz(_: web.Request) -> web.Response:
        age = heart.age
        if age > STALE_SECONDS:
            return web.Response(status=500, text=f"no heartbeat for {age:.0f} s\n")
        return web.Response(text="ok\n")

    async def exposition(request: web.Request) -> web.Response:
        # On a thread: with thousands of jobs it takes longer than the Lease may go without being renewed.
        body, content_type = await asyncio.to_thread(metrics.text, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", exposition)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, config.address, config.port).start()
    return runner


async def run(config: Config) -> int:
    """Serves until told to stop or until something ends; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _end_with_parent()
    heart = Heart()
    try:
        configuration = await load_configuration()
        await serve(config, heart)
    except (ValueError, OSError) as problem:
        log.error("%s", problem)
        return EXIT_CONFIGURATION if isinstance(problem, ValueError) else EXIT_AGAIN
    answering = asyncio.create_task(_answer_admission(config)) if config.webhook_port else None
    clock = Clock()
    kube = Kube(configuration, clock, f"ratchet-operator/{config.identity}")
    lease = Lease(kube, clock, config.namespace, config.identity, config.terms)
    kube.may_write = lease.may_write

    stopping = asyncio.create_task(stop.wait())
    acquiring = asyncio.create_task(lease.acquire(heart.beat))
    await asyncio.wait({stopping, acquiring}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        return 0
    try:
        acquiring.result()
    except Exception:
        log.exception("stopping: the Lease could not be waited for")
        return EXIT_AGAIN
    metrics.LEADER.set(1)
    metrics.LEASE_TRANSITIONS.set(lease.fence)

    events = Events(kube, clock, config.identity)
    background: set[asyncio.Task[None]] = set()

    def jumped(seconds: float) -> None:
        metrics.CLOCK_JUMPS.inc()
        event = Event(
            "Warning", "ClockJump", f"the API server's clock jumped by {seconds:.0f} s; durations are unaffected"
        )
        task = asyncio.create_task(events.post(lease.reference, event))
        background.add(task)
        task.add_done_callback(background.discard)

    clock.on_jump = jumped
    nodes = Nodes(lambda key: queue.add(key), watched=config.watch_nodes)
    progress = Progress(clock, lambda key, urgent: news(key, urgent))
    directories = Directories(lambda key: queue.add(key))
    gone = GonePods()
    known = Known()
    reconciler = Reconciler(
        kube, clock, events, nodes, gone, progress, config.values, lambda: lease.fence, directories, known
    )
    queue = heart.queue = Queue(reconciler, reconciler.is_news)

    def news(key: Key, urgent: bool) -> None:
        if urgent:
            queue.add(key)
        else:
            queue.add_after(key, reconciler.progress_wait(key))

    def told(kind: str, raw: dict[str, Any], is_gone: bool) -> None:
        known.hear(kind, raw, gone=is_gone)
        if kind == api.KIND:
            directories.hear(raw, gone=is_gone)
        elif kind == POD and is_gone:
            gone.hear(raw["metadata"]["labels"][LABEL_JOB], raw)

    listed = asyncio.Event()
    watches = Watches(
        configuration, config.watch_namespaces, queue.add,
        (lambda node, gone: nodes.hear(node, gone=gone)) if config.watch_nodes else None, told, listed.set,
    )  # fmt: skip
    renewing = asyncio.create_task(lease.keep())
    working = asyncio.create_task(_work(config, kube, queue, reconciler, watches, listed))
    background |= {answering} if answering is not None else set()
    ends: set[asyncio.Future[Any]] = {stopping, renewing, working, watches.ended}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    if renewing.done():  # whoever holds the Lease now works: not one write more
        log.error("stopping: %s", renewing.result())
        return EXIT_AGAIN
    await queue.close(LAST_PASSES_SECONDS)
    renewing.cancel()
    await lease.release()
    if stop.is_set():
        log.info("stopped; the Lease is released")
        return 0
    if working.done():
        log.error("stopping: the work ended", exc_info=working.exception())
    else:
        log.error("stopping: %s", watches.ended.result())
    return EXIT_AGAIN


async def _answer_admission(config: Config) -> None:
    """The webhook, as soon as its certificate is there. Jobs are looked after with or without it."""
    while True:
        try:
            await admission.serve(config.address, config.webhook_port, Path(config.webhook_certificates))
            return
        except OSError as problem:
            log.error("no job is looked at when it is applied: %s; trying again", problem)
            await asyncio.sleep(WEBHOOK_AGAIN_SECONDS)


async def _work(
    config: Config, kube: Kube, queue: Queue, reconciler: Reconciler, watches: Watches, listed: asyncio.Event
) -> None:
    """Everything that needs the Lease and the two kinds that we live on."""
    async with asyncio.TaskGroup() as group:
        group.create_task(queue.run())
        for kind, remedy in (
            (api.KIND, "ratchet crd | kubectl apply -f -"),
            ("JobSet", "install JobSet 0.12 or newer"),
        ):
            while not await _served(kube, kind):
                log.warning("the API server does not know %s; waiting for it: %s", kind, remedy)
                await asyncio.sleep(3)
        await _know_all(config, reconciler)
        watches.start()
        group.create_task(_resync(config, queue, reconciler, listed))
        gc.collect()
        gc.freeze()  # what is loaded now stays: keep the collector off it


async def _know_all(config: Config, reconciler: Reconciler) -> None:
    """Whose which directory is must be known before the first job is looked at; all else need not be asked again."""
    try:
        await reconciler.know_all(config.watch_namespaces or (None,))
    except (Refused, Unreachable) as problem:
        log.warning("jobs cannot be listed: %s; whose a directory is will be known as they are heard of", problem)


async def _served(kube: Kube, kind: str) -> bool:
    try:
        return await kube.serves(kind)
    except (Refused, Unreachable) as problem:
        log.warning("the API server cannot be asked for %s: %s", kind, problem)
        return False


async def _resync(config: Config, queue: Queue, reconciler: Reconciler, listed: asyncio.Event) -> None:
    """Finds what a lost watch event has kept from us: at intervals, and after a watch had to begin anew with a list,
    which says nothing of what has gone meanwhile."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.resync_seconds):
                await listed.wait()
                while listed.is_set():
                    listed.clear()
                    await asyncio.sleep(LISTED_SECONDS)
        try:
            changed = await reconciler.resync(config.watch_namespaces or (None,), nodes=config.watch_nodes)
        except (Refused, Unreachable) as problem:
            log.warning("the periodic list failed: %s", problem)
            continue
        for key in changed:
            queue.add(key)


def _end_with_parent() -> None:
    """When the parent dies without a word, this process must not live on: the pipe from it reads its end."""
    if pipe := os.environ.get("RATCHET_PARENT_PIPE"):
        asyncio.get_running_loop().add_reader(int(pipe), os._exit, EXIT_AGAIN)


def main() -> None:
    log_lines.configure(
        sys.stderr, logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"), log_context.fields
    )
    for library in ("kopf", "kubernetes", "aiohttp", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # says only that signals are not kopf's
    try:
        config = Config.from_environment(os.environ)
    except ValueError as problem:
        log.error("%s", problem)
        sys.exit(EXIT_CONFIGURATION)
    code = asyncio.run(_run_and_exit(config))
    sys.exit(code)


async def _run_and_exit(config: Config) -> int:
    code = await run(config)
    # Nothing is left to save, and waiting for kopf's thread or for held polls would only cost seconds.
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    main()
