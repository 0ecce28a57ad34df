"""The server of `deflare view`: one page with the viewer, and a socket to each tab that shows it.

It needs no kernel: a tab has a viewer of its own in this process, over the same open files. Whoever asks for anything
must know the token in the address that is printed, or have the cookie that it sets, and must ask this machine by name:
a page elsewhere whose name is made to point here is refused.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.websocket import WebSocketClosedError, WebSocketHandler
from traitlets import TraitError

from deflare_core.events import WINDOW_US
from deflare_core.io.formats import SUFFIX_FORMATS
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import Recording, open_together
from deflare_core.show.stretches import SCANNED_EVENTS
from deflare_core.show.viewer import VoxelBinViewer
from deflare_core.system.errors import DeflareError
from deflare_core.system.unfinished import temporary_folder

HERE = Path(__file__).parent
HOST = "127.0.0.1"
FILES = {
    "": (HERE / "view.html", "text/html"),
    "view.js": (HERE / "view.js", "text/javascript"),
    "viewer.js": (VoxelBinViewer._esm, "text/javascript"),
    "viewer.css": (VoxelBinViewer._css, "text/css"),
}
TITLES = ("input", "output", "target")
"""What the files are, in the order in which they are named."""
STATE = sorted(VoxelBinViewer.class_own_traits(sync=True))
MOST_TABS = 8
"""A further tab closes the oldest one, so that no page can fill the memory by opening many."""
SAFE = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob:; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Names = Sequence[str | Path]


def open_viewer(names: Names, reading: Reading, stack: ExitStack) -> VoxelBinViewer:
    """A viewer of the recordings named, input, output and target; they are open until the stack is closed.

    Raises
    ------
    DeflareError
        When a file cannot be read or is out of order, the sensors differ, or the input holds no events.
    """
    paths = {title: Path(name) for title, name in zip(TITLES, names, strict=False) if str(name)}
    if "input" not in paths:
        raise DeflareError("Name a recording to show.")
    recordings = stack.enter_context(open_together(paths, reading))
    viewer = make_viewer(recordings)  # It counts the events of input and output over time, and so knows their order.
    target = recordings.get("target")
    if target and len(target) <= SCANNED_EVENTS:  # More take longer than one who wants to look would wait.
        target.check_order()
    return viewer


def make_viewer(recordings: dict[str, Recording]) -> VoxelBinViewer:
    """A viewer of open recordings by title."""
    starts_us = recordings["input"].window_starts(WINDOW_US)
    if not len(recordings["input"]) or not len(starts_us):
        raise DeflareError(f"{recordings['input'].path}: holds no events, so there is nothing to show.")
    shown = [recordings.get(title) for title in ("target", "output")]
    viewer = VoxelBinViewer.of_recordings(recordings["input"], *shown, t0_us=starts_us[0], num_windows=len(starts_us))
    if not viewer.voxels["Input"].any():  # Where a recording begins with silence, its first picture would be empty.
        viewer.jump("events")
    return viewer


class Guarded(tornado.web.RequestHandler):
    """Whoever answers a request asks first for the token, and by which name this machine was called."""

    def prepare(self) -> None:
        """Refuse a request without the token, or for another host."""
        if self.request.host not in self.settings["hosts"]:
            raise tornado.web.HTTPError(403, reason="Asked for by another name than this machine's")
        given = self.get_query_argument("token", "") or self.get_cookie(self.settings["cookie"], "") or ""
        if not secrets.compare_digest(given.encode(), self.settings["token"].encode()):
            raise tornado.web.HTTPError(403, reason="Open the address that deflare view printed")

    def set_default_headers(self) -> None:
        """Let the page load nothing from elsewhere, and no other page hold it."""
        for name, value in SAFE.items():
            self.set_header(name, value)


class PageFile(Guarded):
    """One of the few files of the page."""

    def get(self, name: str) -> None:
        """Send the file, and with the page the cookie."""
        if name not in FILES:
            raise tornado.web.HTTPError(404)
        path, kind = FILES[name]
        if not name:
            self.set_cookie(self.settings["cookie"], self.settings["token"], httponly=True, samesite="Strict")
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.finish(Path(str(path)).read_text() if isinstance(path, Path) else str(path))


class Tab(WebSocketHandler, Guarded):
    """A tab of a browser: its viewer, whose traits it follows and sets, and its open files."""

    tabs: ClassVar[list[Tab]] = []

    def check_origin(self, origin: str) -> bool:
        """Whether the page that asks is the one of this server."""
        return origin in [f"http://{host}" for host in self.settings["hosts"]]

    def open(self, *_args: str, **_kwargs: str) -> None:
        """Show what was named when the server was started."""
        self.stack, self.coming = ExitStack(), dict[str, Any]()
        self.viewer: VoxelBinViewer | None = None
        self.tabs.append(self)
        for oldest in self.tabs[:-MOST_TABS]:
            oldest.close(reason="too many tabs")
        self.on_message(json.dumps({"open": [str(name) for name in self.settings["names"]]}))

    def on_message(self, text: str | bytes) -> None:
        """Do what a tab asks for: set traits, pass on a message, list a folder, or open other files."""
        asked = json.loads(text)
        try:
            if "set" in asked:
                self._set(asked["set"])
            elif "send" in asked and self.viewer:
                self.viewer._handle_custom_msg(asked["send"], [])
            elif "list" in asked:
                self._tell({"kind": "folder", **list_folder(asked["list"])})
            elif "open" in asked:
                self._show(asked["open"])
        except (DeflareError, OSError) as error:
            self._tell({"kind": "refused", "why": str(error)})

    def on_close(self) -> None:
        """Close the tab's files."""
        self.tabs.remove(self)
        self.stack.close()

    def _show(self, names: Names) -> None:
        with ExitStack() as stack:
            viewer = open_viewer(names, self.settings["reading"], stack)
            self.stack.close()
            self.stack = stack.pop_all()
        self.viewer = viewer
        viewer.send = self._send  # A notebook's viewer speaks to a kernel's front end.
        viewer.observe(self._follow, STATE)
        state = {name: getattr(viewer, name) for name in STATE}
        files = {title: str(name) for title, name in zip(TITLES, names, strict=False)}
        self._tell({"kind": "shown", "state": state, "files": files, "folder": str(Path(names[0]).resolve().parent)})

    def _set(self, values: dict[str, Any]) -> None:
        """Set traits as the tab asks; it is told what became of those that cannot be set so."""
        self.coming = values
        try:
            for name in [name for name in values if name in STATE]:
                self._set_one(name, values[name])
        finally:
            self.coming = {}
            self._tell({"kind": "done"})

    def _set_one(self, name: str, value: Any) -> None:
        try:
            setattr(self.viewer, name, value)
        except DeflareError:
            raise
        except (TraitError, ValueError):
            self._tell({"kind": "state", "state": {name: getattr(self.viewer, name)}})

    def _follow(self, change: Any) -> None:
        """Tell the tab of a change, unless it has asked for it."""
        if change["name"] not in self.coming or self.coming[change["name"]] != change["new"]:
            self._tell({"kind": "state", "state": {change["name"]: change["new"]}})

    def _send(self, content: dict[str, Any], buffers: Sequence[bytes] | None = None) -> None:
        self._tell({"kind": "custom", "content": content, "buffers": len(buffers or ())})
        for buffer in buffers or ():
            self._write(buffer, binary=True)

    def _tell(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message))

    def _write(self, message: str | bytes, *, binary: bool = False) -> None:
        """Send a message, unless the tab has been closed or loaded anew in the meantime."""
        with suppress(WebSocketClosedError):
            sent = asyncio.ensure_future(self.write_message(message, binary))
            sent.add_done_callback(lambda done: done.cancelled() or done.exception())


