"""Verification of a round: each process verifies the responses of its own ordinals, then all learn all outcomes.

Decides who verifies what, in which order outcomes are gathered, and what is read from the outcome journal instead. How
an answer is verified is in `algorithm.verifiers`, what else its text earns in `algorithm.rewards`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet_trainer.algorithm.outcome import Case, Outcome, outcome_from_json
from ratchet_trainer.algorithm.rewards.text import TextPart
from ratchet_trainer.algorithm.verifiers.outcome_journal import OutcomeJournal, key_of
from ratchet_trainer.algorithm.verifiers.pool import VerifierPool
from ratchet_trainer.algorithm.verifiers.registry import verify_inline
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.errors import ConfigurationInvalid, VerifierUnavailable
from ratchet_trainer.storage import Location

if TYPE_CHECKING:
    from ratchet_trainer.rollout.engine import ProcessGroup

LOOK_SECONDS = 0.1
"""How long a process waits for its verifiers between two safe points."""
UNANSWERED = "timeout", "crash"
"""Statuses of a case whose verifier gave no outcome."""
FEWEST = 4
"""Cases of a round that tell whether a verifier is out of reach; of fewer, a response of its own may be to blame."""
TOLD_AT_A_TIME = 4096
"""Outcomes of all processes in one message: a step that samples values has tens of thousands, each with the answer that
was found in its response, and what processes say to each other is bounded (`process.agreement`)."""
EXACT = VerifierSpec("exact", "2")


@dataclass(frozen=True)
class Judges:
    """What a stage asks of every response: the verifier of its item's data set (by the data set's place in a mixture,
    0 without one), functions of the text, and the user's own reward functions and endpoints, both by the name of their
    part. Those of `of_wrong` are asked only about responses that the verifier found wrong."""

    verifiers: Sequence[VerifierSpec] = (EXACT,)
    texts: Mapping[str, TextPart] = field(default_factory=dict)
    own: Mapping[str, VerifierSpec] = field(default_factory=dict)
    of_wrong: frozenset[str] = frozenset()


class Verification:
    """Verifies for one process.

    outcomes = verification.of(cases, ordinals, places, group)      # collective; in the order of the cases
    """

    def __init__(self, judges: Judges, folder: Location | Path | None = None, process: int = 0, processes: int = 1):
        """`folder`: of the checkpoint directory, for the outcome journal; None keeps none."""
        self._judges = judges
        workers = max(1, len(os.sched_getaffinity(0)))
        specs = {("", i): spec for i, spec in enumerate(judges.verifiers)}
        specs |= {(name, 0): spec for name, spec in judges.own.items()}
        self._pools = {key: VerifierPool(spec.to_json(), workers) for key, spec in specs.items()}
        self._specs = specs
        self.journal: OutcomeJournal | None = None
        if folder is not None and any(_may_differ(spec) for spec in specs.values()):
            self.journal = OutcomeJournal(Location.parse(folder) / "outcomes" / f"{process}-of-{processes}")

    def of(
        self, cases: Sequence[Case], ordinals: Sequence[int], places: Sequence[int], group: ProcessGroup
    ) -> list[Outcome]:
        """Outcomes of all cases. `places`: which verifier each has. *Collective.*

        Raises Drain at a safe point while it waits, ConfigurationInvalid for a verifier that cannot be had, and
        VerifierUnavailable where an endpoint, asked about FEWEST cases or more, answered none.
        """
        mine = [i for i, ordinal in enumerate(ordinals) if ordinal % group.processes == group.process]
        later = self._judges.of_wrong
        asked = {key: [i for i in mine if key[0] or places[i] == key[1]] for key in self._pools if key[0] not in later}
        answered = self._ask(cases, asked, group)
        outcomes_of = {i: o for key, found in answered.items() if not key[0] for i, o in found.items()}
        if later:
            wrong = [i for i in mine if outcomes_of[i].accuracy != 1.0]
            answered |= self._ask(cases, {key: wrong for key in self._pools if key[0] in later}, group)
        share = []
        for i in mine:
            outcome = outcomes_of[i]
            extra = {name: self._number(part(cases[i])) for name, part in self._judges.texts.items()}
            own = {key[0]: found[i] for key, found in answered.items() if key[0] and i in found}
            extra |= {name: self._number(o.score) for name, o in own.items()}
            failed = next((o.status for o in own.values() if o.status in UNANSWERED), None)
            outcome = replace(outcome, parts={**outcome.parts, **extra}, status=failed or outcome.status)
            share.append([i, asdict(outcome)])
        outcomes: list[Outcome | None] = [None] * len(cases)
        at_a_time = max(1, TOLD_AT_A_TIME // group.processes)
        largest = max(Counter(ordinal % group.processes for ordinal in ordinals).values(), default=0)
        for start in range(0, max(1, largest), at_a_time):
            for theirs in group.gather(share[start : start + at_a_time]):
                for i, plain in theirs:
                    outcomes[i] = outcome_from_json(plain)
        return [o for o in outcomes if o is not None]

    def ready(self, alive: Callable[[], None]) -> None:
        """Returns once every verifier could begin, on this process alone. Raises ConfigurationInvalid for one that
        cannot be had: no such function, no secret, no sandbox."""
        for pool in self._pools.values():
            while not pool.ready(LOOK_SECONDS):
                alive()

    def tried(self, cases: Sequence[Case], place: int, alive: Callable[[], None]) -> list[Outcome]:
        """What the verifier at `place` says of some cases, on this process alone; nothing is kept. `alive` is called
        now and then. Raises ConfigurationInvalid for a verifier that cannot be had."""
        pool = self._pools["", place]
        handle = pool.submit(cases)
        try:
            while (outcomes := pool.poll(handle, LOOK_SECONDS)) is None:
                alive()
        except BaseException:
            pool.abandon(handle)
            raise
        return outcomes

    def _ask(
        self, cases: Sequence[Case], asked: Mapping[Any, Sequence[int]], group: ProcessGroup
    ) -> dict[Any, dict[int, Outcome]]:
        """What every verifier says of the cases it is asked about. Safe points come on all processes until the last
        one is done. Of equal cases one is asked where the journal keeps what is said: a replay finds one outcome there
        for all of them."""
        found: dict[Any, dict[int, Outcome]] = {key: {} for key in asked}
        handles = {}
        alike: dict[Any, dict[int, int]] = {key: {} for key in asked}  # case -> the equal one that is asked
        for key, indices in asked.items():
            absent, journal = [], self._journal_of(key)
            first: dict[Any, int] = {}
            for i in indices:
                known = journal.get(self._specs[key], cases[i]) if journal is not None else None
                if known is not None:
                    found[key][i] = known
                elif journal is None or first.setdefault(key_of(self._specs[key], cases[i]), i) == i:
                    absent.append(i)
                else:
                    alike[key][i] = first[key_of(self._specs[key], cases[i])]
            handles[key] = (self._pools[key].submit([cases[i] for i in absent]), absent)
        problem = ""
        counts = {key: len(absent) + len(alike[key]) for key, (_, absent) in handles.items()}
        unanswered: dict[Any, list[tuple[Case, Outcome]]] = {key: [] for key in asked}
        try:
            while True:
                for key, (handle, absent) in list(handles.items()):
                    try:
                        outcomes = self._pools[key].poll(handle, LOOK_SECONDS)
                    except ConfigurationInvalid as error:
                        problem = str(error)
                        break
                    if outcomes is not None:
                        del handles[key]
                        found[key] |= dict(zip(absent, outcomes, strict=True))
                        pairs = [(cases[i], o) for i, o in zip(absent, outcomes, strict=True)]
                        self._keep(key, [pair for pair in pairs if pair[1].status not in UNANSWERED])
                        unanswered[key] = [pair for pair in pairs if pair[1].status in UNANSWERED]
                said = group.gather([not handles, problem])
                if any(text for _, text in said):
                    raise ConfigurationInvalid(next(text for _, text in said if text))
                if all(done for done, _ in said):
                    break
                group.safe_point()
        finally:
            for key, (handle, _) in handles.items():
                self._pools[key].abandon(handle)
        failed = {key: len(pairs) for key, pairs in unanswered.items()}
        for key, others in alike.items():
            equal = {i: found[key][other] for i, other in others.items()}
            found[key] |= equal
            failed[key] += sum(outcome.status in UNANSWERED for outcome in equal.values())
        self._check_reachable(counts, failed, group)
        for key, pairs in unanswered.items():  # once it is sure that they count
            self._keep(key, pairs)
        return found

    def _check_reachable(self, asked: Mapping[Any, int], failed: Mapping[Any, int], group: ProcessGroup) -> None:
        """Raises VerifierUnavailable for an endpoint that answered nothing: what it would have said is not known, so
        nothing may be learned from it, nor be kept for a replay."""
        endpoints = [key for key in asked if self._specs[key].name == "http"]
        if not endpoints:
            return
        told = group.gather([[asked[key], failed[key], self._latest_anomaly(key)] for key in endpoints])
        for key, of_processes in zip(endpoints, zip(*told, strict=True), strict=True):
            cases, lost = (sum(row[column] for row in of_processes) for column in (0, 1))
            if lost == cases >= FEWEST:
                why = next((text for _, of, text in of_processes if of and text), "")
                raise VerifierUnavailable(
                    f"verifier http {self._specs[key].settings['url']} answered none of the {cases} responses that it "
                    f"was asked about, retries included ({why}); nothing is learned from them. See that it is up, and "
                    "that its timeoutSeconds and retries suffice; the next attempt goes on from the last checkpoint"
                )

    def _latest_anomaly(self, key: Any) -> str:
        """What became of the latest case of this process without an outcome, in words; "" if there is none."""
        found = self._pools[key].anomalies
        return found[-1].message if found else ""

    def _keep(self, key: Any, pairs: Sequence[tuple[Case, Outcome]]) -> None:
        """Writes outcomes to the journal, where their verifier has them there."""
        if (journal := self._journal_of(key)) is not None:
            journal.keep(self._specs[key], [case for case, _ in pairs], [outcome for _, outcome in pairs])

    def _journal_of(self, key: Any) -> OutcomeJournal | None:
        """Where a verifier's outcomes are kept; None where it says the same again."""
        return self.journal if _may_differ(self._specs[key]) else None

    @staticmethod
    def _number(value: float) -> float:
        """A part that is no number counts as 0: it is said by the outcome's status."""
        return float(value) if value == value and abs(value) != float("inf") else 0.0

    def close(self) -> None:
        """Ends the workers."""
        for pool in self._pools.values():
            pool.close()


def _may_differ(spec: VerifierSpec) -> bool:
    """Whether another run may get another outcome: from an impure verifier, or from a worker that ran out of time."""
    return not spec.pure or not verify_inline(spec)
