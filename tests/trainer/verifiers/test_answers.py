"""What is taken for the answer, and what counts as the same answer: tables a user can argue about."""

from __future__ import annotations

import pytest
from cases import case, spec

from ratchet_trainer.algorithm.verifiers import registry
from ratchet_trainer.algorithm.verifiers.extract import extract
from ratchet_trainer.algorithm.verifiers.number import number
from ratchet_trainer.algorithm.verifiers.reasoning_gym_comparisons import COMPARISONS, TEXT_MAX, arithmetic
from ratchet_trainer.algorithm.verifiers.spec import Extraction


@pytest.mark.parametrize(
    ("kind", "argument", "response", "found"),
    [
        ("whole", "", "  5 \n", "5"),
        ("whole", "", " \n ", None),
        ("lastNumber", "", "2 + 3 = 5", "5"),
        ("lastNumber", "", "2 + 3 = 5.", "5"),
        ("lastNumber", "", "The sum is **5**!", "5"),
        ("lastNumber", "", "2 - 5 = -3", "-3"),
        ("lastNumber", "", "2 - 5 = \u22123", "\u22123"),
        ("lastNumber", "", "10-3", "3"),
        ("lastNumber", "", "It costs $1,234.50 today", "$1,234.50"),
        ("lastNumber", "", "half: 1/2", "1/2"),
        ("lastNumber", "", "about 50%.", "50%"),
        ("lastNumber", "", "6.02e23", "6.02e23"),
        ("lastNumber", "", "1, 2, 3", "3"),
        ("lastNumber", "", "no idea", None),
        ("lastNumber", "", ".5", ".5"),
        ("lastNumber", "", "x_2 = 7", "7"),
        ("boxed", "", r"so \boxed{7}", "7"),
        ("boxed", "", r"\boxed{1} or rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", "", r"\boxed {\text{a}\}b}", r"\text{a}\}b"),
        ("boxed", "", r"\boxed{1} and \boxed{2", "1"),
        ("boxed", "", r"\boxed{\boxed{2}}", "2"),
        ("boxed", "", r"\fbox{3}", "3"),
        ("boxed", "", r"\boxed{}", None),
        ("boxed", "", "7", None),
        ("tag", "answer", "<answer>4</answer> no: <answer> 5 </answer> so", "5"),
        ("tag", "answer", "<answer>4</answer> <answer>5", "4"),
        ("tag", "answer", "<think><answer>4</think>", None),
        ("tag", "answer", "<answer><answer>5</answer></answer>", "5"),
        ("after", "####", "3 and 4\n#### 7", "7"),
        ("after", "####", "#### 6\nno\n####\n7\nbye", "7"),
        ("after", "####", "7", None),
        ("after", "####", "7 ####", None),
    ],
)
def test_the_answer_is_found_where_the_manifest_says(kind: str, argument: str, response: str, found: str | None):
    assert extract(Extraction(kind, argument), response) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "5.0",
        "5.",
        " 5 ",
        "05",
        "+5",
        "$5",
        "5.00",
        "10/2",
        "500%",
        "5e0",
        "0.5e1",
        "\\frac{10}{2}",
        "$5$",
        "\u20ac5",
    ],
)
def test_these_are_five(text: str):
    assert number(text) == 5


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1,000", "1000"),
        ("-1,000.50", "-1000.5"),
        ("\u22123", "-3"),
        ("-$3", "$-3"),
        ("1/3", "2/6"),
        ("0.1", "1/10"),
        (".5", "50%"),
    ],
)
def test_these_are_the_same_number(a: str, b: str):
    assert number(a) == number(b) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "five",
        "5 apples",
        "1,00",
        "1/0",
        "--5",
        "1e999",
        "9" * 500,
        "nan",
        "inf",
        "0x5",
        "1_000",
        "5 6",
        "\u0665",
        "1/2/3",
    ],
)
def test_these_are_no_numbers(text: str):
    assert number(text) is None


