"""The tokenizer of a model in Hugging Face layout: `tokenizer.json`, prompts by its chat template.

Decides which tokens end a response (all that `generation_config.json`, `config.json`, the tokenizer's files and the
template say), with which of them an answer ends that is learned, and what is refused as not fitting the model.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet_api.canonical import canonical
from ratchet_trainer.data import added_tokens
from ratchet_trainer.data.chat_template import CONFIG, ChatTemplate, of_folder
from ratchet_trainer.data.control_tokens import ControlTokens
from ratchet_trainer.data.item import Message
from ratchet_trainer.data.lfs import refuse_pointers
from ratchet_trainer.data.tokenizer import before_end
from ratchet_trainer.errors import ConfigurationInvalid

log = logging.getLogger(__name__)

SPECIAL = added_tokens.NAMED
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
        refuse_pointers(folder)
        content = self._opened(folder / "tokenizer.json")
        self._config = self._read(CONFIG) or {}
        others = self._read(added_tokens.MAP) or {}
        changed = added_tokens.apply(self._tokenizer, added_tokens.of_folder(folder, self._config, others), folder)
        found = {name: self._text(self._config.get(name, others.get(name))) for name in SPECIAL}
        special = {name: token for name, token in found.items() if token is not None}
        said_ends, where = self._said_ends(special.get("eos_token"))
        text = template if template is not None else of_folder(folder, self._config)
        place = "spec.model.chatTemplate" if template is not None else f"the chat template of {folder}"
        self._template = ChatTemplate(text, place, special)
        after = self._after_an_answer()
        self.ends = self._ends(said_ends, where, after)
        self._last = self._last_of_an_answer(said_ends, after, special.get("eos_token"))
        names = [self._tokenizer.id_to_token(token) for token in self.ends]
        self._controls = ControlTokens(self._tokenizer, [name for name in (*names, *special.values()) if name])
        self._shown: set[tuple[str, ...]] = set()
        self._say_what_cannot_be_written()
        said = canonical([text, system, list(self.ends), special, *([changed] if changed else [])])
        self.digest = hashlib.sha256(content + said).hexdigest()

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode_messages([{"role": "user", "content": text}])

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        if self._system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self._system}, *messages]
        self._check_shown(messages)

        def render(texts: Sequence[str]) -> str:
            said = [{**message, "content": text} for message, text in zip(messages, texts, strict=True)]
            return self._template.render(said)

        return self._encoded([message["content"] for message in messages], render)

    def encode_answer(self, text: str) -> list[int]:
        return [*self._encoded([text], lambda texts: texts[0]), self._last]

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

    @property
    def unwritable(self) -> list[int]:
        """Tokens of the model's vocabulary that are none of the tokenizer's."""
        return [token for token in range(self._vocabulary) if self._tokenizer.id_to_token(token) is None]

    def _say_what_cannot_be_written(self) -> None:
        """Models often have some more tokens, up to a round number. If it is most of them, it is another's tokenizer.
        Raises ConfigurationInvalid."""
        missing = len(self.unwritable)
        if 2 * missing > self._vocabulary:
            raise ConfigurationInvalid(
                f"{self._folder}: tokenizer.json has {self._vocabulary - missing} of the {self._vocabulary} tokens of "
                "the model's vocabulary: is it another model's? A response of the others would not be text"
            )
        if missing:
            log.info(
                "%s: %d of the model's %d tokens are none of the tokenizer's; one that is sampled becomes %r, which no "
                "right answer holds",
                self._folder, missing, self._vocabulary, UNKNOWN,
            )  # fmt: skip

    def _check_shown(self, messages: Sequence[Message]) -> None:
        """Raises ConfigurationInvalid if the template leaves messages of such roles out of the prompt, as one for plain
        text does with all but the last. The model's own system prompt counts too."""
        roles = tuple(message["role"] for message in messages)
        if len(roles) < 2 or roles in self._shown:
            return
        marks = [f"{MARK}{number}{MARK}" for number in range(len(roles))]
        said = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        rendered = self._template.render(said)
        if hidden := ", ".join(f"{role} (message {i + 1})" for i, role in enumerate(roles) if marks[i] not in rendered):
            raise ConfigurationInvalid(
                f"{self._template.place} leaves out messages of a conversation of {', '.join(roles)}: {hidden}; "
                "set spec.model.chatTemplate to a template that shows all of them"
            )
        self._shown.add(roles)

    def _encoded(self, texts: Sequence[str], render: Callable[[Sequence[str]], str]) -> list[int]:
        """Tokens of what is made of somebody's texts, which holds every special token that it should: none is put
        before it."""
        if self._controls.spelled(texts):
            found = self._controls.encode(texts, render)
        else:
            found = list(self._tokenizer.encode(render(texts), add_special_tokens=False).ids)
        beyond = [token for token in found if token >= self._vocabulary]
        if beyond:
            raise ConfigurationInvalid(
                f"{self._folder}: {self._tokenizer.id_to_token(beyond[0])!r} is token {beyond[0]}, the model's "
                f"vocabulary ends at {self._vocabulary - 1}; leave it out of data and template"
            )
        return found

    def _after_an_answer(self) -> list[int]:
        """The tokens that the template puts after an assistant's words."""
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
        if self._system is not None:
            said.insert(0, {"role": "system", "content": self._system})
        try:
            after = self._template.render(said, ask=False).rpartition(MARK)[2]
        except ConfigurationInvalid:  # a template that knows no answers
            return []
        return list(self._tokenizer.encode(after, add_special_tokens=False).ids)

    def _last_of_an_answer(self, said_ends: Sequence[Any], after: Sequence[int], own: str | None) -> int:
        """The end that the template puts after an assistant's words (of Llama 3 and Gemma it is not the first of the
        model's ends), else the tokenizer's own if the first file that names ends has it, else the first."""
        candidates = [*after, *(t for t in (self._tokenizer.token_to_id(own or ""),) if t in said_ends)]
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

    def _ends(self, said: Sequence[Any], where: str, after: Sequence[int]) -> tuple[int, ...]:
        """All tokens that end a response: those of the first file that names some, then those of the others, then what
        the template ends an answer with."""
        config, own = (
            self._read("config.json") or {},
            self._tokenizer.token_to_id(self._text(self._config.get("eos_token")) or ""),
        )
        found = [*said, *_eos(self._read("generation_config.json") or {}), *_eos(config), own]
        special = {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        found += [token for token in after[:1] if token in special]
        if not said and own is None and not after:
            raise ConfigurationInvalid(
                f"{self._folder}: no eos_token_id in generation_config.json or config.json, so no response would end"
            )
        possible = [token for token in found if type(token) is int and 0 <= token < self._vocabulary]
        if not possible:
            raise ConfigurationInvalid(
                f"{self._folder / where}: eos_token_id {', '.join(map(repr, said))} is no token of the model's "
                f"vocabulary, which ends at {self._vocabulary - 1}, so no response would end"
            )
        if len(possible) < len(found) - (own is None):
            log.warning("%s: of the ends %s some are no tokens of the model and are left out", self._folder, found)
        return tuple(dict.fromkeys(possible))

    def _said_ends(self, own: str | None) -> tuple[list[Any], str]:
        """Tokens that end a response, and the file that says so: the first that says anything."""
        for name in ("generation_config.json", "config.json"):
            if found := _eos(self._read(name) or {}):
                return found, name
        token = self._tokenizer.token_to_id(own or "")
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


def _eos(config: Mapping[str, Any]) -> list[Any]:
    """What a config calls an end, its own or its language model's."""
    for part in (config, config.get("text_config") or {}):
        found = part.get("eos_token_id")
        if found is not None and found != []:
            return found if isinstance(found, list) else [found]
    return []
