"""A form in the browser for `otpy judge --web`: one question at a time, for one person on this machine.

The standard library's server does: it serves one person, on 127.0.0.1 alone, a page of a few kilobytes without anything
from elsewhere. The address has a secret in it, so no other user of the machine and no page in the same browser can read
the questions or post an answer; what a model has written is shown as text and never as markup.
"""

from __future__ import annotations

import html
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from otpy.cli.judge_shown import parts_of
from otpy.errors import TeleprompterError
from otpy.teleprompters.judgements import Judgements

if TYPE_CHECKING:
    from pathlib import Path

    from otpy.cli.screen import Screen
    from otpy.teleprompters.questions import Question

__all__ = ["Form", "serve", "served"]

LONGEST: Final = 1_000_000
"""Bytes of an answer that are read."""
IDLE: Final = 30.0
"""Seconds after which a connection that says nothing is closed."""
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.2rem}h2{font-size:.9rem;color:#666;margin:1rem 0 .2rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f4;padding:.6rem;margin:.2rem 0;max-height:24rem;
overflow:auto}textarea{width:100%;box-sizing:border-box;font:inherit}button{font:inherit;margin:.6rem .4rem 0 0}
kbd{color:#666}.said{background:#fff3cd;padding:.4rem}small{color:#666}
"""
_SCRIPT: Final = """
addEventListener("keydown",e=>{if(e.ctrlKey||e.metaKey||e.altKey||e.target.tagName=="TEXTAREA")return;
for(const b of document.querySelectorAll("button[data-key]"))if(b.dataset.key==e.key){e.preventDefault();b.click();
break}});
"""


class Form:
    """What the form shows and does, for one judge.

    Args:
        path: The journal of a run, or a queue.
        who: Who judges.
        show_label: Whether what is known of the right answer is shown.
    """

    def __init__(self, path: Path, who: str, *, show_label: bool = False) -> None:
        """Make up the secret."""
        self.path, self.who, self.show_label = path, who, show_label
        self.secret = secrets.token_urlsafe(24)
        self.done = 0
        self._passed: list[str] = []
        self._said = ""
        self._lock = threading.Lock()

    def act(self, form: dict[str, str]) -> None:
        """Do what was posted; what cannot be done is said on the next page.

        Args:
            form: The fields of the form.
        """
        with self._lock, Judgements(self.path) as questions:
            try:
                self._act(questions, form.get("key", ""), form.get("act", ""), form)
            except TeleprompterError as error:
                self._said = str(error)

    def _act(self, questions: Judgements, key: str, act: str, form: dict[str, str]) -> None:
        others = [one for one in self._passed if one != key]
        if act == "skip":
            self._passed = [*others, key]
        elif act == "undo":
            questions.undo(self.who)
            self._said, self.done = "taken back", max(self.done - 1, 0)
        else:
            question = questions.question(key)
            words = form.get("words", "").replace("\r\n", "\n")
            named = ("choice", "feedback") if question.kind == "score" else ("decision", "text")
            questions.answer(key, self.who, dict(zip(named, (form.get("answer", ""), words), strict=True)), hold=True)
            self._passed, self.done = others, self.done + 1

    def page(self, nonce: str) -> str:
        """Return the page: the next question, or that there is none.

        Args:
            nonce: Allows the page's own style and script.
        """
        with self._lock, Judgements(self.path) as questions:
            question = questions.claim(self.who, self._passed)
            left = questions.standing(self.who).pending
            said, self._said = self._said, ""
        progress = f"{left} left, {self.done} judged by {self.who} here"
        told = f'<p class="said">{html.escape(said)}</p>' if said else ""
        if question is None:
            body = f"<h1>Nothing waits for you now.</h1><p>This page looks again by itself.</p>{_undo()}"
        else:
            body = self._asked(question)
        again = '<meta http-equiv="refresh" content="5">' if question is None else ""
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>otpy judge</title>{again}'
            f'<style nonce="{nonce}">{_STYLE}</style><body><small>{html.escape(progress)}</small>{told}{body}'
            f'<script nonce="{nonce}">{_SCRIPT}</script></body></html>'
        )

    def _asked(self, question: Question) -> str:
        parts: list[str] = []
        before = None
        for part, name, text in parts_of(question, show_label=self.show_label):
            if part != before:
                parts.append(f"<h2>{html.escape(part)}</h2>")
                before = part
            parts.append(f"<div>{html.escape(name)}<pre>{html.escape(text)}</pre></div>")
        if question.kind == "instruction":
            words, hint = question.shown["proposal"]["instruction"], "The text to use; change it if you like."
            buttons = [("a", "approve", "approve"), ("v", "veto", "veto"), ("p", "pin", "pin: keep it from now on")]
        else:
            words, hint = "", "In words, for the optimizer (not needed)."
            buttons = [(one.key, one.label, one.label) for one in question.choices]
        shown = "".join(_button("answer", *each) for each in buttons)
        shown += _button("act", "s", "skip", "skip") + _button("act", "u", "undo", "undo")
        guidance = f"<p>{html.escape(question.guidance)}</p>" if question.guidance else ""
        return (
            f"<h1>{html.escape(question.text)}</h1>{guidance}{''.join(parts)}"
            f'<form method="post" action="answer"><input type="hidden" name="key" value="{html.escape(question.key)}">'
            f'<h2>{hint}</h2><textarea name="words" rows="4">\n{html.escape(words)}</textarea>{shown}</form>'
        )


def _button(name: str, key: str, value: str, text: str) -> str:
    key, value, text = (html.escape(part) for part in (key, value, text))
    return f'<button name="{name}" value="{value}" data-key="{key}">{text} <kbd>{key}</kbd></button>'


def _undo() -> str:
    return f'<form method="post" action="answer">{_button("act", "u", "undo", "undo")}</form>'


class _Handler(BaseHTTPRequestHandler):
    """Lets in whoever knows the secret, and nobody else."""

    timeout = IDLE
    server_version, sys_version = "otpy", ""
    form: Form
    here: tuple[str, ...]
    """Names of this server; one that leads here from outside is none of them."""

    def do_GET(self) -> None:
        if self._let_in(""):
            nonce = secrets.token_urlsafe(16)
            self._answer(HTTPStatus.OK, self._page(nonce), nonce)

    def do_POST(self) -> None:
        if not self._let_in("answer"):
            return
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LONGEST} bytes")
            return
        fields = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"), keep_blank_values=True)
        try:
            self.form.act({name: values[-1] for name, values in fields.items()})
        except TeleprompterError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, html.escape(str(error)))
            return
        self.send_response(HTTPStatus.SEE_OTHER)  # so that loading the page again posts nothing
        self.send_header("Location", f"/{self.form.secret}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _page(self, nonce: str) -> str:
        try:
            return self.form.page(nonce)
        except TeleprompterError as error:
            return html.escape(str(error))

    def _let_in(self, what: str) -> bool:
        here = self.here
        origin = self.headers.get("origin")
        asked, wanted = self.path.encode(), f"/{self.form.secret}/{what}".encode()
        known = secrets.compare_digest(asked, wanted)
        if (
            known
            and self.headers.get("host") in here
            and (origin is None or origin in {f"http://{one}" for one in here})
        ):
            return True
        self._answer(HTTPStatus.NOT_FOUND, "There is nothing here; the address that otpy printed has a secret in it.")
        return False

    def _answer(self, status: HTTPStatus, text: str, nonce: str = "") -> None:
        data = text.encode("utf-8", "backslashreplace")
        own = f"'nonce-{nonce}'" if nonce else "'none'"
        policy = f"default-src 'none'; style-src {own}; script-src {own}; form-action 'self'; base-uri 'none'"
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", f"{policy}; frame-ancestors 'none'"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's
        """Say nothing: the address has the secret in it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""


def served(form: Form, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of a form, listening on this machine alone; it begins with `serve_forever`.

    Args:
        form: The form.
        port: The port; 0 for any free one.

    Raises:
        OSError: If the port is taken.
    """

    class Handler(_Handler):
        pass

    server = _Server(("127.0.0.1", port), Handler)
    Handler.form, Handler.here = form, (f"127.0.0.1:{server.server_port}", f"localhost:{server.server_port}")
    return server


def serve(screen: Screen, path: Path, who: str, *, port: int, show_label: bool) -> None:
    """Serve the form until Ctrl-C.

    Args:
        screen: Where the address is shown.
        path: The journal of a run, or a queue.
        who: Who judges.
        port: The port; 0 for any free one.
        show_label: Whether what is known of the right answer is shown.

    Raises:
        TeleprompterError: If the port is taken.
    """
    form = Form(path, who, show_label=show_label)
    try:
        server = served(form, port)
    except OSError as error:
        raise TeleprompterError(f"port {port}: {error.strerror or error}; choose another, or 0 for any") from error
    url = f"http://127.0.0.1:{server.server_port}/{form.secret}/"
    if screen.as_json:
        screen.result({"url": url})
    else:
        print(f"{who} judges at {url}\nThe address is for you alone. Ctrl-C ends it; every answer is kept.", flush=True)
    with server:
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            screen.line(f"{form.done} answered; what was answered is kept")
        finally:
            with Judgements(path) as questions:
                questions.leave(who)
