"""A place where files are kept: a path, or a prefix of a bucket's keys.

Decides how places are written, joined and shown. Whether there is anything is said by `objects.py`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ratchet_trainer.errors import ConfigurationInvalid

SCHEMES = ("gs", "s3")
"""Google Cloud Storage, and whatever speaks Amazon's S3."""
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_SLIP = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")
"""How gs:/bucket begins. It could be a path, but then what was meant for a bucket would stay on this machine."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True, order=True)
class Location:
    """`scheme` and `bucket` are empty for a path; `key` is the path, or the prefix in the bucket without slashes at its
    ends."""

    scheme: str
    bucket: str
    key: str

    @classmethod
    def parse(cls, place: str | os.PathLike[str] | Location, what: str = "") -> Location:
        """A place as it is written in a manifest. `what`: where it stands, for the error. Raises ConfigurationInvalid
        for one that cannot be meant."""
        if isinstance(place, Location):
            return place
        text = os.fspath(place)
        about = f"{what}: {text}" if what else text
        if isinstance(place, str) and (not text.isprintable() or text != text.strip() or not text):
            raise ConfigurationInvalid(
                f"{what or 'place'}: {text!r}: a place is a path, gs://BUCKET/PREFIX or s3://BUCKET/PREFIX, without "
                "blanks around it or control characters"
            )
        if (found := _SCHEME.match(text)) is None:
            if isinstance(place, str) and (slip := _SLIP.match(text)) is not None:
                meant = slip[1].lower()
                way = f"{meant}://BUCKET/PREFIX" if meant in SCHEMES else "gs://, s3:// or a path"
                raise ConfigurationInvalid(f"{about}: has one / too few after {slip[1]}:; write {way}")
            return cls("", "", str(Path(text)))
        scheme, (bucket, _, key) = found[1], text[found.end() :].partition("/")
        if scheme not in SCHEMES:
            raise ConfigurationInvalid(f"{about}: {scheme}:// is not known; use gs://, s3:// or a path")
        if not _BUCKET.fullmatch(bucket):
            raise ConfigurationInvalid(f"{about}: {bucket!r} is no bucket's name; write {scheme}://BUCKET/PREFIX")
        parts = key.strip("/").split("/") if key.strip("/") else []
        if any(part in ("", ".", "..") for part in parts):
            raise ConfigurationInvalid(f"{about}: a part of the prefix is empty, . or ..; write it without that part")
        return cls(scheme, bucket, "/".join(parts))

    @property
    def on_bucket(self) -> bool:
        return bool(self.scheme)

    @property
    def local(self) -> Path:
        """The path of a place on a file system. Never asked of a bucket's."""
        if self.on_bucket:
            raise TypeError(f"{self} is no path")
        return Path(self.key)

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> Location:
        """The place that it is in; the bucket itself for what is right in it."""
        if not self.on_bucket:
            return Location("", "", str(Path(self.key).parent))
        return Location(self.scheme, self.bucket, self.key.rpartition("/")[0])

    def __truediv__(self, below: str) -> Location:
        if not self.on_bucket:
            return Location("", "", str(Path(self.key, below)))
        return Location(self.scheme, self.bucket, f"{self.key}/{below}" if self.key else below)

    def __str__(self) -> str:
        root = f"{self.scheme}://{self.bucket}"
        return f"{root}/{self.key}" if self.on_bucket and self.key else root if self.on_bucket else self.key
