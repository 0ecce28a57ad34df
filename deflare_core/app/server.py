"""The server of an app: one notebook, run once by one kernel, for the user who started it alone.

voila alone answers everyone on the machine, runs the notebook again for each request, and leaves a kernel of 500 MB
each time, even where the picture tag of a foreign page makes the request. Here a request needs the token in the app's
address, or the cookie that it sets, and must be for this machine by name; all tabs look at one run.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

import tornado.web
from jupyter_server import DEFAULT_STATIC_FILES_PATH
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.static_file_handler import AllowListFileHandler
from voila.tornado.handler import TornadoVoilaHandler

COOKIE = {"samesite": "Strict"}
"""No request that a foreign page makes brings the cookie."""


class OnePage(TornadoVoilaHandler):
    """The page of the notebook: the first request runs it, further ones get the same page of the same kernel."""

    def initialize(self, **settings: Any) -> None:
        """Take what all requests share: whose turn it is to make the page, and its pieces."""
        self.turn: asyncio.Lock = settings.pop("turn")
        self.pieces: list[str] = settings.pop("pieces")
        super().initialize(**settings)

    @tornado.web.authenticated
    async def get(self, path: str | None = None) -> None:
        """Send the page, a piece at a time while it is made."""
        if path:
            raise tornado.web.HTTPError(404)
        async with self.turn:
            if not await self._is_run():
                await self.kernel_manager.shutdown_all(now=True)
                self.pieces.clear()
                async for piece in self.get_generator():
                    self.pieces.append(piece)
                    self.write(piece)
                    self.flush()
                return
        self.set_header("Content-Type", "text/html")
        self.finish("".join(self.pieces))

    async def _is_run(self) -> bool:
        kernels = self.kernel_manager.list_kernel_ids()
        return bool(self.pieces and kernels) and await self.kernel_manager.get_kernel(kernels[0]).is_alive()


class KeptKernel(VoilaShutdownKernelHandler):
    """The answer to a page that closes and asks for its kernel's end: other tabs use it, it ends with the server."""

    def check_xsrf_cookie(self) -> None:
        """Nothing is asked, for nothing is done."""

    @tornado.web.authenticated
    async def post(self, kernel_id: str) -> None:
        """Say that all is well."""
        self.set_status(204)


OURS = {TornadoVoilaHandler: OnePage, VoilaShutdownKernelHandler: KeptKernel}
"""What answers in the place of voila's own."""


class Server(Voila):
    """voila, with one page behind a token."""

    def initialize(self, argv: list[str] | None = None) -> None:
        """Read the options of voila, and set what no option may change."""
        super().initialize(argv)
        self.ip, self.port_retries = "127.0.0.1", 0
        self.token = secrets.token_urlsafe(24)
        self.config.IdentityProvider.cookie_options = COOKIE
        # A kernel that died would be started again, without what the notebook has made in it.
        self.config.KernelManager.autorestart = False
        # Its sockets are files in a folder of the user's own, not ports that all on the machine can reach.
        self.config.KernelManager.transport = "ipc"
        self.tornado_settings = {
            "allow_remote_access": False,
            "static_path": DEFAULT_STATIC_FILES_PATH,  # Pages that say what is refused need it.
        }

    def init_handlers(self) -> list[Any]:
        """What answers each address: pictures beside the notebook are not served."""
        rules: list[Any] = []
        for address, handler, *settings in super().init_handlers():
            if handler is TornadoVoilaHandler:
                settings[0] |= {"turn": asyncio.Lock(), "pieces": []}
            if handler is not AllowListFileHandler:
                rules.append((address, OURS.get(handler, handler), *settings))
        return rules

    @property
    def display_url(self) -> str:
        """The address to open, with the token."""
        return f"{self.connection_url}?token={self.token}"

    def launch_browser(self) -> None:
        """Open the address in a browser by a page that only its user can read: all can read the words of a command."""
        page = Path(self.connection_dir, "open.html")
        page.write_text(f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={self.display_url}">')
        threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()


if __name__ == "__main__":
    Server.launch_instance(sys.argv[1:])
