"""SGPO: what the right steps of a wrong response earn, by the numbers of the paper's formula, and who is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import served

from ratchet_api.base import ApiModel
from ratchet_api.rewards import Reward
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.group import group_advantages
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.outcome import Case, Outcome
from ratchet_trainer.algorithm.rewards.correct_prefix import worth
from ratchet_trainer.algorithm.rewards.registry import asked_of, of_wrong_responses, rewards_of
from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Draw, Group, Prompt, Request, Rollout
from ratchet_trainer.algorithm.verifiers.outcome_journal import NAME
from ratchet_trainer.algorithm.verifiers.steps import SPLIT, right_share, split
from ratchet_trainer.algorithm.verifiers.user_replies import BadAnswer
from ratchet_trainer.errors import VerifierUnavailable
from ratchet_trainer.rollout.verification import Judges, Verification

PYTHON = {"entrypoint": "a:b"}


def rewards(**settings: Any) -> list[dict[str, Any]]:
    return [{"name": "accuracy"}, {"name": "prefix", "correctPrefix": {"python": PYTHON} | settings}]


def rewarded(right: list[float], shares: list[float], **settings: Any) -> Group:
    """A group of responses with these accuracies and shares of right steps, rewarded as method sgpo does."""
    rl = Rl.model_validate({"dataset": "d", "method": "sgpo", "rewards": rewards(**settings)})
    request, prompt, nothing = Request(Draw(0, 0), Purpose.TRAIN, len(right)), Prompt((1,), "5"), np.zeros(2)
    rollouts = [
        Rollout(
            request,
            prompt,
            prompt,
            i,
            (1, 2),
            nothing,
            nothing,
            0,
            "end",
            Outcome(is_right, is_right, parts={"prefix": share}),
        )
        for i, (is_right, share) in enumerate(zip(right, shares, strict=True))
    ]
    return rewards_of(rl.rewards).score(Group(request.draw, tuple(rollouts)), Context(0, 1, 0, rl))


def test_the_reward_rises_with_the_share_of_right_steps_and_stays_below_a_right_answer() -> None:
    """SGPO-1, with beta 5 and gamma 0.5; the wrong sign would give the same numbers backwards."""
    found = [worth(share, 5, 0.5) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx([0.075858, 0.222700, 0.5, 0.777300, 0.924142], abs=5e-7)
    assert found == sorted(found)
    assert 0 < found[0] < found[-1] < 1


def test_a_steep_reward_does_not_overflow() -> None:
    assert [worth(share, 1e6, 0.5) for share in (0, 0.5, 1)] == [0.0, 0.5, 1.0]


def test_a_group_that_is_all_wrong_learns() -> None:
    """SGPO-2."""
    found = rewarded([0, 0, 0, 0], [0, 0.25, 0.5, 0.75]).rewards
    assert np.mean(found) == pytest.approx(0.393965, abs=5e-7)
    over_std = group_advantages(found, "mean-std", 0.0)
    assert over_std == pytest.approx([-1.025416, -0.552071, 0.341805, 1.235682], abs=5e-7)
    assert group_advantages(found, "mean") == pytest.approx([-0.318106, -0.171264, 0.106035, 0.383335], abs=1e-6)


def test_a_tiny_difference_becomes_a_whole_advantage_over_the_deviation_and_a_tiny_one_without() -> None:
    """SGPO-3. The paper's numbers have the deviation over n: 0.577350 is 0.5 x sqrt(4 / 3)."""
    found = rewarded([0, 0, 0, 0], [0.5, 0.5, 0.5, 0.51]).rewards
    assert found[3] == pytest.approx(0.512497, abs=5e-7)
    assert group_advantages(found, "mean-std", 0.0) * (4 / 3) ** 0.5 == pytest.approx(
        [-0.577350] * 3 + [1.732051], abs=5e-7
    )
    assert group_advantages(found, "mean") == pytest.approx([-0.003124] * 3 + [0.009373], abs=5e-7)
    equal = rewarded([0, 0, 0, 0], [0.5] * 4).rewards
    assert group_advantages(equal).tolist() == [0.0] * 4


