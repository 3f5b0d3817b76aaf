"""Tokens that a folder's other files know of, beside tokenizer.json.

Decides which of them the tokenizer gets, as the `transformers` library would: entries of added_tokens_decoder, of
added_tokens.json and of special_tokens_map.json, additional_special_tokens and extra_special_tokens. A number that two
files give to different texts is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_trainer.errors import ConfigurationInvalid

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
LISTED = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class Added:
    """A token that a file adds or calls special. `id` is None where the file does not say."""

    content: str
    id: int | None
    special: bool
    flags: tuple[tuple[str, bool], ...]
    file: str


def of_folder(folder: Path, config: Mapping[str, Any], others: Mapping[str, Any]) -> list[Added]:
    """What the files say, those with numbers first. `config`, `others`: the content of tokenizer_config.json and of
    special_tokens_map.json. Raises ConfigurationInvalid for a file that is no JSON."""
    found = [*_decoder(folder, config), *_numbered(folder), *_named(config, CONFIG), *_named(others, MAP)]
    return sorted(found, key=lambda token: (token.id is None, token.id or 0))


def apply(tokenizer: Any, added: list[Added], folder: Path) -> list[str]:
    """Gives the tokenizer what it lacks of these tokens and makes those special that are. Returns what was changed, for
    the tokenizer's digest. Raises ConfigurationInvalid where numbers and texts contradict one another."""
    from tokenizers import AddedToken

    changed: list[str] = []
    special = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
    for token in added:
        there = tokenizer.token_to_id(token.content)
        if token.id is not None and there is None:
            other = tokenizer.id_to_token(token.id)
            if other is not None:
                raise ConfigurationInvalid(
                    f"{folder / token.file}: token {token.id} is {token.content!r}, in tokenizer.json {other!r}; write "
                    "both files by `save_pretrained` of one tokenizer"
                )
        if token.id is not None and there is not None and there != token.id:
            raise ConfigurationInvalid(
                f"{folder / token.file}: {token.content!r} is token {token.id}, in tokenizer.json {there}; write both "
                "files by `save_pretrained` of one tokenizer"
            )
        if there is not None and (not token.special or token.content in special):
            continue
        made = AddedToken(token.content, special=token.special, **dict(token.flags))
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([made])
        now = tokenizer.token_to_id(token.content)
        if token.id is not None and now != token.id:
            raise ConfigurationInvalid(
                f"{folder / token.file}: {token.content!r} is token {token.id}, but tokenizer.json ends before: it "
                f"would be {now}; write both files by `save_pretrained` of one tokenizer"
            )
        if token.special:
            special.add(token.content)
        changed.append(f"{now} {token.content} {token.special}")
    return changed


def _decoder(folder: Path, config: Mapping[str, Any]) -> Iterator[Added]:
    entries = config.get("added_tokens_decoder")
    for number, entry in entries.items() if isinstance(entries, dict) else ():
        if str(number).isdigit() and isinstance(entry, dict) and isinstance(entry.get("content"), str):
            yield _added(entry, int(number), bool(entry.get("special", False)), CONFIG)


def _numbered(folder: Path) -> Iterator[Added]:
    try:
        content = json.loads((folder / ADDED).read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid(f"{folder / ADDED}: {error}") from None
    for text, number in content.items() if isinstance(content, dict) else ():
        if type(number) is int:
            yield _added({"content": text}, number, False, ADDED)


def _named(content: Mapping[str, Any], file: str) -> Iterator[Added]:
    entries = [content.get(name) for name in NAMED]
    for name in LISTED:
        listed = content.get(name)
        entries += listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else []
    for entry in entries:
        if isinstance(entry, str) and entry:
            yield _added({"content": entry}, None, True, file)
        elif isinstance(entry, dict) and isinstance(entry.get("content"), str) and entry["content"]:
            yield _added(entry, None, True, file)


def _added(entry: Mapping[str, Any], number: int | None, special: bool, file: str) -> Added:
    given = {"normalized": not special} | {k: v for k, v in entry.items() if k in FLAGS and isinstance(v, bool)}
    return Added(entry["content"], number, special, tuple(sorted(given.items())), file)
