"""Numbers as people read them."""

__all__ = ["percent", "size_in_words"]


def percent(share: float, digits: int = 1) -> str:
    """Such as `9.5 %`, never parted at a line's end; `digits` after the point at most."""
    number = f"{share * 100:.{digits}f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number}\N{NO-BREAK SPACE}%"


def size_in_words(size_bytes: int) -> str:
    """Such as `7.8 MB`."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.1f} {unit}"
    return f"{size_bytes} B"