def list_folder(name: str) -> dict[str, Any]:
    """The folders and the recordings in a folder, by name, and why it cannot be listed if so."""
    folder = Path(name).expanduser().resolve()
    try:
        found = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
        folders = [path.name for path in found if path.is_dir()]
        files = [path.name for path in found if path.is_file() and path.suffix.lower() in SUFFIX_FORMATS]
    except OSError as error:
        return {"folder": str(folder), "folders": [], "files": [], "why": error.strerror or str(error)}
    return {"folder": str(folder), "folders": folders, "files": files, "why": ""}


def serve(names: Names, reading: Reading, port: int, tell: Callable[[str], None], *, opens: bool) -> None:
    """Show recordings in a browser until the process is ended; `tell` is given the address.

    Raises
    ------
    DeflareError
        When a file cannot be shown, before anything is served.
    OSError
        When the port is taken.
    """
    with ExitStack() as stack:
        open_viewer(names, reading, stack)
    asyncio.run(_serve(names, reading, port, tell, opens))


async def _serve(names: Names, reading: Reading, port: int, tell: Callable[[str], None], opens: bool) -> None:
    (socket,) = bind_sockets(port, HOST)
    port, token = socket.getsockname()[1], secrets.token_urlsafe(24)
    server = HTTPServer(make_application(names, reading, port, token))
    server.add_sockets([socket])
    address = f"http://{HOST}:{port}/?token={token}"
    tell(address)
    with temporary_folder() as folder:
        if opens:
            threading.Thread(target=partial(open_browser, address, folder), daemon=True).start()
        end = asyncio.Event()
        # An exception that a signal raises within a callback would be the callback's, and the server would go on.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
        await end.wait()


def make_application(names: Names, reading: Reading, port: int, token: str) -> tornado.web.Application:
    """What answers on a port of this machine to those who know the token."""
    settings: dict[str, Any] = {"names": names, "reading": reading, "token": token, "cookie": f"deflare-{port}"}
    settings |= {"hosts": [f"{host}:{port}" for host in (HOST, "localhost")], "log_function": lambda handler: None}
    return tornado.web.Application([("/socket", Tab), ("/(.*)", PageFile)], **settings)


def open_browser(address: str, folder: Path) -> None:
    """Open the address by a page in a folder of the user's own: the words of a command are for all to read."""
    page = folder / "open.html"
    page.write_text(f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">')
    webbrowser.open(page.as_uri())
