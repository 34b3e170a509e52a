"""The page in a real browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from peewit.runs.run import Run

FLAGS = [
    # CI runs as root, in a container with little shared memory
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    # no requests to the vendor's servers
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
TITLE = "图片分类"
DROP = """(target, [name, type, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  target.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""
PASTE = """([type, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "shot.png", { type }));
  dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
}"""
TIMEOUT = 60_000  # milliseconds: enough on a busy machine


@pytest.fixture(scope="module")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = str(tmp_path_factory.mktemp("browser"))
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=chromium,
            args=FLAGS,
            timeout=2 * TIMEOUT,
            env={**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home},
        )


@pytest.fixture(scope="module")
def url(served: Run, start: Callable[..., Any]) -> str:
    """Return the URL of a server."""
    return str(start(served.path).url)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a function that opens pages in separate contexts; fail if one had an error."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_page(address: str, locale: str = "en-US") -> Page:
        contexts.append(browser.new_context(locale=locale))
        contexts[-1].set_default_timeout(TIMEOUT)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.extend(violations(message.text)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def violations(message: str) -> list[str]:
    """Return the console message if it reports a violation of the page's security policy."""
    return [message] if "Content Security Policy" in message else []


def test_drop_a_picture_and_switch_the_language(
    visit: Callable[..., Page], url: str, encode: Callable[..., bytes]
) -> None:
    page = visit(url)
    expect(page.locator("#accuracy")).to_contain_text("30 test images")
    page.locator("#take").evaluate(DROP, ["bright.png", "image/png", list(encode(230))])
    card = page.locator(".card[aria-busy=false]")
    expect(card).to_have_count(1)
    shares = card.locator("ol .share").all_inner_texts()
    assert len(shares) == 3
    assert sum(float(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=0.2)
    expect(card.locator("canvas")).to_have_count(2)
    expect(page.get_by_role("status")).to_contain_text("bright.png")
    page.get_by_label("Show heat maps").uncheck()
    expect(card.locator("canvas")).to_have_count(1)
    page.get_by_role("button", name="中文").click()
    expect(page.locator("h1")).to_have_text(TITLE)
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.reload()
    expect(page.locator("h1")).to_have_text(TITLE)


def test_paste(visit: Callable[..., Page], url: str, encode: Callable[..., bytes]) -> None:
    page = visit(url)
    page.evaluate(PASTE, ["image/png", list(encode(10))])
    expect(page.locator(".card[aria-busy=false]")).to_contain_text("shot.png")


def test_chinese_if_the_browser_prefers_it(
    visit: Callable[..., Page], url: str, tmp_path: Path
) -> None:
    page = visit(url, "zh-CN")
    expect(page.locator("h1")).to_have_text(TITLE)
    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#files", tmp_path / "notes.txt")
    expect(page.locator(".card.failed")).to_contain_text("不支持该图片格式")


def test_files_that_are_not_pictures_among_good_ones(
    visit: Callable[..., Page], url: str, encode: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "good.png").write_bytes(encode(10))
    (tmp_path / "cut.png").write_bytes(encode(10)[:60])
    page = visit(url)
    page.set_input_files(
        "#files", [tmp_path / name for name in ("notes.txt", "good.png", "cut.png")]
    )
    expect(page.locator(".card[aria-busy=false]")).to_have_count(3)
    failed = page.locator(".card.failed")
    message = failed.filter(has_text="notes.txt").locator("p:not(.file)")
    expect(message).to_contain_text("cannot read notes.txt")
    expect(failed.filter(has_text="cut.png")).to_have_count(1)
    good = page.locator(".card:not(.failed)")
    expect(good.locator(".file")).to_have_text("good.png")
    expect(good.locator("ol .share")).to_have_count(3)


def test_keyboard_and_camera(visit: Callable[..., Page], url: str) -> None:
    page = visit(url)
    expect(page.locator("#model")).to_be_visible()
    page.locator("#files").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("#camera-take")).to_be_enabled()
    page.locator("#camera-take").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".card[aria-busy=false]:not(.failed)")).to_have_count(1)


def test_the_server_stops_and_restarts(
    visit: Callable[..., Page],
    served: Run,
    start: Callable[..., Any],
    encode: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    server = start(served.path)
    page = visit(server.url)
    expect(page.locator("#model")).to_be_visible()
    assert server.stop() == 0
    late, lost = tmp_path / "late.png", tmp_path / "lost.png"
    late.write_bytes(encode(10))
    lost.write_bytes(encode(10))
    page.set_input_files("#files", [late, lost])
    expect(page.locator("#offline")).to_contain_text("The server is not responding")
    lost.unlink()
    start(served.path, server.port)
    expect(page.locator(".card[aria-busy=false]")).to_have_count(2)
    expect(page.locator(".card:not(.failed) .file")).to_have_text("late.png")
    # an unreadable file is not retried as if the server were offline
    expect(page.locator(".card.failed")).to_contain_text("no longer exists")
    expect(page.locator("#offline")).to_be_hidden()


def test_more_pictures_than_the_page_shows(visit: Callable[..., Page], url: str) -> None:
    page = visit(url)
    page.route("**/api/predict*", lambda route: route.fulfill(status=429))
    page.locator("#take").evaluate(
        """(target) => {
          const transfer = new DataTransfer();
          for (let i = 0; i < 203; i += 1) transfer.items.add(new File(["x"], `${i}.png`));
          target.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        }"""
    )
    expect(page.locator(".card")).to_have_count(200)
    expect(page.locator("#most")).to_have_text("Showing at most 200 pictures; 3 left out.")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".card")).to_have_count(0)


def test_previews_are_scaled_down(visit: Callable[..., Page], url: str, tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1000), "green").save(tmp_path / "large.png")
    page = visit(url)
    page.set_input_files("#files", tmp_path / "large.png")
    canvas = page.locator(".card[aria-busy=false] canvas").first
    expect(canvas).to_have_attribute("width", "480")
    expect(canvas).to_have_attribute("height", "240")


def test_the_api_page_loads_nothing_from_other_hosts(visit: Callable[..., Page], url: str) -> None:
    page = visit(url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url + "docs")
    expect(page.locator("section h2")).to_have_count(4)
    assert asked
    assert all(address.startswith(url) for address in asked)
