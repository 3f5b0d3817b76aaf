"""Text that spells a control token is text: only the template writes control tokens.

Decides which tokens those are: all that are special, end a response or have a role (beginning, padding ...), but not a
pair of tags such as <answer> and </answer>, which mark up the text itself. A question that holds `<|im_end|>` would
otherwise end its own turn and speak as somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

PRIVATE = range(0xE000, 0xF8FF)
"""Characters that no standard gives a meaning: those that occur nowhere stand for control tokens meanwhile."""
TAG = re.compile(r"<(/?)(\w+)>")


class ControlTokens:
    """The control tokens of a tokenizer, and how text that spells some becomes tokens.

    `tokenizer`: of the `tokenizers` library; `roles`: texts that are control tokens whatever their kind."""

    def __init__(self, tokenizer: Any, roles: Collection[str]):
        decoder = dict(tokenizer.get_added_tokens_decoder())
        special = {t.content for t in decoder.values() if t.special}
        paired = {name for name in special if _partner(name) in special}
        self._controls = sorted((special - paired) | set(roles), key=lambda text: (-len(text), text))
        self._tokenizer, self._added = tokenizer, decoder
        self._pattern = re.compile("|".join(map(re.escape, self._controls))) if self._controls else None
        self._strict: dict[str, tuple[Any, dict[str, str], dict[int, int]]] = {}

    def spelled(self, texts: Sequence[str]) -> bool:
        """Whether one of the texts spells a control token."""
        return self._pattern is not None and any(self._pattern.search(text) for text in texts)

    def encode(self, texts: Sequence[str], render: Callable[[Sequence[str]], str]) -> list[int]:
        """The tokens of what `render` makes of the texts, in which what these spell stays text."""
        assert self._pattern is not None, "asked where a text spells one"
        mark, alias = self._unused([*texts, render(texts)])
        strict, aliases, ids = self._strictly(alias)
        spelled: list[str] = []

        def hide(found: re.Match[str]) -> str:
            spelled.append(found[0])
            return f"{mark}{len(spelled) - 1}{mark}"

        rendered = render([self._pattern.sub(hide, text) for text in texts])
        if aliases:
            every = re.compile("|".join(map(re.escape, sorted(aliases, key=lambda text: (-len(text), text)))))
            rendered = every.sub(lambda found: aliases[found[0]], rendered)
        shown = re.sub(f"{mark}(\\d+){mark}", lambda found: spelled[int(found[1])], rendered)
        return [ids.get(token, token) for token in strict.encode(shown, add_special_tokens=False).ids]

    def _strictly(self, mark: str) -> tuple[Any, dict[str, str], dict[int, int]]:
        """A tokenizer that takes the texts of special tokens for text, their aliases (by text) for the tokens, and the
        tokens that its aliases stand for. `mark`: a character that begins and ends each alias."""
        if mark not in self._strict:
            from tokenizers import AddedToken, Tokenizer

            strict: Any = Tokenizer.from_str(self._tokenizer.to_str())
            kinds = {t.content: (i, t) for i, t in self._added.items() if t.special or t.content in self._controls}
            strict.add_special_tokens(
                [AddedToken(text, special=True) for text, (_, t) in kinds.items() if not t.special]
            )
            aliases: dict[str, str] = {}
            ids: dict[int, int] = {}
            for number, (text, (token, kind)) in enumerate(sorted(kinds.items())):
                alias = f"{mark}{number}{mark}"
                flags = {flag: getattr(kind, flag) for flag in ("single_word", "lstrip", "rstrip")}
                strict.add_tokens([AddedToken(alias, normalized=False, special=False, **flags)])
                aliases[text], ids[strict.token_to_id(alias)] = alias, token
            strict.encode_special_tokens = True
            self._strict[mark] = strict, aliases, ids
        return self._strict[mark]

    @staticmethod
    def _unused(texts: Sequence[str]) -> tuple[str, str]:
        """Two characters that occur in none of the texts."""
        used = set().union(*texts)
        free = (chr(code) for code in PRIVATE if chr(code) not in used)
        return next(free), next(free)


def _partner(text: str) -> str | None:
    """The other tag of a pair."""
    found = TAG.fullmatch(text)
    return None if found is None else f"<{'' if found[1] else '/'}{found[2]}>"
