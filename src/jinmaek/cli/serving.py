"""``jinmaek web``: listen, say where, serve until Ctrl-C."""

from __future__ import annotations

import os
import secrets
import socket
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

import typer

from jinmaek.core.errors import RunError
from jinmaek.core.text import Lang, say

TOKEN_VARIABLE = "JINMAEK_WEB_TOKEN"
LEAST_TOKEN = 16
ANY = ("0.0.0.0", "::")
NICE = 10  # a training beside it goes first


def serve(folder: Path, host: str, port: int, lang: Lang) -> None:
    """Serve the runs in ``folder`` until Ctrl-C.

    Raises:
        RunError: no such folder, the extra is not installed, the address cannot be listened on, or the token is short.
    """
    if not folder.is_dir():
        raise RunError("web.no_folder", path=folder)
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise RunError("web.no_starlette")
    token = None if is_loopback(host) else token_for_others()
    listening = _listen(host, port)
    import uvicorn

    from jinmaek.web import make_app

    class Server(uvicorn.Server):
        """Ends the streams to browsers first: they have no end of their own."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.leaving.set()
            super().handle_exit(sig, frame)

    app = make_app(folder, lang, token)
    if hasattr(os, "nice"):
        os.nice(NICE)
    named = socket.gethostname() if host in ANY else host
    shown = f"[{named}]" if ":" in named else named
    address = f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
    typer.echo(say("web.listening", lang, root=folder, address=address))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=4,
    )  # fmt: skip
    Server(config).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def token_for_others() -> str:
    """The token of the environment, or a new one.

    Raises:
        RunError: it is too short to keep anybody out.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return secrets.token_urlsafe(24)
    if len(given) < LEAST_TOKEN:
        raise RunError("web.token_short", name=TOKEN_VARIABLE, length=len(given), least=LEAST_TOKEN)
    return given


def _listen(host: str, port: int) -> socket.socket:
    listening = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise RunError("web.cannot_listen", host=host, port=port, error=error.strerror or error) from error
    return listening
