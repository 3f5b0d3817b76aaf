"""How each task of reasoning-gym is verified: the vetted table.

Decides by task, because the library's own scorers cannot be trusted with a reward. The usual one pays
len(answer) / len(response) for any response that holds the answer; others round too far, look at the first number of a
text, take `bool("False")` for True, or run what a response says through `eval`. So a task is one of

- compared: here (`reasoning_gym_comparisons`), with the expected answer, in the way that is named. `number` takes the
  last number of a response where the manifest has no `answer`; `number or text` does so for items whose expected answer
  is one;
- scored: by the library's own scorer, for tasks with several right answers; only an answer whose whole text has the
  form that is given gets to it, and only full marks count;
- refused, with the reason.

`tests/trainer/verifiers/test_reasoning_gym_tasks.py` feeds right, wrong, padded, empty and listed answers to every task
of the installed version, so the table cannot lag behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """`by`: number | number or text | scorer | refused | numbers used | a name in `reasoning_gym_comparisons`.

    `form`: what a whole answer to a scorer looks like, as a regular expression. `why`: what is wrong with the library's
    scorer, or why the task is refused.
    """

    by: str
    form: str = ""
    why: str = ""


def _tasks(by: str, names: str) -> dict[str, Task]:
    return {name: Task(by) for name in names.split()}


_JSON_LIST = r"\s*\[[\s\S]*\]\s*"
_POLYNOMIAL = r"(?:[0-9 +\-*/()]|(?<![A-Za-z])[A-Za-z](?![A-Za-z0-9_(]))+"
_NO_EVAL = "it evaluates what a response says"

TASKS: dict[str, Task] = {
    **_tasks(
        "number",
        """aiw basic_arithmetic binary_alternation chain_sum circuit_logic count_bits count_primes decimal_arithmetic
        decimal_chain_sum dice gcd gsm_symbolic largest_island lcm leg_counting letter_counting number_sequence products
        rectangle_count rotten_oranges self_reference simple_equations simple_geometry""",
    ),
    **_tasks("number or text", "calendar_arithmetic maze"),
    **_tasks("text", "bf caesar_cipher emoji_mystery string_insertion string_manipulation"),
    **_tasks(
        "fold",
        """acre base_conversion bitwise_arithmetic color_cube_rotation course_schedule family_relationships
        isomorphic_strings letter_jumble mahjong_puzzle needle_haystack ransom_note sentence_reordering spell_backward
        syllogism tsumego zebra_puzzles""",
    ),
    **_tasks(
        "grid",
        """ab arc_1d arc_agi binary_matrix futoshiki manipulate_matrix mini_sudoku modulo_grid path_star rearc
        rotate_matrix spiral_matrix string_splitting string_synthesis sudoku survo""",
    ),
    **_tasks("commas", "word_sequence_reversal word_sorting"),
    **_tasks("json", "codeio list_functions"),
    **_tasks("number list", "number_filtering"),
    **_tasks("factors", "prime_factorization"),
    **_tasks("fraction", "fraction_simplification"),
    # What the library's scorer would have paid for, and is not.
    "coin_flip": Task("near", why="an absolute tolerance takes 0 for every small probability"),
    "countdown": Task("numbers used", why=_NO_EVAL),
    "figlet_font": Task("fold", why="ten right letters of a longer wrong word get full marks"),
    "game_of_life": Task("json", why="rows and cells beyond the board cost nothing"),
    "game_of_life_halting": Task("fold", why="every text is true, so every text is right"),
    "number_format": Task("near", why="it takes what is wrong by less than 0.01"),
    "number_sorting": Task("number list", why="it takes numbers that are wrong by up to 1"),
    "polynomial_equations": Task("numbers", why="saying nothing is right where there is no solution"),
    "pool_matrix": Task("number grid", why="it takes numbers that are wrong by one in a hundred"),
    "power_function": Task("three figures", why="what it cannot read is worth something"),
    "puzzle24": Task("numbers used", why="it takes other numbers than those of the question, and 24.9 for 24"),
    # Several right answers: the library judges, behind a form.
    "advanced_geometry": Task("scorer", r"\(?-?\d{1,12}(\.\d{1,20})?(, ?-?\d{1,12}(\.\d{1,20})?)?\)?\s?°?"),
    "complex_arithmetic": Task("scorer", r"-?\d{1,9}(\.\d{1,9})?\s*[+-]\s*\d{1,9}(\.\d{1,9})?i"),
    "cryptarithm": Task("scorer", r"(?:([A-Z])=[0-9](?!.*\b\1=)(,\s*(?!$)|$))+"),
    "group_anagrams": Task("scorer", _JSON_LIST),
    "jugs": Task("scorer", _JSON_LIST),
    "kakurasu": Task("scorer", r"[01](\s+[01])*"),
    "knight_swap": Task("scorer", _JSON_LIST + "|[Nn]o"),
    "knights_knaves": Task("scorer", r"[A-Z][a-z]+ is an? [a-z]+((, and |, | and )[A-Z][a-z]+ is an? [a-z]+)*\.?"),
    "n_queens": Task("scorer", r"[_Q](\s[_Q])*", _NO_EVAL),
    "palindrome_generation": Task("scorer", r"[A-Za-z]+"),
    "palindrome_partitioning": Task("scorer", _JSON_LIST),
    "polynomial_multiplication": Task("scorer", r"(?:[0-9 +\-*]|(?<![A-Za-z])[A-Za-z](?![A-Za-z0-9_]))+", _NO_EVAL),
    "quantum_lock": Task("scorer", r"[ABC](\s*(→|->)\s*[ABC])*", "it reads every A, B and C of a text as a button"),
    "shortest_path": Task("scorer", r"(up|down|left|right)(\s+(up|down|left|right))*|infeasible"),
    "simple_integration": Task("scorer", _POLYNOMIAL, _NO_EVAL),
    "sokoban": Task("scorer", r"[UDLR]+"),
    "time_intervals": Task("scorer", r"-?\d{1,7}( days?)?(, \d{1,2}(:\d{2}){1,2})?|\d{1,3}(:\d{2}){1,2}(\.\d{1,6})?"),
    "tower_of_hanoi": Task(
        "scorer", r"Move disk \d+ from Peg \d+ to Peg \d+(\s*\n\s*Move disk \d+ from Peg \d+ to Peg \d+)*"
    ),
    "word_ladder": Task("scorer", r"[A-Za-z]+(,\s*[A-Za-z]+)*"),
    # No way to tell right from wrong.
    "boxnet": Task("refused", why="it has no expected answer, and part of the work gets a mark"),
    "composite": Task("refused", why="it is several tasks; give each a data set of its own"),
    "graph_color": Task("refused", why="it has no expected answer"),
    "intermediate_integration": Task(
        "refused", why="the integral of the question, written down again, counts as its answer; " + _NO_EVAL
    ),
    "propositional_logic": Task("refused", why="it has no expected answer, and repeating a premise counts as one"),
    "rubiks_cube": Task("refused", why="it has no expected answer, and part of the work gets a mark"),
    "rush_hour": Task("refused", why="it has no expected answer"),
}

ANSWER_MAX = 4000
"""Longest answer that a scorer gets."""

_EXPONENTS = re.compile(r"\*\*\s*(?!\d{1,2}(?!\d|\s*\*\*))")


def has_form(task: Task, answer: str) -> bool:
    """Whether an answer may go to the library's scorer: its whole text has the task's form."""
    return (
        len(answer) <= ANSWER_MAX
        and re.fullmatch(task.form, answer) is not None
        and not _EXPONENTS.search(answer)  # only small whole exponents, and none of an exponent
    )
