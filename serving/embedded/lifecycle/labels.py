"""Version labels: which assignments a configuration may make, and what a label means."""

from collections.abc import Callable, Mapping

from shortlist.serving.embedded.api.interfaces import Code, StatusError

__all__ = ["LabelMap", "assign_labels", "version_of_label"]

LabelMap = Mapping[str, Mapping[str, int]]  # model name -> label -> version


def assign_labels(
    requested: LabelMap,
    current: LabelMap,
    available: Callable[[str], frozenset[int]],
    *,
    allow_unavailable: bool,
) -> LabelMap:
    """Labels that take the place of all current ones.

    A label must point at an AVAILABLE version. With `allow_unavailable`, a label that is
    new or does not move may point at any; moving one always needs AVAILABLE.

    Args:
        requested: Labels of the new configuration.
        current: Labels so far.
        available: AVAILABLE versions of a model.
        allow_unavailable: `--allow_version_labels_for_unavailable_models`.

    Raises:
        StatusError: FAILED_PRECONDITION; an assignment is refused, and all stay as they were.
    """
    assigned: dict[str, dict[str, int]] = {}
    for name, labels in requested.items():
        versions = available(name)
        for label, version in labels.items():
            unmoved = current.get(name, {}).get(label, version) == version
            if version not in versions and not (allow_unavailable and unmoved):
                raise StatusError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference",
                )
            assigned.setdefault(name, {})[label] = version
    return assigned


def version_of_label(labels: LabelMap, name: str, label: str) -> int:
    """The version that a label stands for.

    Raises:
        StatusError: INVALID_ARGUMENT; the model has no such label.
    """
    version = labels.get(name, {}).get(label)
    if version is None:
        raise StatusError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
    return version
