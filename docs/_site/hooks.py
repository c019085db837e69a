"""Events of MkDocs: pages for files outside docs/, and reference pages made from the code."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside docs/ that a page links to, and those that they link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        for target in _targets(source):
            if target in seen or not (ROOT / target).is_file():
                continue
            seen.add(target)
            if target.startswith("docs/"):
                continue
            page = File.generated(config, _page_of(target), content=_content(target))
            page.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(page)
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to the site's pages."""
    source = _source_of(page.file)

    def moved(link: re.Match[str]) -> str:
        target = _resolved(source, link[1])
        if not (ROOT / target).is_file():
            return link[1]  # MkDocs tells of it
        return posixpath.relpath(_page_of(target), posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(moved, markdown)


def _targets(source: str) -> set[str]:
    text = _FENCE.sub("", (ROOT / source).read_text(encoding="utf-8"))
    return {_resolved(source, link) for link in _LINK.findall(text)}


def _resolved(source: str, link: str) -> str:
    """Return the path, from the root, of what a link of a file leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _source_of(file: File) -> str:
    inside = f"docs/{file.src_uri}"
    return inside if (ROOT / inside).is_file() else file.src_uri


def _page_of(path: str) -> str:
    """Return the site's name of a file: Python is shown as a page of its own."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{path}.md" if path.endswith(".py") else path


def _content(path: str) -> str | bytes:
    content = (ROOT / path).read_bytes()
    if path.endswith(".py"):
        return f"# `{path}`\n\n```python\n{content.decode()}```\n"
    return content
