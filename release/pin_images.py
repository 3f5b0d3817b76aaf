"""Writes the digest of the trainer image that was just pushed into the chart and the examples of a release.

`python release/pin_images.py METADATA`: METADATA is the file that `docker buildx build --metadata-file` writes; digests
come from there and from nowhere else. What it must not be is said, and nothing is written then. `--check` looks instead
whether every image is pinned, and all to one digest: exit code 1 where one is not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGE = re.compile(r"(?P<name>[\w.:/-]+/ratchet-trainer):(?P<tag>[\w.-]+)(@sha256:(?P<digest>[\w-]+))?")
"""The trainer image in a manifest or in the chart's values, pinned or not."""
DIGEST = re.compile(r"[0-9a-f]{64}")
PLACEHOLDER = "FILLED-AT-RELEASE"
"""What stands for the digest in a checkout that is no release."""


class NotPinned(ValueError):
    """No digest can be had; the message says why."""


def files(root: Path = ROOT) -> list[Path]:
    """Where the trainer image is named."""
    return [root / "helm/ratchet/values.yaml", *sorted((root / "examples/gke").glob("*.yaml"))]


def pushed(metadata: str) -> tuple[str, str, str]:
    """(name, tag, digest) of the image that buildx says it has pushed. Raises NotPinned."""
    try:
        said = json.loads(metadata)
        reference, digest = said["image.name"], said["containerimage.digest"]
    except (ValueError, KeyError, TypeError) as problem:
        raise NotPinned(f"no metadata of an image that was pushed ({problem!r}); build with --push") from None
    found = IMAGE.fullmatch(str(reference).removeprefix("docker.io/"))
    if found is None or found["digest"] is not None:
        raise NotPinned(f"{reference} is no ratchet-trainer image with a tag")
    if not str(digest).startswith("sha256:") or not DIGEST.fullmatch(str(digest)[7:]):
        raise NotPinned(f"{digest} is no SHA-256 digest")
    return found["name"], found["tag"], digest[7:]


def pinned(text: str, name: str, tag: str, digest: str) -> str:
    """The text with every trainer image replaced by that one."""
    return IMAGE.sub(f"{name}:{tag}@sha256:{digest}", text)


def unpinned(texts: dict[str, str]) -> Iterator[str]:
    """What keeps files (name -> text) from being a release, in words."""
    digests: dict[str, str] = {}
    for where, text in texts.items():
        for image in IMAGE.finditer(text):
            digest = image["digest"]
            if digest is None or not DIGEST.fullmatch(digest):
                yield f"{where}: {image[0]} has no digest; `make release` writes it"
            elif digests and digest not in digests.values():
                first = next(iter(digests))
                yield f"{where}: {image[0]} is another image than that of {first}; run `make release` again"
            else:
                digests[where] = digest


def main() -> int:
    parser = argparse.ArgumentParser(description="Pin the trainer image of a release.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("metadata", type=Path, nargs="?", help="what docker buildx build --metadata-file wrote")
    what.add_argument("--check", action="store_true", help="only look whether every image is pinned")
    asked = parser.parse_args()
    if asked.check:
        wrong = list(unpinned({str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files()}))
        print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
        return 1 if wrong else 0
    try:
        image = pushed(asked.metadata.read_text(encoding="utf-8"))
    except (OSError, NotPinned) as problem:
        print(f"pin_images: {asked.metadata}: {problem}", file=sys.stderr)
        return 1
    for file in files():
        file.write_text(pinned(file.read_text(encoding="utf-8"), *image), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
