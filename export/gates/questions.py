"""What the gates ask a version in a fresh process, by purpose."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeAlias, TypeVar

from shortlist.clients import contract
from shortlist.export.gates.subject import Subject
from shortlist.serving.repository.golden import GoldenQuery

__all__ = ["UNKNOWN_USER", "Answer", "ByPurpose", "candidate_rows", "questions", "sort_answers"]

Answer: TypeAlias = Mapping[str, Any] | str  # outputs by name, or an error message
T = TypeVar("T")

UNKNOWN_USER = "\x00no user has this id"
_ROWS = 100  # per request


@dataclass(frozen=True, kw_only=True)
class ByPurpose(Generic[T]):
    """Questions for one version, or its answers.

    Attributes:
        golden: Known queries.
        unknown_user: One query for an unknown user; none for a SavedModel from elsewhere, or if
            queries have other inputs.
        probe: Queries for the probe's users.
        recorded: Recorded requests.
        comparison: Queries that the live version gets, too.
    """

    golden: Sequence[T] = ()
    unknown_user: Sequence[T] = ()
    probe: Sequence[T] = ()
    recorded: Sequence[T] = ()
    comparison: Sequence[T] = ()

    def in_order(self) -> list[T]:
        """Return all of them in one list."""
        return [
            *self.golden,
            *self.unknown_user,
            *self.probe,
            *self.recorded,
            *self.comparison,
        ]


def questions(subject: Subject, comparison: Sequence[GoldenQuery]) -> ByPurpose[GoldenQuery]:
    """Return what to ask a version; `comparison` holds the queries for the live one, too."""
    return ByPurpose(
        golden=subject.golden,
        unknown_user=[_ask({contract.USER_ID: [UNKNOWN_USER]})] if _has_users(subject) else (),
        probe=() if subject.probe is None else [*map(_ask, subject.probe.requests(_ROWS))],
        recorded=subject.recorded,
        comparison=comparison,
    )


def sort_answers(asked: ByPurpose[GoldenQuery], answers: Sequence[Answer]) -> ByPurpose[Answer]:
    """Return answers, in the order of `asked.in_order()`, by purpose."""
    rest = iter(answers)
    return ByPurpose(
        **{
            part.name: list(itertools.islice(rest, len(getattr(asked, part.name))))
            for part in fields(ByPurpose)
        }
    )


def candidate_rows(answers: Sequence[Answer]) -> list[list[str]] | str:
    """Return candidate ids by user, or what went wrong."""
    rows: list[list[str]] = []
    for answer in answers:
        if isinstance(answer, str):
            return answer
        if contract.CANDIDATE_IDS not in answer:
            return f"no output {contract.CANDIDATE_IDS!r}"
        rows += answer[contract.CANDIDATE_IDS]
    return rows


def _has_users(subject: Subject) -> bool:
    probe = subject.probe
    return subject.corpus is not None and (probe is None or probe.inputs is None)


def _ask(inputs: Mapping[str, Any]) -> GoldenQuery:
    return GoldenQuery(signature=contract.SERVING_DEFAULT, inputs=inputs, outputs={})
