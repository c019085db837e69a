"""The form's state: read from an address, and written into links."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from shortlist.clients import contract
from shortlist.clients.types import Filter
from shortlist.serving.ui.catalogue import Catalogue

__all__ = ["MODES", "Condition", "Question"]

MODES: Final = {
    "all": "is",
    "any": "is one of",
    "min": "is at least",
    "max": "is at most",
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One rule of a filter, as typed: mode (a part of `Filter`), attribute and value."""

    mode: str
    attribute: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a person asks; texts as typed, so that a wrong one stays in the form.

    Attributes:
        target: Model with version or label; empty for the first one.
        other: Target to compare with; empty for none.
        user: User id; empty for no user.
        history: Candidate ids, oldest first.
        k: Candidates to return.
        exclude: Candidate ids to leave out.
        features: Lines of `name=value`.
        conditions: Rules of the filter.
        seen: Leave out what the user had.
        repeat: Do not leave out the history.
        like: Candidate whose similar ones are shown; empty for none.
        fresh: The address has no state: nothing was asked yet.
        unset: The address does not come from a form, so defaults hold.
    """

    target: str = ""
    other: str = ""
    user: str = ""
    history: tuple[str, ...] = ()
    k: str = str(contract.DEFAULT_K)
    exclude: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    seen: bool = False
    repeat: bool = False
    like: str = ""
    fresh: bool = True
    unset: bool = True

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]]) -> "Question":
        """Return the question of an address's query."""
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)

        def last(name: str, default: str = "") -> str:
            return values.get(name, [default])[-1].strip()

        rules = zip(
            values.get("mode", []),
            values.get("attribute", []),
            values.get("value", []),
            strict=False,
        )
        asked = "k" in values  # every form and link carries it
        return cls(
            target=last("target"),
            other=last("other"),
            user=last("user"),
            history=tuple(filter(None, values.get("history", []))),
            k=last("k", cls.k),
            exclude=_lines(values.get("exclude", [])),
            features=_lines(values.get("features", [])),
            conditions=tuple(
                Condition(mode=mode, attribute=attribute.strip(), value=value.strip())
                for mode, attribute, value in rules
                if attribute.strip() or value.strip()
            ),
            seen=bool(last("seen")),
            unset=not asked,
            repeat=bool(last("repeat")),
            like=last("like"),
            fresh=not (asked or "user" in values or "history" in values),
        )

    def filled(self, catalogue: Catalogue, added: str) -> "Question":
        """Return the question with defaults, and with one more event.

        Args:
            catalogue: Candidates and users of the version that answers.
            added: Event to add, typed as id or title; empty for none.
        """
        question = self
        if self.fresh and catalogue.users:
            question = replace(question, user=catalogue.users[0])
        if self.unset:
            question = replace(question, seen=catalogue.keeps_seen)
        if added.strip():
            history = (*self.history, catalogue.candidate(added))
            question = replace(question, history=history)
        return question

    def link(self, path: str, **changes: Any) -> str:
        """Return an address of a view with this state, except for some fields."""
        state = replace(self, **changes)
        pairs = [
            *(("history", candidate_id) for candidate_id in state.history),
            *(("exclude", candidate_id) for candidate_id in state.exclude),
            *(("features", line) for line in state.features),
        ]
        for rule in state.conditions:
            pairs += [("mode", rule.mode), ("attribute", rule.attribute), ("value", rule.value)]
        single = {
            "target": state.target,
            "other": state.other,
            "user": state.user,
            "k": state.k,
            "seen": "1" if state.seen else "",
            "repeat": "1" if state.repeat else "",
            "like": state.like,
        }
        return f"{path}?{urlencode([*((n, v) for n, v in single.items() if v), *pairs])}"

    def with_event(self, path: str, candidate_id: str) -> str:
        """Return an address with one more event."""
        return self.link(path, history=(*self.history, candidate_id))

    def without_event(self, path: str, index: int) -> str:
        """Return an address without one event."""
        return self.link(path, history=self.history[:index] + self.history[index + 1 :])

    def without(self, path: str, candidate_id: str) -> str:
        """Return an address that leaves out one more candidate."""
        return self.link(path, exclude=(*self.exclude, candidate_id))

    def number(self) -> int:
        """Return `k`.

        Raises:
            ValueError: It is not a whole number above 0.
        """
        if not (self.k.isascii() and self.k.isdecimal() and len(self.k) < 10 and int(self.k)):
            raise ValueError(f"“How many” takes a whole number above 0, got {self.k!r}")
        return int(self.k)

    def feature_values(self) -> dict[str, list[str]]:
        """Return the values by feature name.

        Raises:
            ValueError: A line is not `name=value`.
        """
        features: dict[str, list[str]] = {}
        for line in self.features:
            name, equals, value = line.partition("=")
            if not equals or not name.strip():
                raise ValueError(f"a feature is written name=value, got {line!r}")
            features.setdefault(name.strip(), []).append(value.strip())
        return features

    def filter(self, attributes: Mapping[str, bool]) -> Filter | None:
        """Return the filter, or `None` without rules.

        Args:
            attributes: Known attributes, and whether they are numbers; empty if unknown.

        Raises:
            ValueError: A rule lacks a part, or does not fit its attribute.
        """
        parts: dict[str, dict[str, Any]] = {mode: {} for mode in MODES}
        for rule in self.conditions:
            if rule.mode not in MODES or not rule.attribute or not rule.value:
                raise ValueError(
                    f"a rule needs an attribute and a value, got {rule.attribute!r} and "
                    f"{rule.value!r}; complete it, or empty both"
                )
            if attributes:
                _check(rule, attributes)
            if rule.mode in ("any", "all"):
                parts[rule.mode].setdefault(rule.attribute, []).append(rule.value)
            else:
                parts[rule.mode][rule.attribute] = _bound(rule)
        return Filter(**parts) if self.conditions else None


def _check(rule: Condition, attributes: Mapping[str, bool]) -> None:
    name, numeric = rule.attribute, attributes.get(rule.attribute)
    if numeric is None:
        raise ValueError(f"no candidate has the attribute {name!r}; use {', '.join(attributes)}")
    if numeric and rule.mode in ("any", "all"):
        raise ValueError(f"{name!r} is a number; use “is at least” and “is at most”")
    if not numeric and rule.mode in ("min", "max"):
        raise ValueError(f"{name!r} is not a number; use “is” or “is one of”")


def _bound(rule: Condition) -> float:
    try:
        return float(rule.value)
    except ValueError:
        raise ValueError(
            f"{rule.attribute!r} {MODES[rule.mode]} takes a number, got {rule.value!r}"
        ) from None


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(line.strip() for text in texts for line in text.splitlines() if line.strip())