@pytest.mark.parametrize(
    ("extracted", "response", "answer", "accuracy"),
    [
        ("lastNumber", "2 + 3 = 5", "5", 1.0),
        ("lastNumber", "so it is 1,000.", "1000", 1.0),
        ("lastNumber", "0.3333", "1/3", 0.0),
        ("lastNumber", "4 or 5 or 6", "5", 0.0),
        ("whole", "5.0", "5", 1.0),
        ("whole", "it is 5", "5", 0.0),
        ("boxed", r"\boxed{5}", "5", 1.0),
    ],
)
def test_numbers_are_compared_as_numbers(extracted: str, response: str, answer: str, accuracy: float):
    assert registry.build(spec("number", extracted))(case(response, answer)).accuracy == accuracy


def test_an_answer_that_is_no_number_is_unparsable():
    outcome = registry.build(spec("number", "lastNumber"))(case("I cannot say"))
    assert (outcome.status, outcome.accuracy, outcome.extracted) == ("unparsable", 0.0, None)


@pytest.mark.parametrize(
    ("response", "answer", "accuracy"),
    [
        (" 5\n", "5", 1.0),
        ("5.0", "5", 0.0),
        ("e\u0301te\u0301", "\u00e9t\u00e9", 1.0),
        ("Yes", "yes", 0.0),
        ("", "", 0.0),
        (" ", "", 0.0),
    ],
)
def test_exact_compares_text_and_nothing_earns_nothing(response: str, answer: str, accuracy: float):
    assert registry.build(spec("exact", "whole"))(case(response, answer)).accuracy == accuracy


OPTIONS = ["Paris", "London", "Rome", "New York"]


@pytest.mark.parametrize(
    ("response", "chosen"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("Option B", "B"),
        ("London", "B"),
        ("london.", "B"),
        ("B) London", "B"),
        ("(B) London", "B"),
        ("The answer is B.", "B"),
        ("It is not A. The answer is (B).", "B"),
        ("Answer: B", "B"),
        ("Answer: London", "B"),
        ("the answer is B because London is in England", "B"),
        ("the answer is (b), of course", "B"),
        ("the answer is option B", "B"),
        ("The answer is **B**.", "B"),
        ("The answer is a mystery", None),
        ("The answer is A mystery", None),
        ("Answer: I do not know", None),
        ("The answer is b or so", None),
        (r"So \boxed{B}", "B"),
        (r"So \boxed{\text{B}}", None),
        ("A, B, C, D", None),
        ("A B C D", None),
        ("The answer is A or B", None),
        ("The answer is A, B", None),
        ("The answer is A and B", None),
        ("The answer is B/C", None),
        ("B) Paris", None),
        ("E", None),
        ("The answer is Zurich", None),
        ("Paris London", None),
        ("", None),
        ("I think so", None),
    ],
)
def test_choice_reads_one_option_and_never_a_list_of_them(response: str, chosen: str | None):
    outcome = registry.build(spec("choice"))(case(response, "B", options=OPTIONS))
    assert (outcome.accuracy == 1.0) == (chosen == "B")
    assert (outcome.status == "unparsable") == (chosen is None)


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "London", "1"])
def test_the_expected_option_may_be_a_letter_a_text_or_a_number(answer: str):
    assert registry.build(spec("choice"))(case("B", answer, options=OPTIONS)).accuracy == 1.0
    assert registry.build(spec("choice"))(case("A", answer, options=OPTIONS)).accuracy == 0.0


def test_choice_needs_no_options_where_letters_suffice():
    assert registry.build(spec("choice"))(case("The answer is C.", "C")).accuracy == 1.0