def test_the_scope_says_whether_wrong_responses_earn_beside_a_right_one() -> None:
    """SGPO-4."""
    over_n = (4 / 3) ** 0.5
    failed = rewarded([1, 0, 0, 0], [1, 0, 0.25, 0.75])
    assert failed.rewards == (1.0, 0.0, 0.0, 0.0)
    assert group_advantages(failed.rewards, "mean-std", 0.0) * over_n == pytest.approx(
        [1.732051] + [-0.577350] * 3, abs=5e-7
    )
    every = rewarded([1, 0, 0, 0], [1, 0, 0.25, 0.75], scope="wrongResponses")
    assert every.parts["prefix"][0] == 0.0, "a right response earns by its accuracy"
    assert every.rewards == pytest.approx([1, 0.075858, 0.222700, 0.777300], abs=5e-7)
    assert group_advantages(every.rewards, "mean-std", 0.0) * over_n == pytest.approx(
        [1.260820, -1.161406, -0.776525, 0.677111], abs=5e-7
    )


@pytest.mark.parametrize(
    ("how", "text", "steps"),
    [
        ("lines", "a = 1\n\n  b = 2 \r\nc", ["a = 1", "b = 2", "c"]),
        ("sentences", "So x is 1.5. Then? Yes!\nDone", ["So x is 1.5.", "Then?", "Yes!", "Done"]),
        ("paragraphs", "a\nb\n \n\nc", ["a\nb", "c"]),
        ("words", " 1 2\n3 ", ["1", "2", "3"]),
    ],
)
def test_how_a_response_is_split(how: str, text: str, steps: list[str]) -> None:
    assert split(text, how) == steps
    assert split(" \n", how) == []


def test_a_megabyte_of_white_space_is_split_at_once() -> None:
    for how in SPLIT:
        assert split("\n \t" * 400_000 + "x", how) == ["x"]


@pytest.mark.parametrize(
    ("said", "share"),
    [
        (0.5, 0.5),
        (1, 1.0),
        ([True, True, False, True], 0.5),
        ((1, 1, 1, 1), 1.0),
        ([False] * 4, 0.0),
        ({"firstWrong": 3}, 0.75),
        ({"firstWrong": 0}, 0.0),
        ({"firstWrong": None}, 1.0),
        ({"steps": [True, False, True, True]}, 0.25),
        ({"score": 0.25}, 0.25),
    ],
)
def test_what_a_checker_may_say(said: Any, share: float) -> None:
    assert right_share(said, ["a", "b", "c", "d"]) == share


