"""Chat templates: somebody's Jinja program that makes the text of a prompt from messages.

Decides which template of a folder counts and what a template may do. It sees what `transformers` shows it, so that
prompts are those that the model was trained with, with one exception: there is no clock (`strftime_now`), for a prompt
must be the same tomorrow; templates that can do without one (Llama's) take their own constant then. It runs in a
sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet_trainer.errors import ConfigurationInvalid

FILE, OLDER_FILE, CONFIG = "chat_template.jinja", "chat_template.json", "tokenizer_config.json"
PLAIN = "{{ bos_token }}{{ messages[-1]['content'] }}"
"""What a base model needs that continues plain text."""

Message = Mapping[str, str]


class NoChatTemplate(ConfigurationInvalid):
    """A folder has none."""


class ChatTemplate:
    """A template, ready to be rendered. `place`: where it comes from, for errors. `special`: names as `bos_token` ->
    the text of that token. Raises ConfigurationInvalid if it is none."""

    def __init__(self, text: str, place: str, special: Mapping[str, str]):
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.place, self._special = place, dict(special)
        self._clock = "strftime_now" in text
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _generation()]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(text)
        except TemplateError as error:
            raise ConfigurationInvalid(f"{place} is no template: {error}") from None

    def render(self, messages: Sequence[Message], ask: bool = True) -> str:
        """The text of a conversation; with `ask`, up to where the assistant's answer begins. Raises
        ConfigurationInvalid with what the template says."""
        try:
            said = self._template.render(
                messages=messages, add_generation_prompt=ask, tools=None, documents=None, **self._special
            )
        except Exception as error:  # a template is somebody's program and fails as it likes
            clock = "; there is no clock here, as prompts must be the same in every attempt" if self._clock else ""
            roles = ", ".join(message["role"] for message in messages)
            raise ConfigurationInvalid(f"{self.place} fails for messages of {roles}: {error}{clock}") from None
        return str(said)


def of_folder(folder: Path, config: Mapping[str, Any]) -> str:
    """The template that a folder has: in a file of its own, else in `config`, the content of tokenizer_config.json,
    else where older multimodal models keep it. Raises NoChatTemplate."""
    if (folder / FILE).exists():
        try:
            return (folder / FILE).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationInvalid(f"{folder / FILE}: {error}") from None
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
    if isinstance(found, dict):  # several by name
        if "default" not in found and len(found) > 1:
            raise NoChatTemplate(
                f"{folder / CONFIG}: none of the chat templates {', '.join(map(str, found))} is called default; "
                "set spec.model.chatTemplate to one of them"
            )
        found = found.get("default", next(iter(found.values()), None))
    if found is None and (folder / OLDER_FILE).exists():
        found = _older(folder / OLDER_FILE)
    if not isinstance(found, str):
        raise NoChatTemplate(
            f"{folder}: no chat template, neither {FILE} nor in {CONFIG}; set spec.model.chatTemplate, "
            f'for example to "{PLAIN}" for a base model that continues plain text'
        )
    return found


def _older(file: Path) -> Any:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid(f"{file}: not JSON: {error}") from None
    return content.get("chat_template") if isinstance(content, dict) else content


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _to_json(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Jinja's own escapes for HTML.
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _generation() -> Any:
    """Templates mark what the assistant says by {% generation %}; here the mark means nothing."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (as the library has it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Generation
