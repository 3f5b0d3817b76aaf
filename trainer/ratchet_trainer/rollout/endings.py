"""When a response is over: at an end token, a stop string, or its limit, whichever comes first.

Decides lengths and reasons from the tokens alone, on the host: what is decoded after an end is thrown away, since a
batch never shrinks. Chunks, neighbours and processes have no say, so going on from any chunk finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ratchet_trainer.data.tokenizer import Tokenizer

Finish = Literal["end", "stop", "length"]
MARGIN = 4
"""Tokens before those that can hold a stop string: some tokenizers drop a space in front of the first one."""


class Stops:
    """Strings that end a response: with the first token that completes one in the text of the latest tokens."""

    def __init__(self, tokenizer: Tokenizer, strings: Sequence[str]):
        self._tokenizer, self._strings = tokenizer, tuple(strings)
        self._window = max(len(s.encode()) for s in strings) + MARGIN  # a token has a byte of text or more

    def first(self, tokens: np.ndarray, since: int) -> int | None:
        """How many tokens there are when the first string is complete, none being so among the first `since`."""
        if not self._within(tokens, since, len(tokens)):  # one look instead of one a token
            return None
        return next((n for n in range(since + 1, len(tokens) + 1) if self._within(tokens, n, n)), None)

    def _within(self, tokens: np.ndarray, since: int, end: int) -> bool:
        text = self._tokenizer.decode(tokens[max(0, since - self._window) : end].tolist())
        return any(string in text for string in self._strings)


class Endings:
    """The responses [P, G] of one call."""

    def __init__(self, ends: Sequence[int], limits: np.ndarray, stops: Stops | None = None):
        """`ends`: tokens that end a response; `limits` int[P, G]: most tokens of each."""
        self._ends, self._limits, self._stops, self._seen = tuple(ends), limits, stops, 0
        self.lengths = np.zeros(limits.shape, np.int32)
        self.finish = np.where(limits > 0, "", "length").astype("<U6")

    @property
    def all(self) -> bool:
        """Whether every response is over."""
        return bool((self.finish != "").all())

    def see(self, tokens: np.ndarray) -> None:
        """All tokens so far, [P, G, t]."""
        since, self._seen = self._seen, tokens.shape[-1]
        if since == self._seen:
            return
        going = self.finish == ""
        ended = np.isin(tokens[..., since:], self._ends)
        # Of tokens before the end and within the limit, for every response.
        before = np.minimum(np.where(ended.any(-1), since + ended.argmax(-1), self._seen), self._limits)
        if self._stops is not None:
            for row in zip(*np.nonzero(going), strict=True):
                found = self._stops.first(tokens[row][: before[row]], since)
                if found is not None:
                    self.lengths[row], self.finish[row] = found, "stop"
            going = self.finish == ""
        at_limit = going & (before == self._limits)
        at_end = going & (before < self._limits) & (before < self._seen)
        self.lengths = np.where(at_limit, before, np.where(at_end, before + 1, self.lengths))
        self.finish = np.where(at_limit, "length", np.where(at_end, "end", self.finish))
