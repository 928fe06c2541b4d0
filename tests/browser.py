"""A notebook in JupyterLab in Chromium: started here, on this machine, for one test."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "for-this-test-only"
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
"""As root in a container Chromium runs only without its sandbox; the others keep it from calling home by itself."""

SETTINGS: dict[str, dict[str, object]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
"""No question about news that covers the page; all cells are in the page, also those that one must scroll to."""

RESTORED = """async () => {
    await window.jupyterapp.restored;
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
}"""
STATE = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
    .filter(cell => cell.type === 'code')
    .map(cell => ({
        done: cell.executionCount !== null && cell.executionState !== 'running',
        errors: Array.from({length: cell.outputs.length}, (_, i) => cell.outputs.get(i).toJSON())
            .filter(output => output.output_type === 'error').map(output => output.evalue),
    }))"""


def find_chromium() -> str:
    """The browser on this machine; the test is skipped where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("there is no Chromium on this machine")


@dataclass
class Visit:
    """A page and what happened on it."""

    page: Page
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium without a window."""
    path = find_chromium()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # milliseconds; a busy machine answers late
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield chromium
        finally:
            chromium.close()


def visit(chromium: Browser) -> Visit:
    """Open an empty page that notes every request to another machine and every error of a script."""
    seen = Visit(chromium.new_page(viewport={"width": 1300, "height": 1000}))

    def note(url: str) -> None:
        if urlsplit(url).hostname not in (None, "127.0.0.1", "localhost"):
            seen.elsewhere.append(url)

    seen.page.on("request", lambda request: note(request.url))
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    return seen


@contextmanager
def jupyterlab(folder: Path, scratch: Path, patience: float = 60) -> Iterator[str]:
    """Serve a folder with JupyterLab on a free port; its settings and workspaces lie in `scratch`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = [
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    places = {f"JUPYTERLAB_{name}_DIR": str(scratch / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    places |= {"JUPYTER_CONFIG_DIR": str(scratch / "config"), "IPYTHONDIR": str(scratch / "ipython")}
    places |= {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "JUPYTER_PREFER_ENV_PATH": "1"}
    for name, setting in SETTINGS.items():
        path = scratch / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting))
    with (scratch / "lab.log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=os.environ | places, stdout=log, stderr=log)
        try:
            _wait_for(f"{address}/api/status?token={TOKEN}", server, patience)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes], patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab does not answer; it ended with {server.poll()}")


def open_notebook(page: Page, address: str, name: str) -> None:
    """Open a notebook and wait until its kernel is there."""
    page.goto(f"{address}/lab/tree/{name}?reset&token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=60_000)
    page.evaluate(RESTORED)


def run_all(page: Page, patience: float = 120) -> None:
    """Run all cells; the notebook's model is asked when they are done, since not all cells are in the page."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        cells = page.evaluate(STATE)
        errors = [error for cell in cells for error in cell["errors"]]
        assert not errors, errors
        if all(cell["done"] for cell in cells):
            return
        time.sleep(0.1)
    raise AssertionError("the notebook did not come to its end")


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """A notebook of code cells for the kernel that every Jupyter has."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(cells)]
    nbformat.write(notebook, path)