@pytest.mark.parametrize(
    ("response", "answer", "status", "accuracy"),
    [
        (r"Thus \boxed{\frac{1}{2}}.", "1/2", "ok", 1.0),
        (r"Thus \boxed{0.5}.", r"\frac{1}{2}", "ok", 1.0),
        (r"\boxed{x^2 + 2x + 1}", r"(x+1)^2", "ok", 1.0),
        (r"\boxed{x^2 + 2x}", r"(x+1)^2", "ok", 0.0),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", "ok", 1.0),
        ("The final answer is $5$.", "5", "ok", 1.0),
        ("2 + 3 = 5", "5", "ok", 1.0),
        (r"\boxed{\{1, 2\}}", r"\{2, 1\}", "ok", 1.0),
        (r"\boxed{9^{9^{9}}}", "5", "unparsable", 0.0),
        (r"\boxed{10^{99999}}", "5", "unparsable", 0.0),
        (r"\boxed{99999!}", "5", "unparsable", 0.0),
        (r"\boxed{" + "9" * 500 + "}", "5", "unparsable", 0.0),
        (r"\boxed{" + "(" * 100 + "5" + ")" * 100 + "}", "5", "unparsable", 0.0),
        (r"\boxed{\sum_{k=1}^{10} k}", "55", "unparsable", 0.0),
        (r"\boxed{}", "5", "unparsable", 0.0),
        ("Great!! (See above)! The answer is $x^2$, not $x$.", "x", "ok", 1.0),
        (r"Hence \(x = 5\).", "5", "ok", 1.0),
        ("It costs $5 or so", "5", "ok", 1.0),
        ("", "5", "unparsable", 0.0),
        ("I know the answer.", "5", "unparsable", 0.0),
    ],
)
def test_math_compares_mathematically_within_bounds(response: str, answer: str, status: str, accuracy: float):
    outcome = registry.build(spec("math"))(case(response, answer))
    assert (outcome.status, outcome.accuracy) == (status, accuracy), outcome


@pytest.mark.parametrize(
    ("task", "response", "answer"),
    [
        ("chain_sum", "2 + 3 = 5", "5"),
        ("chain_sum", "The sum is **1,005**.", "1005"),
        ("products", "That makes 35.", "35"),
        ("calendar_arithmetic", "It takes 14 days", "14"),
        ("calendar_arithmetic", "Wednesday", "Wednesday"),
        ("game_of_life_halting", "true", "True"),
    ],
)
def test_a_chat_model_that_answers_in_a_sentence_is_right_by_default(task: str, response: str, answer: str):
    assert registry.build(spec("reasoningGym", task=task, config={}))(case(response, answer)).accuracy == 1.0


@pytest.mark.parametrize("kind", ["whole", "lastNumber", "boxed", "tag", "after", "auto"])
def test_a_response_that_gives_the_expected_answer_as_it_should_is_right(kind: str):
    chosen = spec("number", kind, {"tag": "answer", "after": "####"}.get(kind, ""))
    assert registry.build(chosen)(case(registry.expected_response(chosen, "5"))).accuracy == 1.0


@pytest.mark.parametrize("name", ["exact", "number", "math", "choice"])
def test_what_a_preflight_feeds_to_a_verifier_is_right(name: str):
    chosen = spec(name)
    answer = {"choice": "B", "math": r"\frac{x}{2}"}.get(name, "5")
    response = registry.expected_response(chosen, answer)
    assert response is not None
    assert registry.build(chosen)(case(response, answer)).accuracy == 1.0


MONSTERS = [
    ".",
    " ",
    "1",
    "1,111",
    "1/",
    "$",
    "answer ",
    "answer\n",
    r"\boxed{",
    "{",
    "(",
    "-",
    "_",
    "1e",
    "<answer>",
    "#",
    "\u0301",
]


@pytest.mark.parametrize("name", ["exact", "number", "choice"])
@pytest.mark.parametrize("extract", ["whole", "lastNumber", "boxed", "tag", "after", "auto"])
def test_no_response_keeps_an_inline_verifier_busy(name: str, extract: str):
    verify = registry.build(spec(name, extract, {"tag": "answer", "after": "#"}.get(extract, "")))
    for monster in MONSTERS:  # a quadratic pattern would run into the time limit of the whole suite here
        verify(case(monster * (100_000 // len(monster)) + "!", "B"))


@pytest.mark.parametrize("name", COMPARISONS)
def test_no_response_keeps_a_comparison_busy(name: str):
    for monster in MONSTERS:
        text = monster * (TEXT_MAX // len(monster))
        COMPARISONS[name](text, "5")
        assert arithmetic(text) is None or monster == "1"
