"""The volumes of a pod as folders of this machine, and where its containers want them.

Decides which folder or file stands for each volume, its content and modes, and how changed content gets in. Files
that come from the API are published as a kubelet does it: a new folder, then one rename of the link `..data`, so that
a reader sees the old set or the new one, never a mixture.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from ratchet_cluster.api import Api, ApiError
from ratchet_cluster.environment import MissingReference, decode, expand, field_value
from ratchet_cluster.objects import Object
from ratchet_cluster.sandbox import Mount

DEFAULT_MODE = 0o644
TERMINATION_LOG = "/dev/termination-log"


async def prepare(api: Api, pod: Object, folder: Path) -> dict[str, Path]:
    """Volume name -> place on this machine, content included. Raises `MissingReference` for what is not there (yet)."""
    found = {}
    for volume in pod["spec"].get("volumes") or []:
        found[volume["name"]] = await _place(api, pod, volume, folder / "volumes" / volume["name"])
    return found


async def _place(api: Api, pod: Object, volume: Object, own: Path) -> Path:
    namespace = pod["metadata"]["namespace"]
    if "hostPath" in volume:
        return _host_path(volume["hostPath"])
    if "persistentVolumeClaim" in volume:
        claim = await _get(
            api, f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", volume["persistentVolumeClaim"]["claimName"]
        )
        if not claim["spec"].get("volumeName"):
            raise MissingReference(f"persistentvolumeclaim {claim['metadata']['name']} is not bound to a volume")
        bound = await _get(api, "/api/v1/persistentvolumes", claim["spec"]["volumeName"])
        if "hostPath" not in bound["spec"]:
            raise MissingReference(
                f"persistentvolume {bound['metadata']['name']} is no hostPath volume; only those exist here"
            )
        return _host_path({**bound["spec"]["hostPath"], "type": "DirectoryOrCreate"})
    own.mkdir(parents=True, exist_ok=True, mode=0o755)
    if "emptyDir" in volume:
        own.chmod(0o777)
        return own
    publish(own, await _content(api, pod, volume))
    return own


def _host_path(source: Object) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    checks = {
        "Directory": path.is_dir,
        "File": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
    }
    if not checks.get(kind, path.exists)():
        raise MissingReference(f"hostPath type check failed: {path} is not a {kind or 'path of this machine'}")
    return path


Files = dict[str, tuple[bytes, int]]  # path in the volume -> content, mode


async def _content(api: Api, pod: Object, volume: Object) -> Files:
    if "projected" in volume:
        sources, mode = volume["projected"].get("sources") or [], volume["projected"].get("defaultMode", DEFAULT_MODE)
    else:
        kind = next((kind for kind in ("configMap", "secret", "downwardAPI") if kind in volume), None)
        if kind is None:
            known = "configMap, secret, downwardAPI, projected, emptyDir, hostPath, persistentVolumeClaim"
            raise MissingReference(f"volume {volume['name']}: of its kind there is none here; there are {known}")
        source = volume[kind]
        sources = [{kind: {**source, "name": source.get("secretName", source.get("name"))}}]
        mode = source.get("defaultMode", DEFAULT_MODE)
    files: Files = {}
    for source in sources:
        files |= await _projected(api, pod, source, mode)
    return files


async def _projected(api: Api, pod: Object, source: Object, mode: int) -> Files:
    namespace = pod["metadata"]["namespace"]
    if "downwardAPI" in source:
        return _downward(pod, source["downwardAPI"], mode)
    if "serviceAccountToken" in source:
        wanted = source["serviceAccountToken"]
        return {wanted["path"]: (await _token(api, pod, wanted), min(mode, 0o600) if mode == DEFAULT_MODE else mode)}
    for key, resource in (("configMap", "configmaps"), ("secret", "secrets")):
        if key in source:
            wanted = source[key]
            try:
                item = await _get(api, f"/api/v1/namespaces/{namespace}/{resource}", wanted["name"])
            except MissingReference:
                if wanted.get("optional"):
                    return {}
                raise
            return _chosen(decode({**item, "kind": "Secret" if key == "secret" else "ConfigMap"}), wanted, mode)
    raise MissingReference(f"projected source {', '.join(source)} is not supported by the local node agents")


def _chosen(data: Mapping[str, bytes], source: Object, mode: int) -> Files:
    items = source.get("items")
    if not items:
        return {key: (value, mode) for key, value in data.items()}
    missing = [item["key"] for item in items if item["key"] not in data]
    if missing and not source.get("optional"):
        raise MissingReference(f"references non-existent config key: {', '.join(missing)}")
    return {item["path"]: (data[item["key"]], item.get("mode", mode)) for item in items if item["key"] in data}


def _downward(pod: Object, source: Object, mode: int) -> Files:
    files: Files = {}
    for item in source.get("items") or []:
        if "fieldRef" not in item:
            raise MissingReference(
                f"downward API file {item['path']}: only fieldRef is supported by the local node agents"
            )
        value = field_value(pod, item["fieldRef"]["fieldPath"])
        files[item["path"]] = (value.encode(), item.get("mode", mode))
    return files


async def _token(api: Api, pod: Object, wanted: Object) -> bytes:
    metadata = pod["metadata"]
    account = pod["spec"].get("serviceAccountName", "default")
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "expirationSeconds": wanted.get("expirationSeconds", 3600),
            "audiences": [wanted["audience"]] if wanted.get("audience") else [],
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]},
        },
    }
    answer = await api.create(f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token", request)
    token: str = answer["status"]["token"]
    return token.encode()


async def refresh(api: Api, pod: Object, folder: Path, *, tokens: bool = False) -> None:
    """Brings downward-API files up to date with the pod; with `tokens` also whatever holds a service-account token."""
    for volume in pod["spec"].get("volumes") or []:
        sources = (volume.get("projected") or {}).get("sources") or []
        downward = "downwardAPI" in volume or any("downwardAPI" in source for source in sources)
        token = any("serviceAccountToken" in source for source in sources)
        if (tokens and token) or (downward and not tokens):
            publish(folder / "volumes" / volume["name"], await _content(api, pod, volume))


def token_lifetime(pod: Object) -> float | None:
    """Seconds for which the shortest-lived service-account token of the pod is valid; None where it has none."""
    found = [
        source["serviceAccountToken"].get("expirationSeconds", 3600)
        for volume in pod["spec"].get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
        if "serviceAccountToken" in source
    ]
    return min(found, default=None)


def publish(folder: Path, files: Files) -> None:
    """Makes `files` the content of the volume in one step; does nothing when it is that already."""
    current = folder / "..data"
    if current.exists() and _same(current, files):
        return
    fresh = folder / f"..{time.time_ns()}"
    for name, (content, mode) in files.items():
        place = fresh / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(mode)
    fresh.mkdir(exist_ok=True)
    old = current.resolve() if current.exists() else None
    (folder / "..data_tmp").symlink_to(fresh.name)
    os.replace(folder / "..data_tmp", current)
    tops = {name.split("/")[0] for name in files}
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old:
        shutil.rmtree(old)


def _same(folder: Path, files: Files) -> bool:
    present = {str(place.relative_to(folder.resolve())) for place in folder.resolve().rglob("*") if place.is_file()}
    return present == set(files) and all(
        (folder / name).read_bytes() == content for name, (content, _) in files.items()
    )


def mounts(pod: Object, container: Object, places: Mapping[str, Path], env: Mapping[str, str]) -> list[Mount]:
    """What the container mounts, sub-paths resolved (made where they are missing)."""
    found = []
    kinds = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    for wanted in container.get("volumeMounts") or []:
        source = places[wanted["name"]]
        below = expand(wanted["subPathExpr"], env) if wanted.get("subPathExpr") else wanted.get("subPath")
        if below:
            if ".." in Path(below).parts or Path(below).is_absolute():
                raise MissingReference(f"subPath {below!r} must stay inside its volume")
            source = source / below
            if not source.exists():
                source.mkdir(parents=True)
            source = source.resolve()
        from_api = not {"emptyDir", "hostPath", "persistentVolumeClaim"} & set(kinds[wanted["name"]])
        found.append(
            Mount(str(source), wanted["mountPath"].rstrip("/") or "/", from_api or bool(wanted.get("readOnly")))
        )
    return found


async def _get(api: Api, collection: str, name: str) -> Object:
    try:
        found: Object = await api.get(f"{collection}/{name}")
    except ApiError as error:
        if error.status == 404:
            raise MissingReference(str(error).split(": ", 1)[1]) from None
        raise
    return found
