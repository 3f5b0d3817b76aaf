"""The source `jsonl`: a file with one JSON object a line, read whole.

Decides what is accepted; every refusal names file and line.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ratchet_api.datasets import Jsonl
from ratchet_trainer.data.items import Item
from ratchet_trainer.errors import ConfigurationInvalid


class JsonlItems:
    """Items are numbered in file order. Lines without content are skipped."""

    def __init__(self, name: str, spec: Jsonl):
        """Raises ConfigurationInvalid for a file that is not there or not ours to read, a malformed line, or no items;
        StorageUnavailable if reading it fails otherwise.
        """
        # Here, because data sets are opened without checkpoints too.
        from ratchet_trainer.checkpoints.checkpoint import with_retries

        self.name = name
        path = Path(spec.path)

        def read() -> bytes:
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
                raise ConfigurationInvalid(
                    f"data set {name}: {path}: {error.strerror}; jsonl.path is as the trainer's pods see it "
                    f"(claimName mounts it)"
                ) from error

        content = with_retries(f"data set {name}: reading {path}", read)
        self._items = [
            _item(line, f"{path}:{number}", spec) for number, line in enumerate(content.splitlines(), 1) if line.strip()
        ]
        if not self._items:
            raise ConfigurationInvalid(f"data set {name}: {path} has no items; give it one JSON object a line")
        self.size, self.held = len(self._items), True
        identity = f"{spec.question}\0{spec.answer}\0".encode()
        self.digest = hashlib.sha256(identity + content).hexdigest()

    def item(self, index: int) -> Item:
        return self._items[index]


def _item(line: bytes, place: str, spec: Jsonl) -> Item:
    try:
        data = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ConfigurationInvalid(f"{place}: not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationInvalid(f"{place}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationInvalid(f"{place}: a JSON object is needed, this is {type(data).__name__}")
    for key in (spec.question, spec.answer):
        if key not in data:
            raise ConfigurationInvalid(
                f"{place}: no key {key!r} (there is {', '.join(map(repr, data)) or 'none'}); "
                f"set jsonl.question and jsonl.answer to the keys of your file"
            )
        if not isinstance(data[key], str):
            raise ConfigurationInvalid(f"{place}: {key!r} is not a string; quote it")
        if not data[key].isascii():
            try:
                data[key].encode()
            except UnicodeEncodeError:
                raise ConfigurationInvalid(f"{place}: {key!r} holds half of a surrogate pair; write it whole") from None
    return Item(data[spec.question], data[spec.answer])
