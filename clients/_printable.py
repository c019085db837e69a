"""Text from elsewhere for terminals and logs: without control characters, and without secrets."""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["printable", "without_secrets"]

# C0 (with ESC and DEL), C1, line separators, bidirectional embeddings, overrides and isolates, and
# lone surrogates, which cannot be written at all.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROLS_BUT_LAYOUT: Final = re.compile(_CONTROLS.pattern.replace(r"\x00-", r"\x00-\x08\x0b-"))
_USER: Final = re.compile(r"//[^\s'\"/]*@")  # with `/` in it, the time would be quadratic
_LEAST_SECRET: Final = 4  # characters; a shorter one would blot out words


def printable(text: str, *, newlines: bool = False) -> str:
    r"""Return text that cannot steer a terminal or forge a line.

    Control characters become `\uXXXX`, as in JSON, so JSON stays the same document.

    Args:
        text: Text from a user, a file or a server.
        newlines: Keep newlines and tabs, as in text that is laid out already.
    """
    if text.isprintable():  # nearly always; scans at memory speed
        return text
    pattern = _CONTROLS_BUT_LAYOUT if newlines else _CONTROLS
    return pattern.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def without_secrets(text: str, values: Iterable[str]) -> str:
    """Return text with `…` for secrets in it: headers that a proxy echoes, and users of URLs.

    Args:
        text: Text from the other side.
        values: Values of the headers sent, such as `Bearer …`.
    """
    for value in values:
        for secret in (value, *value.split()[1:]):
            if len(secret) >= _LEAST_SECRET:
                text = text.replace(secret, "…")
    return _USER.sub("//…@", text) if "@" in text else text
