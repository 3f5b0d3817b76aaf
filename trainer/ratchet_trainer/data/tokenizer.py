"""Text to tokens and back: what a tokenizer is to the trainer, and the built-in one of the presets.

Decides what a prompt and an answer are in tokens. Tokenizers of Hugging Face folders are in `huggingface_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ratchet_trainer.data.item import Message
from ratchet_trainer.errors import ConfigurationInvalid

BEGIN, END = 256, 257
VOCABULARY = 259
"""Of the built-in tokenizer; its last token is never used."""
FILLER = 0
"""What stands in fixed shapes where no token is: one that every vocabulary has, as numbers of tokens outside of a
vocabulary have no log-probability. Its meaning does not matter, for lengths say where tokens are."""


class Tokenizer(Protocol):
    """`ends`: tokens after which a response is over. `digest` changes with the meaning of any token or prompt."""

    ends: tuple[int, ...]
    digest: str

    def encode_prompt(self, text: str) -> list[int]:
        """A question as the tokens that the policy is asked to continue."""

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """A conversation as the tokens that the policy is asked to continue. Raises ConfigurationInvalid where there is
        no template that makes a prompt of it."""

    def encode_answer(self, text: str) -> list[int]:
        """An answer to be learned, one of `ends` included."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a response before its end."""


def before_end(tokens: Sequence[int], ends: tuple[int, ...]) -> Sequence[int]:
    """Tokens up to the first that ends a response."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


class Bytes:
    """256 bytes, then beginning and end.

    A prompt is BEGIN and the bytes of its text; a response is bytes and END. Reversible for every text.
    """

    ends: tuple[int, ...] = (END,)
    digest = "bytes-v1"

    def encode_prompt(self, text: str) -> list[int]:
        return [BEGIN, *text.encode()]

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        if [message["role"] for message in messages] != ["user"]:
            raise ConfigurationInvalid(
                "messages of several roles need a chat template, which a preset has not; set model.path to a model "
                "that has one, or leave system and messages out of the data"
            )
        return self.encode_prompt(messages[0]["content"])

    def encode_answer(self, text: str) -> list[int]:
        return [*text.encode(), END]

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens that are no bytes become U+FFFD, which no sensible answer contains."""
        out: list[str] = []
        run = bytearray()
        for token in before_end(tokens, self.ends):
            if token < 256:
                run.append(token)
                continue
            out += [run.decode(errors="replace"), "\N{REPLACEMENT CHARACTER}"]
            run.clear()
        return "".join([*out, run.decode(errors="replace")])


BYTES = Bytes()
