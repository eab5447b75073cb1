"""A JupyterLab and a Chromium of their own, for test_in_browser.py and for benchmarks/latency.py."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page, sync_playwright

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
START, RUN = 60_000, 300_000  # ms that JupyterLab and a notebook in profile smoke may take


def installed() -> str | None:
    """The path of the system's browser, if there is one; root in CI installs Debian's."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if not found and os.environ.get("CI") == "true" and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=True, stdout=subprocess.DEVNULL)
        return shutil.which("chromium")
    return found


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """The browser at this path, running."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextlib.contextmanager
def jupyterlab(root: Path, cells: list[str], as_by_make: bool = True) -> Iterator[str]:
    """Address of a JupyterLab in a new folder: `.format(name)` opens a notebook; no setting of the user's is touched.

    It holds the course's notebooks, to be run in the profile smoke, and one named `cells` of these cells. as_by_make:
    with the settings of `make lab`.
    """
    (root / "notebooks").mkdir()
    (root / "settings").mkdir()
    if as_by_make:
        makefile = (NOTEBOOKS.parent / "Makefile").read_text(encoding="utf-8")
        (root / "settings" / "overrides.json").write_text(re.search(r"echo '(\{.*\})' > \$@", makefile)[1])
    for source in (NOTEBOOKS / "source").glob("*.md"):
        book = nbformat.read(NOTEBOOKS / f"{source.stem}.ipynb", as_version=4)
        for cell in book.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace('profile: str = "quick"', 'profile: str = "smoke"')
        nbformat.write(book, root / "notebooks" / f"{source.stem}.ipynb")
    book.cells = [nbformat.v4.new_code_cell(own) for own in cells]  # the kernel's name is that of the course's
    nbformat.write(book, root / "notebooks" / "cells.ipynb")
    folders = [f"JUPYTER{own}_DIR" for own in ("_CONFIG", "_DATA", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")]
    tracker = root / "JUPYTERLAB_SETTINGS_DIR/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}')  # else cells that are out of sight are not in the page
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root"]
    options += ["--IdentityProvider.token=secret", "--expose-app-in-browser", "--LabApp.news_url="]
    options += [f"--LabApp.app_settings_dir={root / 'settings'}"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root}"]
    environment = os.environ | {name: str(root / name) for name in [*folders, "IPYTHONDIR"]}
    with open(root / "server.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2):
                break
            assert server.poll() is None, (root / "server.log").read_text()
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}.ipynb?token=secret"
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:  # how fast a server leaves a busy machine is no test of the course
            server.kill()  # its kernels end themselves once it is gone
            server.wait()


def open_notebook(page: Page, address: str) -> None:
    """Open a notebook and wait for its kernel, by JupyterLab's own promises."""
    page.goto(address)
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook").wait_for(timeout=START)
    page.set_default_timeout(20_000)
    page.evaluate("""async () => {
        const app = window.jupyterapp; await app.restored;
        const panel = app.shell.currentWidget;
        await panel.context.ready; await panel.sessionContext.ready;
        await panel.sessionContext.session.kernel.info;
    }""")


def run_cells(page: Page) -> list[str]:
    """Run all cells of the open notebook, and return their errors."""
    return page.evaluate(
        """async limit => {
        const app = window.jupyterapp, panel = app.shell.currentWidget;
        const late = new Promise((_, reject) => setTimeout(() => reject(Error('the run takes too long')), limit));
        await Promise.race([late, app.commands.execute('notebook:run-all-cells')]);
        return panel.content.model.sharedModel.cells.flatMap(cell => cell.cell_type === 'code' ?
            cell.outputs.filter(own => own.output_type === 'error').map(own => own.ename + ': ' + own.evalue) : []);
    }""",
        RUN,
    )


def run_all(page: Page, address: str) -> list[str]:
    """Open a notebook, run all its cells, and return their errors."""
    open_notebook(page, address)
    return run_cells(page)


def command(page: Page, name: str) -> None:
    """Run one of JupyterLab's commands to its end."""
    page.evaluate("name => window.jupyterapp.commands.execute(name)", name)