def test_a_response_without_steps_has_none_that_are_right() -> None:
    assert [right_share(said, []) for said in (1.0, [], {"firstWrong": None})] == [0.0] * 3


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (1.5, "the share of right steps is 1.5, not between 0 and 1; say one verdict a step"),
        (float("nan"), "the share of right steps is nan"),
        ("all", "the share of right steps is 'all', which is no number"),
        ([True], "it said 1 verdicts of 4 steps; say one for each"),
        ([True, "no", True, True], "a verdict is 'no'; say true or false"),
        ({"firstWrong": 4}, "firstWrong is 4, which is no step of 4; say an index from 0, or null"),
        ({"firstWrong": True}, "firstWrong is True"),
        ({"firstWrong": 1, "score": 1}, r"it said \['firstWrong', 'score'\]; say one verdict a step"),
        ({}, r"it said \[\]"),
    ],
)
def test_an_answer_about_steps_that_means_nothing_is_refused_by_name(said: Any, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        right_share(said, ["a", "b", "c", "d"])


def refused(model: type[ApiModel], data: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match="Value error") as caught:
        model.model_validate(data)
    return str(caught.value)


def test_what_does_not_go_together_is_refused_with_a_way_out() -> None:
    rl = {"dataset": "d", "method": "sgpo"}
    assert "take method grpo" in refused(Rl, rl)
    assert "take method grpo" in refused(Rl, rl | {"rewards": [{"name": "accuracy"}]})
    assert "add {name: accuracy}" in refused(Rl, rl | {"rewards": rewards()[1:]})
    both = {"name": "p", "correctPrefix": {"python": PYTHON, "http": {"url": "http://judge"}}}
    assert "give one of the two" in refused(Reward, both)
    assert "give one of the two" in refused(Reward, {"name": "p", "correctPrefix": {}})
    assert "gamma is a share" in refused(Reward, rewards(gamma="2")[1])
    assert "a reward is one thing" in refused(Reward, rewards()[1] | {"of": "score"})
    assert Rl.model_validate({"dataset": "d", "method": "dr-grpo", "rewards": rewards()}).method == "dr-grpo"


# Who is asked, and what becomes of the answers


class Alone:
    """One process that nobody tells to go."""

    process, processes = 0, 1

    def gather(self, value: Any) -> Any:
        return [value]

    def safe_point(self) -> None:
        pass


class Judge(BaseHTTPRequestHandler):
    """Says that the last step is wrong; of a response that ends in `mad`, nonsense."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Judge.asked.append(question | {"authorization": self.headers["Authorization"]})
        said = (
            {"firstWrong": 99} if question["response"].endswith("mad") else {"firstWrong": len(question["steps"]) - 1}
        )
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def judge() -> Iterator[str]:
    Judge.asked = []
    with served(Judge) as url:
        yield f"{url}/steps"


def verification(reward: dict[str, Any], folder: Path) -> Verification:
    made = [Reward.model_validate(reward)]
    return Verification(Judges(own=asked_of(0, made), of_wrong=of_wrong_responses(made)), folder)


def outcomes_of(verification: Verification, *responses: str) -> list[Outcome]:
    item = {"question": "1 + 4?", "answer": "5", "index": 0}
    cases = [Case(item, "1 + 4?", response, "end") for response in responses]
    return verification.of(cases, [0] * len(cases), [0] * len(cases), Alone())  # type: ignore[arg-type]


def test_a_function_is_asked_about_the_steps_of_wrong_responses_alone(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "maps/own").mkdir(parents=True)
    (tmp_path / "maps/own/checker.py").write_text(
        "def check(case):\n    assert case.response != '5', 'nobody asks about a right one'\n"
        "    return [step.isdigit() for step in case.steps]\n"
    )
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(tmp_path / "maps"))
    settings = {"python": {"entrypoint": "checker:check", "configMap": "own"}, "steps": "words"}
    one = verification({"name": "prefix", "correctPrefix": settings}, tmp_path)
    right, half, none = outcomes_of(one, "5", "1 4 x 5", "x")
    one.close()
    assert right == Outcome(1.0, 1.0, "5")
    assert (half.parts, half.status) == ({"prefix": 0.5}, "ok")
    assert none.parts == {"prefix": 0.0}


def test_a_function_may_use_up_its_list_of_steps(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "maps/own").mkdir(parents=True)
    (tmp_path / "maps/own/eater.py").write_text(
        "def check(case):\n    found = []\n    while case.steps:\n        found.append(case.steps.pop(0) == '1')\n"
        "    return found\n"
    )
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(tmp_path / "maps"))
    settings = {"python": {"entrypoint": "eater:check", "configMap": "own"}, "steps": "words"}
    one = verification({"name": "prefix", "correctPrefix": settings}, tmp_path)
    (half,) = outcomes_of(one, "1 4")
    one.close()
    assert (half.parts, half.status) == ({"prefix": 0.5}, "ok")


def test_a_judge_is_asked_once_and_its_nonsense_is_a_failure(tmp_path: Path, judge: str, monkeypatch) -> None:
    monkeypatch.setenv("RATCHET_REWARD_SECRET_0_PREFIX", "key")
    http = {"url": judge, "secret": {"name": "judge", "key": "token"}, "retries": 0}
    reward = {"name": "prefix", "correctPrefix": {"http": http}}
    one = verification(reward, tmp_path)
    found = outcomes_of(one, "5", "1\n2\n3\n4", "1\nmad")
    one.close()
    assert [(o.parts, o.status) for o in found] == [({}, "ok"), ({"prefix": 0.75}, "ok"), ({"prefix": 0.0}, "crash")]
    assert sorted((q["response"], q["steps"], q["authorization"]) for q in Judge.asked) == [
        ("1\n2\n3\n4", ["1", "2", "3", "4"], "Bearer key"),
        ("1\nmad", ["1", "mad"], "Bearer key"),
    ]
    again = verification(reward, tmp_path)
    assert outcomes_of(again, "5", "1\n2\n3\n4", "1\nmad") == found
    again.close()
    assert len(Judge.asked) == 2, "the journal has the answers"
    other = verification({"name": "prefix", "correctPrefix": {"http": http, "steps": "words"}}, tmp_path)
    outcomes_of(other, "1\n2\n3\n4")
    other.close()
    assert len(Judge.asked) == 3, "other steps are another question"


def test_a_judge_that_is_down_ends_the_attempt_and_nothing_is_learned(tmp_path: Path) -> None:
    http = {"url": "http://127.0.0.1:9/steps", "retries": 0, "timeoutSeconds": 1}
    one = verification({"name": "prefix", "correctPrefix": {"http": http}}, tmp_path)
    with pytest.raises(VerifierUnavailable, match=r"steps answered none of the 4 responses"):
        outcomes_of(one, *"1234")
    one.close()
    kept = (tmp_path / "outcomes/0-of-1" / NAME).read_text() if (tmp_path / "outcomes/0-of-1" / NAME).exists() else ""
    assert "http" not in kept
