"""Packs the kubectl plugin and writes its manifest for Krew.

`python release/krew.py WHEEL VERSION URL FOLDER`: packs the launcher and the wheel into an archive in FOLDER, the same
bytes whenever it is done, and fills version, address and digest of that archive into FOLDER/krew.yaml. URL is where the
release's files will be. `--check FILE` looks instead whether a manifest is whole: exit code 1 where it is not.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "release/krew.yaml"
LAUNCHER = ROOT / "release/kubectl-ratchet"
PLACEHOLDER = "FILLED-AT-RELEASE"
VERSION = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?")
SHA256 = re.compile(r"[0-9a-f]{64}")


class NotReleasable(ValueError):
    """The manifest cannot be made; the message says why."""


def archive(wheel: Path) -> bytes:
    """The plugin's archive. The same wheel gives the same bytes."""
    if not re.fullmatch(r"ratchet_rl-.*\.whl", wheel.name):
        raise NotReleasable(f"{wheel} is no wheel of ratchet-rl")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file, mode in ((LAUNCHER, 0o755), (ROOT / "LICENSE", 0o644), (wheel, 0o644)):
            data = file.read_bytes()
            entry = tarfile.TarInfo(file.name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


def filled(template: str, version: str, url: str, sha256: str, name: str) -> str:
    """The manifest of an archive that will be at URL/NAME. Raises NotReleasable."""
    if not re.match(r"https://[^/\s]+/\S+", url):
        raise NotReleasable(f"{url!r} is no https address of a release's files")
    base = url.rstrip("/")
    values = {
        "version": f"v{version.removeprefix('v')}",
        "homepage": base.partition("/releases/")[0],
        "uri": f"{base}/{name}",
        "sha256": f'"{sha256}"',  # some digests are numbers to YAML
    }
    text = template
    for key, value in values.items():
        text, times = re.subn(rf"(?m)^(\s*{key}: ){PLACEHOLDER}$", rf"\g<1>{value}", text)
        if times != 1:
            raise NotReleasable(f"the template has {times} places for {key}, and must have one")
    # The words at the top speak of the template.
    return re.sub(r"(?m)\A(#.*\n)+", "", text)


def faults(manifest: str) -> Iterator[str]:
    """What keeps a manifest from being one of a release."""
    if PLACEHOLDER in manifest:
        yield f"{PLACEHOLDER} is left in it; `make release` fills it"
        return
    said: dict[str, Any] = yaml.safe_load(manifest)
    if not VERSION.fullmatch(str(said["spec"].get("version"))):
        yield f"version {said['spec'].get('version')} is none: v1.2.3"
    if not str(said["spec"].get("homepage")).startswith("https://"):
        yield "homepage is no https address"
    for platform in said["spec"]["platforms"]:
        if not SHA256.fullmatch(str(platform.get("sha256"))):
            yield f"sha256 {platform.get('sha256')} is no digest"
        if not str(platform.get("uri")).startswith("https://"):
            yield f"uri {platform.get('uri')} is no https address"


def main() -> int:
    parser = argparse.ArgumentParser(description="Pack the kubectl plugin and write its manifest for Krew.")
    parser.add_argument("--check", type=Path, metavar="FILE", help="only look whether a manifest is whole")
    parser.add_argument("rest", nargs="*", metavar="WHEEL VERSION URL FOLDER")
    asked = parser.parse_args()
    try:
        if asked.check is not None:
            wrong = list(faults(asked.check.read_text(encoding="utf-8")))
            print("\n".join(f"{asked.check}: {one}" for one in wrong), file=sys.stderr, end="\n" if wrong else "")
            return 1 if wrong else 0
        if len(asked.rest) != 4:
            parser.error("WHEEL VERSION URL FOLDER, or --check FILE")
        wheel, version, url, folder = asked.rest
        packed, name = archive(Path(wheel)), f"kubectl-ratchet-{version}.tar.gz"
        digest = hashlib.sha256(packed).hexdigest()
        manifest = filled(TEMPLATE.read_text(encoding="utf-8"), version, url, digest, name)
        if wrong := list(faults(manifest)):
            raise NotReleasable("; ".join(wrong))
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_bytes(packed)
        (Path(folder) / "krew.yaml").write_text(manifest, encoding="utf-8")
        print(f"{folder}/{name} sha256 {digest}")
    except (OSError, NotReleasable) as problem:
        print(f"krew: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
