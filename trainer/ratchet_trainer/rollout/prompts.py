"""Prompts of a round: read and tokenized on process 0, which alone has the items, and told to all in one record.

Decides what a request is sampled from and trained on: the item's prompt, an edited one (a hint, a template), and the
prefix that it goes on from. How an item is edited is in `data.edits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ratchet_trainer.algorithm.types import Request
from ratchet_trainer.data.edits import edited
from ratchet_trainer.data.items import Source, prompt_of
from ratchet_trainer.data.mixture import Mixture
from ratchet_trainer.data.prompt import Prompt
from ratchet_trainer.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ratchet_trainer.rollout.engine import ProcessGroup


@dataclass(frozen=True)
class Prompts:
    """Of one request: the prompt as `shown`, with the prefix after it as `sampled`, and as `trained`. `place`: of the
    item's data set in a mixture."""

    shown: Prompt
    sampled: Prompt
    trained: Prompt
    place: int = 0


class PromptReader:
    def __init__(self, source: Source | None, tokenizer: Tokenizer, limit: int):
        """`source` is needed on process 0 only; `limit`: most tokens of a prompt."""
        self._source, self._tokenizer, self._limit = source, tokenizer, limit

    def read(self, requests: Sequence[Request], group: ProcessGroup) -> list[Prompts]:
        """What each request asks and expects. *Collective.* Raises ConfigurationInvalid for a prompt that is too
        long. Values ask for a prompt with hundreds of prefixes: it is read and told once."""
        first = {_prompt_of(request): request for request in requests}
        record = None
        if group.process == 0:
            assert self._source is not None
            record = [self._of(self._source, request) for request in first.values()]
        told = zip(first, group.broadcast(record), strict=True)
        known = {
            key: (prompt := _from_plain(shown), prompt if plain is None else _from_plain(plain), place)
            for key, (shown, plain, place) in told
        }
        found = []
        for request in requests:
            prompt, trained, place = known[_prompt_of(request)]
            sampled = replace(prompt, tokens=(*prompt.tokens, *request.prefix)) if request.prefix else prompt
            found.append(Prompts(prompt, sampled, trained, place))
        return found

    def _of(self, source: Source, request: Request) -> list[Any]:
        item = request.draw.item
        plain = prompt_of(source, self._tokenizer, item, self._limit)
        shown = plain
        if request.edit is not None:
            shown = prompt_of(edited(source, request.edit), self._tokenizer, item, self._limit)
        place = source.part_of(item) if isinstance(source, Mixture) else 0
        return [_to_plain(shown), _to_plain(plain) if request.train_plain and shown is not plain else None, place]


def _prompt_of(request: Request) -> tuple[int, str | None, bool]:
    """Requests that are alike in this have the same prompts."""
    return request.draw.item, request.edit, request.train_plain


def _to_plain(prompt: Prompt) -> list[Any]:
    return [list(prompt.tokens), prompt.answer, prompt.question, dict(prompt.fields)]


def _from_plain(plain: list[Any]) -> Prompt:
    tokens, answer, question, fields = plain
    return Prompt(tuple(tokens), answer, question, fields)
