"""A headless Chromium driven over its DevTools protocol, and a JupyterLab of its own to open in it."""

from __future__ import annotations

import base64
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import websocket

from deflare_core.system.places import PROJECT_ROOT
from support.waiting import poll

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]

NOTEBOOK = "[...(globalThis.jupyterapp?.shell.widgets('main') ?? [])].find((widget) => widget.sessionContext)"
"""The open notebook, in the page's JavaScript."""


class PageLeft(AssertionError):
    """The page went before it had answered."""


class Lab:
    """A JupyterLab server on a free loopback port that serves one folder."""

    def __init__(self, folder: Path, theme: str = "JupyterLab Light"):
        self.folder, self.token = folder / "notebooks", secrets.token_hex(16)
        self.folder.mkdir(parents=True)
        self.settings = folder / "settings"
        self._write_setting("apputils-extension", "notification", fetchNews="false", checkForUpdates=False)
        self._write_setting("apputils-extension", "themes", theme=theme)
        self._write_setting("docmanager-extension", "plugin", autosave=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = (folder / "lab.log").open("wb")
        self.process = subprocess.Popen(
            self._command(), env=self._environment(folder), stdout=self.log, stderr=self.log
        )

    def _write_setting(self, extension: str, plugin: str, **values: Any) -> None:
        path = self.settings / "@jupyterlab" / extension / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def _command(self) -> list[str]:
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.folder,
            "IdentityProvider.token": self.token,
            "LabApp.expose_app_in_browser": True,
        }
        return [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"] + [
            f"--{name}={value}" for name, value in options.items()
        ]

    def _environment(self, folder: Path) -> dict[str, str]:
        own = {"CONFIG": "config", "RUNTIME": "runtime", "DATA": "data"}
        places = {f"JUPYTER_{name}_DIR": str(folder / place) for name, place in own.items()}
        lab = {"JUPYTERLAB_SETTINGS_DIR": str(self.settings), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
        return {**os.environ, **places, **lab, "PYTHONPATH": str(PROJECT_ROOT)}

    def url(self, notebook: str) -> str:
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}&reset"

    def wait(self) -> None:
        def answers() -> bool:
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api?token={self.token}").status == 200
            except OSError:
                return False

        poll(answers, "JupyterLab's first answer")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Page:
    """One browser page; `errors` collects the exceptions that its scripts did not catch."""

    def __init__(self, folder: Path, width: int = 1500, height: int = 1000):
        folder.mkdir(parents=True, exist_ok=True)
        options = [*QUIET, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([BINARY, *options], stdout=quiet, stderr=quiet)
        port_file = folder / "DevToolsActivePort"
        port = poll(lambda: port_file.exists() and port_file.read_text().split(), "Chromium's port")[0]
        targets = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
        address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        self.socket = websocket.create_connection(address, timeout=60)
        self.numbers = itertools.count(1)
        self.errors: list[dict] = []
        self.send("Runtime.enable")
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def send(self, method: str, **params: Any) -> dict:
        """The result of one DevTools command."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            if answer["method"] == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"])
        if "error" in answer:
            left = "navigated" in answer["error"]["message"]
            raise (PageLeft if left else AssertionError)(f"{method}: {answer['error']}")
        return answer["result"]

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        reply = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, f"{expression}: {reply['exceptionDetails']}"
        return reply["result"].get("value")

    def js_once_loaded(self, expression: str) -> Any:
        """The same, or nothing where the page is left for another, such as itself anew, before it answers."""
        try:
            return self.js(expression)
        except PageLeft:
            return None

    def wait(self, expression: str) -> Any:
        return poll(lambda: self.js_once_loaded(expression), expression)

    def open_and_run(self, lab: Lab, notebook: str) -> None:
        """Opens a notebook in JupyterLab and runs all its cells."""
        self.send("Page.navigate", url=lab.url(notebook))
        self.wait(f"{NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'")
        self.js(f"jupyterapp.shell.activateById({NOTEBOOK}.id)")
        self.js("jupyterapp.commands.execute('application:toggle-left-area').then(() => null)")
        self.js("jupyterapp.commands.execute('notebook:run-all-cells').then(() => null)")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        for kind in ("Pressed", "Released"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def key(self, key: str) -> None:
        # JupyterLab's shortcuts go by the key code, the viewer by the name.
        number = {"End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}.get(key) or ord(key.upper())
        code = {" ": "Space"}.get(key) or (f"Key{key.upper()}" if len(key) == 1 else key)
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, in CSS pixels of the window, scrolled into sight first."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{found}.scrollIntoView({{block: 'nearest'}})")
        return tuple(self.js(f"(b => [b.left, b.top, b.width, b.height])({found}.getBoundingClientRect())"))

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)
