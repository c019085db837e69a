"""The page's web application: views as server-rendered HTML, and what protects them.

Every request is a GET that changes nothing, so there is nothing to forge. The page has no login:
requests must name a host that cannot be another site's (DNS rebinding), and the browser is told
to load and run the page's own files alone.
"""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shortlist.clients.errors import ShortlistError
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.version import Manifest
from shortlist.serving.ui.catalogue import NOTHING, Catalogue
from shortlist.serving.ui.lists import Answer, answer, had, moves, reasons, similar
from shortlist.serving.ui.question import MODES, Question
from shortlist.serving.ui.site import Abilities, Site, Target

__all__ = ["create_app", "is_loopback"]

_SUGGESTIONS: Final = 20
_FOR_A_START: Final = 8  # users that the form names
_FOUND: Final = 50  # candidates of a search
_ROLLOUTS: Final = 20  # of the log
_REPORT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
)
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def create_app(site: Site, *, host: str = "127.0.0.1") -> ASGIApp:
    """Return the application.

    Args:
        site: Servers and repository to show.
        host: Address that the page is bound to; decides which hosts requests may name.
    """
    views = _Views(site)
    app = Starlette(
        routes=[
            Route("/", views.lists),
            Route("/compare", views.compare),
            Route("/catalogue", views.catalogue),
            Route("/versions", views.versions),
            Route("/versions/{model}/{version:int}", views.version),
            Route("/versions/{model}/{version:int}/report", views.report),
            Route("/rollouts", views.rollouts),
            Route("/suggest/{what}", views.suggest),
            Mount("/static", StaticFiles(packages=[(__package__, "static")])),
        ],
        exception_handlers={HTTPException: views.http_error, ShortlistError: views.failure},
    )
    return _Guard(app, host)


