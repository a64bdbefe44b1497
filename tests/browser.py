"""Chromium, driven by Playwright; the browser is the system's own and never fetched."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

LAB_SETTINGS = {  # all cells stay on the page, wherever it is scrolled to; no news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WIDE, NARROW = 1400, 390  # pixels: a desk's screen, a phone's
OPENS_S = 6  # of a core: three times what is aimed at, for slower machines than ours


@contextmanager
def start_chromium() -> Iterator[Browser]:
    "Start the system's Chromium; without one the test is skipped."
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    "A page, and all that went wrong on it."

    def __init__(self, browser: Browser, host: str = "", width: int = WIDE):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, reduced_motion="reduce"
        )
        self.host, self.troubles = host, []
        self.context.route("**/*", self.only_near)
        self.context.set_default_timeout(240_000)  # of a busy machine
        self.page: Page = self.context.new_page()
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on(
            "requestfailed", lambda told: self.troubles.append(f"failed: {told.url[:200]}")
        )

    def only_near(self, route) -> None:
        "Let files and the own host through; all else is a network that is cut."
        address = urlsplit(route.request.url)
        if address.scheme in ("file", "data", "blob") or self.host == address.netloc:
            route.continue_()
        else:
            route.abort()

    def hear(self, message) -> None:
        "Note an error on the console."
        if message.type == "error":
            self.troubles.append(f"console: {message.text[:300]}")

    def keep(self, name: str, folder: Path) -> Path:
        "Keep a picture of the page: in ASM_SCREENSHOTS, else in the test's own folder."
        folder = Path(os.environ.get("ASM_SCREENSHOTS") or folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{re.sub(r'[^a-z0-9-]+', '-', name.lower())}.png"
        self.page.screenshot(path=path, full_page=True)
        return path


def appears(locator: Locator, limit_s: float = 240) -> Locator:
    "Wait until something stands on the page; asking twice a second leaves it time to work."
    end = time.monotonic() + limit_s
    while not locator.count():
        assert time.monotonic() < end, f"{locator} did not appear within {limit_s:g} s"
        locator.page.wait_for_timeout(500)
    return locator


LOOK = """() => ({
    wide: document.documentElement.scrollWidth - window.innerWidth,
    images: [...document.images].map(image => ({
        source: image.currentSrc.slice(0, 80), alt: image.alt, width: image.clientWidth,
        height: image.clientHeight, own: image.naturalWidth}))})"""


def look_at_page(browser: Browser, path: Path, folder: Path) -> None:
    "Open a page of the report as a person does, on a desk and on a phone."
    for width in (WIDE, NARROW):
        watched = Watched(browser, width=width)
        session = watched.context.new_cdp_session(watched.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        watched.page.goto(path.as_uri(), wait_until="load")
        seen = watched.page.evaluate(LOOK)
        measured = session.send("Performance.getMetrics")["metrics"]
        busy_s = next(one["value"] for one in measured if one["name"] == "TaskDuration")
        watched.keep(f"{path.stem}-{width}", folder)
        where = f"{path.name} at {width} px"
        assert not watched.troubles, f"{where}: {watched.troubles}"
        assert seen["wide"] <= 0, f"{where} is {seen['wide']} px too wide"
        for image in seen["images"]:
            assert image["alt"].strip(), f"{where}: a figure without words: {image}"
            assert min(image["own"], image["width"], image["height"]) > 0, f"{where}: {image}"
        assert busy_s < OPENS_S, f"{where} keeps a core busy for {busy_s:.1f} s to open"
        watched.context.close()


def move_map(browser: Browser, path: Path, folder: Path) -> None:
    "Move a map's page and its threshold: the picture and the hectares change."
    watched = Watched(browser)
    page = watched.page
    page.goto(path.as_uri(), wait_until="load")
    slider, canvas = page.locator("input[type=range]"), page.locator("canvas").first
    before, told = canvas.screenshot(), page.locator("body").inner_text()
    slider.focus()
    slider.press("End")
    page.wait_for_function("told => document.body.innerText !== told", arg=told)
    hectares = [re.findall(r"([\d.,]+) ha", text) for text in (told, page.inner_text("body"))]
    assert all(hectares) and hectares[0] != hectares[1], hectares
    at_end = canvas.screenshot()
    assert at_end != before, "the threshold redraws nothing"
    box = canvas.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 80, middle[1] + 40, steps=4)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert canvas.screenshot() != at_end, "the map does not move"
    watched.keep(f"{path.stem}-moved", folder)
    assert not watched.troubles, watched.troubles
    watched.context.close()


class Lab:
    "JupyterLab on a free port, with a configuration of its own."

    def __init__(self, folder: Path, env: dict[str, str]):
        self.folder, home = folder, folder / "home"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        kept = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        kept += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
        own = {name: str(home / name) for name in kept}
        for name, values in LAB_SETTINGS.items():
            path = Path(
                own["JUPYTERLAB_SETTINGS_DIR"], f"@jupyterlab/{name}.jupyterlab-settings"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        words = ["--no-browser", "--allow-root", f"--port={self.host[10:]}", "--ip=127.0.0.1"]
        words += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
        words += ["--ServerApp.disable_check_xsrf=True", "--LabApp.news_url="]
        words += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        self.log = open(folder / "lab.log", "w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words], env=env | own, cwd=folder,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def wait(self, seconds: float = 300) -> None:
        "Wait until it answers."
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError):
                socket.create_connection(self.host.split(":"), timeout=1).close()
                return
            told = Path(self.log.name).read_text()
            assert self.process.poll() is None and time.monotonic() < end, told
            time.sleep(0.1)

    def close(self) -> None:
        "End the server and its kernels."
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
