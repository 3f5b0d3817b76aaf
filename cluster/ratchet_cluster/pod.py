"""One pod on one node, from the moment it is bound until the API server has forgotten it.

Decides the order: address, volumes, init containers, containers, end, and what is published when. Every status is
built anew from the containers (`status.py`) and sent by one writer, so that the API server sees them in order and
never a stale one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_cluster import addresses, environment, paths, processes, sandbox, volumes
from ratchet_cluster import status as statuses
from ratchet_cluster.api import UNREACHABLE, Api, ApiError
from ratchet_cluster.container import Container, Launch, timestamp
from ratchet_cluster.environment import MissingReference, References
from ratchet_cluster.objects import Object

log = logging.getLogger(__name__)

RETRY = 1.0  # seconds until a missing config map or claim is looked for again
NO_IMAGE = ("invalid.example/", ".invalid/")  # image names that nobody can pull, to play a typing error
# What the programs of the checkout need, also where a pod mounts something above it.
NEEDED = tuple({Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[2]})
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Surroundings:
    """What every pod of the cluster shares."""

    api: Api
    folder: Path
    way: str  # how far pods can be separated, see `sandbox.ability`
    api_port: int
    addresses: addresses.Addresses
    names_changed: Callable[[Object], None]  # a pod with a headless-service name has got its address


class Pod:
    """A pod that runs here. Its life is one task, started by `begin`."""

    def __init__(self, around: Surroundings, found: Object, host_address: str, *, lost: bool = False) -> None:
        self.around, self.object, self.host_address, self.lost = around, found, host_address, lost
        metadata, spec = found["metadata"], found["spec"]
        self.uid: str = metadata["uid"]
        self.namespace: str = metadata["namespace"]
        self.name: str = metadata["name"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.folder: Path = around.folder / "pods" / self.uid
        self.logs = around.folder / "logs/pods" / f"{self.namespace}_{self.name}_{self.uid}"
        self.restart_policy = spec.get("restartPolicy", "Always")
        self.address = host_address if spec.get("hostNetwork") else around.addresses.take(found)
        late = "late/" if spec.get("initContainers") else ""
        self.initial = [self._container(one, "") for one in spec.get("initContainers") or []]
        self.main = [self._container(one, late) for one in spec["containers"]]
        self.start_time = found.get("status", {}).get("startTime") or timestamp()
        self.stopping = asyncio.Event()
        self.finished = asyncio.Event()  # containers ended, last status published
        self._conditions = statuses.Conditions()
        self._override: dict[str, str] = {}
        self._disruption: tuple[str, str] | None = None
        self._places: dict[str, Path] = {}
        self._changed, self._published = asyncio.Event(), asyncio.Event()
        self._kill_at: asyncio.TimerHandle | None = None
        self._silent = self._over = False
        self._tasks: set[asyncio.Task[object]] = set()

    def _container(self, spec: Object, prefix: str) -> Container:
        grace = self.object["spec"].get("terminationGracePeriodSeconds", 30)
        return Container({**spec, "_grace": grace}, f"{prefix}{self.uid}/{spec['name']}", self.changed)

    def begin(self) -> None:
        """Starts the pod's life."""
        self._spawn(self._live())
        self._spawn(self._publish())
        if (lifetime := volumes.token_lifetime(self.object)) is not None:
            self._spawn(self._renew_tokens(lifetime))

    # -- what happens to it --------------------------------------------------------------------------------------------

    def update(self, found: Object) -> None:
        """A newer object from the API server: deletion, changed labels and annotations."""
        old, self.object = self.object, found
        if found["metadata"].get("deletionTimestamp"):
            self.terminate(found["metadata"].get("deletionGracePeriodSeconds") or 0)
            if self.finished.is_set() and not old["metadata"].get("deletionTimestamp"):
                self._spawn(self._forget())  # it was deleted while its last status was on the way
        if any(old["metadata"].get(key) != found["metadata"].get(key) for key in ("labels", "annotations")):
            self._spawn(self._refresh())
        if self._published.is_set() and self._conditions.denied_by(found):
            self.changed()

    def terminate(
        self, grace: float, override: dict[str, str] | None = None, disruption: tuple[str, str] | None = None
    ) -> None:
        """SIGTERM now, SIGKILL after `grace` seconds; a later call can only shorten that.

        `override` replaces phase, reason and message of the last status, `disruption` (reason, message) adds the
        condition DisruptionTarget; both are published only once the containers have ended, as a kubelet does.
        """
        if override and not self._override:
            self._override = override
        self._disruption = self._disruption or disruption
        loop = asyncio.get_running_loop()
        at = loop.time() + grace
        if self._kill_at is None or at < self._kill_at.when():
            if self._kill_at:
                self._kill_at.cancel()
            self._kill_at = loop.call_at(at, self.kill)
        if not self.stopping.is_set():
            self.stopping.set()
            for container in (*self.initial, *self.main):
                self._spawn(container.stop(grace))

    def kill(self) -> None:
        """SIGKILL to everything."""
        for container in (*self.initial, *self.main):
            container.kill()

    def abandon(self) -> None:
        """The machine is gone: SIGKILL, and not a word to the API server."""
        self._silent = True
        self.stopping.set()
        self.kill()

    def changed(self) -> None:
        """Something that the status shows has changed."""
        self._published.clear()
        self._changed.set()

    async def close(self) -> None:
        """Ends the tasks and removes what lies on disk (logs stay)."""
        if self._kill_at:
            self._kill_at.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.kill()
        self.around.addresses.release(self.uid)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            if not self.lost or self._take_up_again():
                await self._run()
        except MissingReference as error:
            log.info("%s/%s did not start: %s", self.namespace, self.name, error)
        self._over = True
        if not self._silent:
            self.changed()
            await self._published.wait()
            if self.object["metadata"].get("deletionTimestamp"):
                await self._forget()
        self.finished.set()

    def _take_up_again(self) -> bool:
        """After a restart of the node its processes are gone; whether it starts again is the restart policy's word."""
        known = {one["name"]: one for one in self.object.get("status", {}).get("containerStatuses") or []}
        for container in self.main:
            container.lost(known.get(container.name, {}).get("restartCount", 0))
        if not statuses.restarts(self.restart_policy, 137):
            return False
        for container in self.main:
            container.last, container.restarts = container.state, container.restarts + 1
        return True

    async def _run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.around.names_changed(self.object)
        if not await self._prepare_volumes():
            return
        for container in self.initial:
            await self._run_container(
                container, "OnFailure" if self.restart_policy == "Always" else self.restart_policy
            )
            if container.exit_code or self.stopping.is_set():
                return
        await asyncio.gather(*(self._run_container(one, self.restart_policy) for one in self.main))

    async def _prepare_volumes(self) -> bool:
        while not self.stopping.is_set():
            try:
                self._places = await volumes.prepare(self.around.api, self._with_addresses(), self.folder)
                return True
            except (MissingReference, ApiError, OSError, *UNREACHABLE) as error:
                for container in (*self.initial, *self.main):
                    container.waits("ContainerCreating", f"MountVolume.SetUp failed: {error}")
                await self._pause(RETRY)
        return False

    async def _run_container(self, container: Container, restart_policy: str) -> None:
        while not self.stopping.is_set():
            if any(part in f"{container.spec.get('image', '')}/" for part in NO_IMAGE):
                container.waits("ImagePullBackOff", f'Back-off pulling image "{container.spec["image"]}": no such host')
                await self.stopping.wait()
                return
            try:
                launch = await self._launch(container)
            except (MissingReference, ApiError, *UNREACHABLE) as error:
                container.waits("CreateContainerConfigError", str(error))
                await self._pause(RETRY)
                continue
            if self.stopping.is_set():
                return
            code = await container.run_once(launch, self.around.way)
            if self.stopping.is_set() or not statuses.restarts(restart_policy, code):
                return
            await container.back_off(self.stopping)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    # -- putting a start together --------------------------------------------------------------------------------------

    async def _launch(self, container: Container) -> Launch:
        pod = self._with_addresses()
        own = self.folder / container.name
        own.mkdir(parents=True, exist_ok=True)
        env = environment.resolve(pod, container.spec, await self._references(), await self._inherited(pod))
        env = environment.without_chips(container.spec, env)
        mounts = volumes.mounts(pod, container.spec, self._places, env)
        message = own / "termination-log"
        message.touch()
        mounts.append(
            sandbox.Mount(str(message), container.spec.get("terminationMessagePath") or volumes.TERMINATION_LOG)
        )
        if self.around.way != sandbox.NONE:
            mounts.append(sandbox.Mount(str(self.hosts), "/etc/hosts"))
            mounts += sandbox.kept(mounts, [own, *NEEDED])
        command = environment.command_line(container.spec, env)
        workdir = container.spec.get("workingDir") or str(own)
        if self.around.way == sandbox.NONE:
            mapping, of_name = paths.table(mounts), self.around.addresses.of_name
            env = {key: addresses.with_addresses(value, pod, of_name) for key, value in env.items()}
            env = paths.rewritten_environment(env, mapping)
            command = [paths.rewrite(addresses.with_addresses(part, pod, of_name), mapping) for part in command]
            workdir = paths.rewrite(workdir, mapping)
            if account := mapping.get(paths.ACCOUNT):
                env["KUBECONFIG"] = str(paths.write_kubeconfig(own / "kubeconfig", account, self.around.api_port))
        return Launch(
            command=command,
            env=env,
            mounts=mounts,
            workdir=workdir,
            hostname=addresses.names(pod)[0],
            address=self.address,
            scratch=own / "root",
            message_file=message,
            log=self.logs / container.name / f"{container.restarts}.log",
            mark={processes.DIR: str(self.around.folder), processes.POD: f"{self.uid}/{container.name}"},
        )

    async def _inherited(self, pod: Object) -> dict[str, str]:
        """What every container finds without asking: the checkout's programs first, and the way to the API server."""
        job = (pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name")
        parallelism = None
        if job and environment.wants_tpu(pod):
            found = await self.around.api.get(f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{job}")
            parallelism = found["spec"].get("parallelism")
        return {
            "PATH": f"{sys.prefix}/bin:{SYSTEM_PATH}",
            "HOME": str(self.folder),
            "HOSTNAME": addresses.names(pod)[0],
            "LANG": "C.UTF-8",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.around.api_port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self.around.api_port),
            **environment.injected(pod, parallelism),
        }

    async def _references(self) -> References:
        async def read(kind: str, resource: str, name: str) -> tuple[str, str, dict[str, bytes] | None]:
            try:
                found = await self.around.api.get(f"/api/v1/namespaces/{self.namespace}/{resource}/{name}")
            except ApiError as error:
                if error.status != 404:
                    raise
                return kind, name, None
            return kind, name, environment.decode({**found, "kind": kind})

        names = environment.referred_names(self.object)
        resources = {"ConfigMap": "configmaps", "Secret": "secrets"}
        found = await asyncio.gather(*(read(kind, resources[kind], name) for kind in names for name in names[kind]))
        by_kind = {kind: {name: data for k, name, data in found if k == kind} for kind in names}
        return References(by_kind["ConfigMap"], by_kind["Secret"])

    def _with_addresses(self) -> Object:
        status = {**self.object.get("status", {}), "podIP": self.address, "hostIP": self.host_address}
        return {**self.object, "status": status}

    @property
    def hosts(self) -> Path:
        """The pod's /etc/hosts."""
        return self.folder / "hosts"

    # -- keeping files and status up to date ---------------------------------------------------------------------------

    async def _refresh(self) -> None:
        if self._places:
            with contextlib.suppress(MissingReference):
                await volumes.refresh(self.around.api, self._with_addresses(), self.folder)

    async def _renew_tokens(self, lifetime: float) -> None:
        while True:
            await asyncio.sleep(lifetime * 0.8)
            try:
                await volumes.refresh(self.around.api, self._with_addresses(), self.folder, tokens=True)
            except (ApiError, *UNREACHABLE) as error:
                log.warning("token of %s/%s was not renewed: %s", self.namespace, self.name, error)
                lifetime = 60.0

    def _status(self) -> Object:
        found = statuses.phase(self.restart_policy, self.initial, self.main, ending=self._over)
        override = self._override if self._over else {}
        if self._over and self._disruption:
            self._conditions.set("DisruptionTarget", True, *self._disruption)
        return statuses.pod_status(
            self._conditions, override.get("phase", found), self.initial, self.main, self.address, self.host_address,
            self.start_time, override,
        )  # fmt: skip

    def _about_to_end(self) -> bool:
        codes = [container.exit_code for container in self.main]
        ended = [code for code in codes if code is not None]
        final = self.stopping.is_set() or not any(statuses.restarts(self.restart_policy, code) for code in ended)
        return final and len(ended) == len(codes)

    async def _publish(self) -> None:
        pause = 0.05
        while True:
            await self._changed.wait()
            self._changed.clear()
            over = self._over
            if self._silent:
                return
            if not over and self._about_to_end():
                continue  # the end is said once, as a whole, a moment later
            body = {"metadata": {"uid": self.uid}, "status": self._status()}
            try:
                await self.around.api.patch(f"{self.path}/status", body)
                pause = 0.05
            except ApiError as error:
                if error.status not in (404, 409, 422):
                    log.warning("status of %s/%s: %s", self.namespace, self.name, error)
                    await self._again_after(pause)
                    continue
                if error.status == 422:
                    log.error("status of %s/%s was refused: %s", self.namespace, self.name, error)
            except UNREACHABLE:
                pause = min(pause * 2, 1.0)
                await self._again_after(pause)
                continue
            if over == self._over and not self._changed.is_set():
                self._published.set()

    async def _again_after(self, pause: float) -> None:
        self._changed.set()
        await asyncio.sleep(pause)

    async def _forget(self) -> None:
        """The last word on a deleted pod: the node has nothing of it any more."""
        while not self._silent:
            try:
                await self.around.api.delete(self.path, uid=self.uid, grace=0)
                return
            except (ApiError, *UNREACHABLE) as error:
                log.info("deletion of %s/%s: %s", self.namespace, self.name, error)
                await asyncio.sleep(0.2)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s/%s: %r", self.namespace, self.name, error, exc_info=error)