class _Views:
    """The views; Starlette runs each in a thread, as the clients block."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def lists(self, request: Request) -> Response:
        """What a user had and gets, and what is similar to a candidate."""
        site = self._site
        question = self._question(request)
        target = Target.parse(question.target)
        catalogue, can, problem = self._open(target)
        question = question.filled(catalogue, request.query_params.get("add", ""))
        got = like = None
        if can is not None:
            got = answer(site, question, target, catalogue)
            if can.similar:
                got = reasons(site, got, question, target, catalogue)
            if question.like:
                k = len(got.items) or 10
                like = similar(site, question.like, k, target, catalogue)
        return self._page(
            "lists.html",
            question=question,
            catalogue=catalogue,
            can=can,
            had=had(question.user, catalogue) if question.user else None,
            got=got or Answer(problem=problem),
            like=like,
            users=catalogue.users[:_FOR_A_START],
        )

    def compare(self, request: Request) -> Response:
        """Answers of two targets for the same request."""
        site = self._site
        question = self._question(request)
        if not question.other:
            question = replace(question, other=self._another(question.target))
        first, second = Target.parse(question.target), Target.parse(question.other)
        catalogue, can, _ = self._open(first)
        other_catalogue, _, _ = self._open(second)
        question = question.filled(catalogue, request.query_params.get("add", ""))
        ours = answer(site, question, first, catalogue)
        theirs = answer(site, question, second, other_catalogue)
        common = {item.candidate_id for item in ours.items} & {
            item.candidate_id for item in theirs.items
        }
        return self._page(
            "compare.html",
            question=question,
            catalogue=catalogue,
            can=can,
            answers=[
                (question.target, moves(ours, theirs)),
                (question.other, moves(theirs, ours)),
            ],
            common=len(common),
            users=catalogue.users[:_FOR_A_START],
        )

    def catalogue(self, request: Request) -> Response:
        """Candidates of a version whose id or title contains a text."""
        question = self._question(request)
        catalogue, can, problem = self._open(Target.parse(question.target))
        text = request.query_params.get("q", "")
        found, total = catalogue.search(text, _FOUND)
        items = [catalogue.item(candidate_id) for candidate_id in found]
        return self._page(
            "catalogue.html",
            question=question,
            catalogue=catalogue,
            can=can,
            text=text,
            found=Answer(items=items, total=total, problem=problem),
        )

    def versions(self, request: Request) -> Response:
        """All versions with their states, labels and headline metrics."""
        rows, unreachable = self._site.versions()
        models = {name: [row for row in rows if row.name == name] for name in self._site.models()}
        return self._page("versions.html", models=models, unreachable=unreachable)

    def version(self, request: Request) -> Response:
        """Metrics, gates and origin of one version."""
        name, number = request.path_params["model"], request.path_params["version"]
        try:
            self._site.repository.version_path(name, number)
        except RepositoryError as exc:
            return self._page("problem.html", status=404, problem=str(exc))
        rows, _ = self._site.versions()
        found = [row for row in rows if (row.name, row.version) == (name, number)]
        manifest = self._site.repository.manifest(name, number) or Manifest()
        return self._page("version.html", row=found[0], manifest=manifest)

    def report(self, request: Request) -> Response:
        """The report in a version's folder, which may be another's: it runs and loads nothing."""
        try:
            report = self._site.report(request.path_params["model"], request.path_params["version"])
        except RepositoryError as exc:
            return self._page("problem.html", status=404, problem=str(exc))
        headers = {"content-security-policy": _REPORT_POLICY, "cache-control": "no-store"}
        return FileResponse(report, media_type="text/html", headers=headers)

    def rollouts(self, request: Request) -> Response:
        """State and log of rollouts."""
        site = self._site
        return self._page(
            "rollouts.html",
            observations=site.rollouts(),
            shares=site.shares(),
            log=site.log(_ROLLOUTS),
            config=str(site.config_paths[0]),
        )

    def suggest(self, request: Request) -> Response:
        """Users or candidates that begin with or contain a text, for an input's list."""
        target = Target.parse(self._question(request).target)
        catalogue = self._open(target)[0]
        text = request.query_params.get("q", "")
        match request.path_params["what"]:
            case "users":
                found = [(user, "") for user in catalogue.search_users(text, _SUGGESTIONS)]
            case "candidates":
                found = catalogue.named(catalogue.search(text, _SUGGESTIONS)[0])
            case _:
                raise HTTPException(404)
        return JSONResponse([{"value": id_, "label": title} for id_, title in found])

    def http_error(self, request: Request, exc: Exception) -> Response:
        """Answer a wrong path or method."""
        assert isinstance(exc, HTTPException)
        if exc.status_code == 404:
            problem = f"There is no view {request.url.path!r}; choose one above."
            return self._page("problem.html", status=404, problem=problem)
        return PlainTextResponse(exc.detail, exc.status_code, exc.headers)

    def failure(self, request: Request, exc: Exception) -> Response:
        """Answer with an error that names its remedy."""
        return self._page("problem.html", status=500, problem=str(exc))

    def _question(self, request: Request) -> Question:
        question = Question.read(request.query_params.multi_items())
        return question if question.target else replace(question, target=self._site.models()[0])

    def _open(self, target: Target) -> tuple[Catalogue, Abilities | None, str]:
        """Return the catalogue of the version that answers, what it can do, or a problem."""
        site = self._site
        try:
            metadata = site.metadata(target)
            catalogue = site.catalogue(target.model, metadata.version)
            return catalogue, Abilities.of(metadata), ""
        except ShortlistError as exc:
            return NOTHING, None, str(exc)

    def _another(self, target: str) -> str:
        """Return a target to compare one with: another model, else a version of the same."""
        model = Target.parse(target).model
        others = [name for name in self._site.models() if name != model]
        versions = self._site.repository.versions(model)
        return others[0] if others else f"{model}/{versions[0]}" if versions else target

    def _page(self, template: str, *, status: int = 200, **variables: Any) -> Response:
        html = self._environment.get_template(template).render(
            modes=MODES,
            choices=self._choices,
            repository=str(self._site.repository.root),
            view=template.removesuffix(".html"),
            **variables,
        )
        return HTMLResponse(html, status, {"cache-control": "no-store"})

    @property
    def _choices(self) -> Callable[[], Any]:
        return self._site.choices


class _Guard:
    """Refuses foreign hosts and other sites' requests; adds the headers that bind the browser."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._local = is_loopback(host)
        self._names = {"localhost"}
        if not self._local:
            self._names |= {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        problem = self._problem(Headers(scope=scope))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", _POLICY)
            await send(message)

        response = PlainTextResponse(f"{problem}\n", 403) if problem else self._app
        await response(scope, receive, send_guarded)

    def _problem(self, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._is_ours(host):
            ours = "localhost or 127.0.0.1" if self._local else "the machine's name or address"
            return f"the page does not answer for the host {host!r}; use {ours}"
        # Browsers say so of each request that another site's page makes, except of links.
        if (
            headers.get("sec-fetch-site") == "cross-site"
            and headers.get("sec-fetch-mode") != "navigate"
        ):
            return "the page does not answer requests of other sites"
        return ""

    def _is_ours(self, host: str) -> bool:
        """Return whether a Host header names us: a name of ours, or an address.

        A site that points its own name at us is recognised by that name.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            if name in self._names:
                return True
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._local


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
