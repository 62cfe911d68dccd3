# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The report in a browser: it draws, asks the network for nothing, and its controls move it."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

websocket = pytest.importorskip("websocket", reason="needs websocket-client to drive a browser")
pytest.importorskip("polars")

from lightning_losses.dashboard.report.page import Page, render  # noqa: E402
from lightning_losses.dashboard.report.write import write_report  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"
    ),
]
FLAGS = [
    "--headless",
    "--no-sandbox",  # CI runs as root in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


class Browser:
    """A tab, driven by the DevTools protocol; keeps requests and what the console said."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60)
        self.count = 0
        self.requests: list[str] = []
        self.console: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result; events that come before it are kept."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.keep(message)

    def keep(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(params["args"]))

    def run(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path, width: int = 1200) -> None:
        """Load a file, and wait until it says that it is drawn."""
        self.requests.clear()
        self.console.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.send("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete'")

    def wait(self, condition: str) -> None:
        """Until a condition holds, a minute at most."""
        deadline = time.monotonic() + 60
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"still not: {condition}"
            time.sleep(0.05)

    def press(self, selector: str, key: str, code: int, times: int = 1) -> None:
        """Keys on an element, as a person presses them."""
        self.run(f"document.querySelector({selector!r}).focus()")
        for kind in ("keyDown", "keyUp") * times:
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    profile = tmp_path_factory.mktemp("profile")
    environment = {**os.environ, "HOME": str(profile)}
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        port = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not port.exists() or not port.read_text().strip():
            assert process.poll() is None, "chromium ended at once"
            assert time.monotonic() < deadline, "chromium did not open its port in a minute"
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        with urllib.request.urlopen(url, timeout=30) as answer:
            tabs = json.load(answer)
        yield Browser(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with curves of every kind, two epochs of reliability, two steps of attention."""
    run = tmp_path_factory.mktemp("run")
    rows: list[dict[str, Any]] = []
    for step in range(40):
        loss = 2.3 * math.exp(-step / 15) + 0.1 * (step % 2)
        row = {"epoch": step // 20, "step": step, "train/loss": loss, "train_accuracy": step / 40}
        row |= {"train/loss/ce": loss, "train/loss/a_term_with_a_rather_long_name": loss}
        if step % 4 == 0:
            row |= {"entropy/mean": loss, "entropy/p10": loss / 2, "entropy/p90": loss * 1.2}
            row |= {"entropy/alert": int(step > 20), "step_radius/r": 2 / (step + 1)}
            row |= {"entropy/rows": 50}
        rows.append(row)
        if step % 20 == 19:
            rows.append({"epoch": step // 20, "step": step, "val/loss": loss + 0.1})
    write(run / "metrics.csv", rows)
    bins = [
        {"stage": "val", "epoch": epoch, "lower": b / 10, "upper": (b + 1) / 10, "count": b}
        | {"confidence": b / 10 + 0.05, "accuracy": b / 10 + 0.02 * epoch}
        for epoch in range(2)
        for b in range(10)
    ]
    write(run / "reliability.csv", bins)
    heads = [
        {"step": step, "layer": f"encoder.layers.{layer}.attention", "head": head}
        | {"entropy_fraction": head / 4}
        for step in (0, 20)
        for layer in range(3)
        for head in range(4)
    ]
    write(run / "attention_entropy.csv", heads)
    plane = [
        {"epoch": epoch, "layer": layer, "itx": 3 - epoch / 3, "ity": epoch}
        for epoch in range(3)
        for layer in ("conv1", "head")
    ]
    write(run / "information_plane.csv", plane)
    return write_report([run])


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_it_draws_and_nothing_leaves(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.run("document.body.dataset.drawn") == "yes"
    # Folded ones are drawn when they are opened.
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    browser.wait("[...document.querySelectorAll('.chart')].every(one => one.querySelector('svg'))")
    count = browser.run("document.querySelectorAll('.chart').length")
    marked = "[...document.querySelectorAll('.chart')].filter(one => one.querySelector("
    assert count >= 9
    assert browser.run(f"{marked}'.curve, .bar, .cell, circle')).length") == count
    assert browser.run("document.body.innerHTML.includes('NaN,')") is False
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.as_uri()]


def test_the_policy_forbids_requests(browser: Browser, tmp_path: Path) -> None:
    """Without this the test above could not see a request: here one is made, and refused."""
    html = render(Page("x", "y", [], []), [], [])
    path = tmp_path / "page.html"
    outside = '<img src="http://127.0.0.1:9/x.png"><form action="http://127.0.0.1:9/"></form>'
    path.write_text(html.replace("</body>", f"{outside}</body>"))
    browser.open(path)
    browser.wait("true")
    browser.run("document.forms[1].submit()")
    browser.run("new Promise(done => setTimeout(done, 300))")
    said = " ".join(browser.console)
    assert "img-src" in said
    assert "form-action" in said
    assert not any("127.0.0.1:9" in url for url in browser.requests if "x.png" not in url)


def test_the_slider_moves(browser: Browser, report: Path) -> None:
    browser.open(report)
    frame = "#chart-reliability input[type=range]"
    said = "document.querySelector('#chart-reliability .caption').textContent"
    assert "epoch 1" in browser.run(said)
    bars = "document.querySelector('#chart-reliability .bar').outerHTML"
    before = browser.run(bars)
    browser.press(frame, "ArrowLeft", 37)
    assert "epoch 0" in browser.run(said)
    assert browser.run(bars) != before
    browser.press(frame, "ArrowRight", 39)
    assert "epoch 1" in browser.run(said)
    assert browser.run(bars) == before


def test_smoothing_axis_and_cursor_are_shared(browser: Browser, report: Path) -> None:
    browser.open(report)
    raw = "document.querySelectorAll('.curve.raw').length"
    assert browser.run(raw) == 0
    browser.press("input[name=smooth]", "ArrowRight", 39, times=5)
    assert browser.run("document.querySelector('output').textContent") == "0.05"
    assert browser.run(raw) > 3
    ends = "[...document.querySelectorAll('#chart-loss svg text')].map(one => one.textContent)"
    assert "step" in browser.run(ends)
    browser.run("document.querySelector('input[value=epoch]').click()")
    assert "epoch" in browser.run(ends)
    assert browser.run("document.querySelector('input[value=time]').closest('label').hidden")
    browser.run("document.querySelector('input[value=step]').click()")
    box = browser.run(
        "(() => { const svg = document.querySelector('#chart-loss svg'); svg.scrollIntoView();"
        " const { x, y, width, height } = svg.getBoundingClientRect();"
        " return [x, y, width, height]; })()"
    )
    place = {"x": box[0] + box[2] / 2, "y": box[1] + box[3] / 2}
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", **place)
    browser.wait("document.querySelector('#chart-loss .readout').textContent.startsWith('step')")
    steps = browser.run(
        "[...document.querySelectorAll('.readout')].filter(one => one.clientWidth)"
        ".map(one => one.firstChild.textContent)"
    )
    assert len(steps) >= 4
    assert len(set(steps)) == 1


@pytest.mark.parametrize("width", [400, 800, 1200])
def test_nothing_is_clipped(browser: Browser, report: Path, width: int) -> None:
    """No title is wider than its card, no word in a chart reaches out of it, nothing scrolls."""
    browser.open(report, width)
    browser.wait(
        "[...document.querySelectorAll('.chart svg')].every(one => !one.clientWidth || "
        "one.viewBox.baseVal.width === one.parentNode.clientWidth)"
    )
    assert browser.run("document.scrollingElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('h1,h2,h3,li,p')].filter(one => one.scrollWidth > "
    assert browser.run(f"{wide}one.clientWidth + 1).map(one => one.textContent)") == []
    outside = browser.run(
        "[...document.querySelectorAll('.chart svg text')].filter(one => {"
        " const box = one.getBoundingClientRect();"
        " const card = one.closest('.card').getBoundingClientRect();"
        " return box.width && (box.left < card.left || box.right > card.right); })"
        ".map(one => one.textContent)"
    )
    assert outside == []


def test_a_run_has_one_colour_in_every_chart(browser: Browser, tmp_path: Path) -> None:
    for name, more in (("a", {}), ("b", {"val_accuracy": 0.5})):
        rows = [
            {"step": at, "train/loss": at} | {k: v + at for k, v in more.items()} for at in (0, 1)
        ]
        write(tmp_path / name / "metrics.csv", rows)
    browser.open(write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out"))
    strokes = "[...document.querySelectorAll('%s .curve')].map(one => one.style.stroke)"
    assert browser.run(strokes % "#chart-train-loss") == ["var(--c1)", "var(--c0)"]
    assert browser.run(strokes % "#chart-val_accuracy") == ["var(--c1)"]


def test_curves_that_are_the_same_are_both_seen(browser: Browser, report: Path) -> None:
    browser.open(report)
    dashed = "document.querySelectorAll('#chart-terms .curve[stroke-dasharray=\"7 7\"]').length"
    assert browser.run(dashed) == 1
    text = browser.run("document.querySelector('#chart-terms figcaption').textContent")
    assert text == "train/loss/a_term_with_a_rather_long_name and train/loss/ce are the same"
