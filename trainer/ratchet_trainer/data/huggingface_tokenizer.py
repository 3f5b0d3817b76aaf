"""The tokenizer of a model in Hugging Face layout: `tokenizer.json`, and the chat template that makes prompts.

Decides which template counts (the manifest's, else `chat_template.jinja`, else the one in `tokenizer_config.json`) and
which tokens end a response (`generation_config.json`, else `config.json`). A template is run in a sandbox, and may not
ask for the time: a prompt must be the same tomorrow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratchet_api.canonical import canonical
from ratchet_trainer.data.tokenizer import before_end
from ratchet_trainer.errors import ConfigurationInvalid

TEMPLATE, CONFIG = "chat_template.jinja", "tokenizer_config.json"


class HuggingFaceTokenizer:
    """Raises ConfigurationInvalid where the folder's files cannot be used, naming file and way out."""

    def __init__(self, folder: Path, vocabulary: int, template: str | None = None, system: str | None = None):
        from tokenizers import Tokenizer

        self._folder, self._system = folder, system
        file = folder / "tokenizer.json"
        try:
            content = file.read_bytes()
            self._tokenizer = Tokenizer.from_str(content.decode())
        except OSError as error:
            raise ConfigurationInvalid(f"{file}: {error.strerror}") from None
        except Exception as error:  # the library raises plain Exception for what it cannot read
            raise ConfigurationInvalid(f"{file}: no tokenizer can be made of it: {error}") from None
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if largest >= vocabulary:
            raise ConfigurationInvalid(
                f"{file}: has a token {largest}, the model's vocabulary ends at {vocabulary - 1}: is it another's?"
            )
        self._config = self._read(CONFIG) or {}
        self.ends = self._ends()
        text = template if template is not None else self._template()
        self._render = self._compiled(text)
        said = canonical([text, system, list(self.ends), {k: self._special(k) for k in ("bos_token", "eos_token")}])
        self.digest = hashlib.sha256(content + said).hexdigest()

    def encode_prompt(self, text: str) -> list[int]:
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        prompt = self._render([*system, {"role": "user", "content": text}])
        return list(self._tokenizer.encode(prompt, add_special_tokens=False).ids)

    def encode_answer(self, text: str) -> list[int]:
        return [*self._tokenizer.encode(text, add_special_tokens=False).ids, self.ends[0]]

    def decode(self, tokens: Sequence[int]) -> str:
        # Special tokens stay: tags such as <answer> are some in many tokenizers.
        text: str = self._tokenizer.decode(list(before_end(tokens, self.ends)), skip_special_tokens=False)
        return text

    def _ends(self) -> tuple[int, ...]:
        for name in ("generation_config.json", "config.json"):
            found = (self._read(name) or {}).get("eos_token_id")
            if isinstance(found, int):
                return (found,)
            if isinstance(found, list) and found:
                return tuple(found)
        token = self._tokenizer.token_to_id(self._special("eos_token") or "")
        if token is None:
            raise ConfigurationInvalid(
                f"{self._folder}: no eos_token_id in generation_config.json or config.json, so no response would end"
            )
        return (token,)

    def _special(self, name: str) -> str | None:
        found = self._config.get(name)
        return found.get("content") if isinstance(found, dict) else found

    def _template(self) -> str:
        path = self._folder / TEMPLATE
        if path.exists():
            return path.read_text()
        found = self._config.get("chat_template")
        if isinstance(found, list):  # several by name
            found = next((one.get("template") for one in found if one.get("name") == "default"), None)
        if not isinstance(found, str):
            raise ConfigurationInvalid(
                f"{self._folder}: no chat template, neither {TEMPLATE} nor in {CONFIG}; set spec.model.chatTemplate, "
                "for example to \"{{ messages[-1]['content'] }}\" for a base model that continues plain text"
            )
        return found

    def _compiled(self, text: str) -> Any:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        def no_clock(*_: Any) -> None:
            raise TemplateError("asks for the time, and prompts must be the same in every attempt")

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
        environment.globals |= {"raise_exception": refuse, "strftime_now": no_clock}
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        special = {name: token for name in names if (token := self._special(name)) is not None}

        def render(messages: list[dict[str, str]]) -> str:
            try:
                return str(template.render(messages=messages, add_generation_prompt=True, **special))
            except Exception as error:  # a template is somebody's program and fails as it likes
                raise ConfigurationInvalid(f"the chat template of {self._folder} fails: {error}") from None

        try:
            template = environment.from_string(text)
        except TemplateError as error:
            raise ConfigurationInvalid(f"the chat template of {self._folder} is no template: {error}") from None
        return render

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigurationInvalid(f"{self._folder / name}: {error}") from None
        return found if isinstance(found, dict) else None
