"""The tokenizer of a model in Hugging Face layout: `tokenizer.json`, prompts by its chat template.

Decides which tokens end a response (`generation_config.json`, else `config.json`, else the tokenizer's own), with which
of them an answer ends that is learned, and what is refused as not fitting the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratchet_api.canonical import canonical
from ratchet_trainer.data.chat_template import CONFIG, ChatTemplate, of_folder
from ratchet_trainer.data.tokenizer import before_end
from ratchet_trainer.errors import ConfigurationInvalid

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""What a token is decoded to that is none of the tokenizer's: models often have more, up to a round number."""
MARK = "ratchet"
"""An answer, to see what a template puts after it."""


class HuggingFaceTokenizer:
    """Raises ConfigurationInvalid where the folder's files cannot be used, naming file and way out.

    `vocabulary`: the number of tokens that the model knows; `template`: the manifest's, instead of the folder's;
    `system`: the content of the system message of each prompt.
    """

    def __init__(self, folder: Path, vocabulary: int, template: str | None = None, system: str | None = None):
        self._folder, self._vocabulary, self._system = folder, vocabulary, system
        content = self._opened(folder / "tokenizer.json")
        self._config = self._read(CONFIG) or {}
        self.ends = self._ends()
        text = template if template is not None else of_folder(folder, self._config)
        others = self._read("special_tokens_map.json") or {}
        found = {name: self._text(self._config.get(name, others.get(name))) for name in SPECIAL}
        special = {name: token for name, token in found.items() if token is not None}
        place = "spec.model.chatTemplate" if template is not None else f"the chat template of {folder}"
        self._template = ChatTemplate(text, place, special)
        said = canonical([text, system, list(self.ends), special])
        self.digest = hashlib.sha256(content + said).hexdigest()
        self._last: int | None = None

    def encode_prompt(self, text: str) -> list[int]:
        return self._encoded(self._template.render(self._messages(text)))

    def encode_answer(self, text: str) -> list[int]:
        if self._last is None:
            self._last = self._last_of_an_answer()
        return [*self._encoded(text), self._last]

    def decode(self, tokens: Sequence[int]) -> str:
        # Special tokens stay: tags such as <answer> are some in many tokenizers.
        parts: list[list[int]] = [[]]
        for token in before_end(tokens, self.ends):
            if self._tokenizer.id_to_token(token) is None:
                parts.append([])
            else:
                parts[-1].append(token)
        return UNKNOWN.join(self._tokenizer.decode(part, skip_special_tokens=False) for part in parts)

    def decode_one(self, token: int) -> str:
        """A token's own text."""
        return self._tokenizer.id_to_token(token) or UNKNOWN

    @property
    def size(self) -> int:
        """How many tokens the tokenizer has, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def _messages(self, text: str) -> list[dict[str, str]]:
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*system, {"role": "user", "content": text}]

    def _encoded(self, text: str) -> list[int]:
        """Tokens of a text that holds every special token that it should: none is put before it."""
        found = self._tokenizer.encode(text, add_special_tokens=False).ids
        beyond = [token for token in found if token >= self._vocabulary]
        if beyond:
            raise ConfigurationInvalid(
                f"{self._folder}: {self._tokenizer.id_to_token(beyond[0])!r} is token {beyond[0]}, the model's "
                f"vocabulary ends at {self._vocabulary - 1}; leave it out of data and template"
            )
        return list(found)

    def _last_of_an_answer(self) -> int:
        """The end that the template puts after an assistant's words (of Llama 3 and Gemma it is not the first of the
        model's ends), else the tokenizer's own, else the first."""
        said = [*self._messages("?"), {"role": "assistant", "content": MARK}]
        try:
            after = self._template.render(said, ask=False).rpartition(MARK)[2]
        except ConfigurationInvalid:  # a template that knows no answers
            after = ""
        candidates = [*self._tokenizer.encode(after, add_special_tokens=False).ids]
        candidates.append(self._tokenizer.token_to_id(self._text(self._config.get("eos_token")) or ""))
        return next((token for token in candidates if token in self.ends), self.ends[0])

    def _opened(self, file: Path) -> bytes:
        """Reads the tokenizer; returns the file's bytes."""
        from tokenizers import Tokenizer

        try:
            content = file.read_bytes()
            self._tokenizer = Tokenizer.from_str(content.decode())
            self._tokenizer.no_truncation()  # the file may hold what somebody once encoded with
            self._tokenizer.no_padding()
        except FileNotFoundError as error:
            raise ConfigurationInvalid(
                f"{file}: {error.strerror}; other forms of tokenizers are not read, `save_pretrained` of transformers' "
                "AutoTokenizer writes this one"
            ) from None
        except OSError as error:
            raise ConfigurationInvalid(f"{file}: {error.strerror}") from None
        except Exception as error:  # the library raises plain Exception for what it cannot read
            raise ConfigurationInvalid(f"{file}: no tokenizer can be made of it: {error}") from None
        # Some models' tokenizers have added tokens that the model lacks (Gemma 3 1B one for images): if they are used,
        # the error is `_encoded`'s.
        largest = max(self._tokenizer.get_vocab(with_added_tokens=False).values(), default=0)
        if largest >= self._vocabulary:
            raise ConfigurationInvalid(
                f"{file}: has a token {largest}, the model's vocabulary ends at {self._vocabulary - 1}: is it "
                "another's?"
            )
        return content

    def _ends(self) -> tuple[int, ...]:
        found, where = self._said_ends()
        if not found:
            raise ConfigurationInvalid(
                f"{self._folder}: no eos_token_id in generation_config.json or config.json, so no response would end"
            )
        possible = tuple(token for token in found if type(token) is int and 0 <= token < self._vocabulary)
        if not possible:
            raise ConfigurationInvalid(
                f"{self._folder / where}: eos_token_id {', '.join(map(repr, found))} is no token of the model's "
                f"vocabulary, which ends at {self._vocabulary - 1}, so no response would end"
            )
        return possible

    def _said_ends(self) -> tuple[list[Any], str]:
        """Tokens that end a response, and the file that says so."""
        for name in ("generation_config.json", "config.json"):
            config = self._read(name) or {}
            for part in (config, config.get("text_config") or {}):
                found = part.get("eos_token_id")
                if found is not None and found != []:
                    return (found if isinstance(found, list) else [found]), name
        token = self._tokenizer.token_to_id(self._text(self._config.get("eos_token")) or "")
        return ([] if token is None else [token]), CONFIG

    @staticmethod
    def _text(token: Any) -> str | None:
        return token.get("content") if isinstance(token, dict) else token

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigurationInvalid(f"{self._folder / name}: {error}") from None
        return found if isinstance(found, dict) else None
