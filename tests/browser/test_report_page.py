"""A report in a real browser: narrow, wide and printed, light and dark; `make browser` writes or names it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from smoothness.report.write import write_page
from tests.report.test_slices import run_with_slices

pytestmark = pytest.mark.browser

REPORT = Path(os.environ.get("REPORT", Path(__file__).parents[2] / "runs" / "activation-ablation-report"))
AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options)
    yield driver
    driver.quit()


def show(
    browser: webdriver.Chrome, width: int = 1280, theme: str = "light", media: str = "screen", page: Path | None = None
) -> None:
    page = page or REPORT / "index.html"
    assert page.is_file(), "no report there: make demo, or name one in REPORT"
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    # On a busy machine the page before may still answer.
    arrived = f"return document.readyState === 'complete' && document.URL === '{page.as_uri()}'"
    WebDriverWait(browser, 60).until(lambda shown: shown.execute_script(arrived))


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_said_on_the_console_and_nothing_is_requested(browser, width):
    show(browser, width)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {(REPORT / "index.html").as_uri()}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_does_not_scroll_sideways(browser, width):
    show(browser, width)
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth") <= browser.execute_script(f"return {root}.clientWidth")
    small = browser.execute_script(
        "return Array.from(document.querySelectorAll('p, li, td, th, figcaption'))"
        ".filter(e => e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 11).length"
    )
    assert small == 0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, width, theme):
    """Contrast of at least 4.5 is one of its rules."""
    show(browser, width, theme)
    assert serious(browser) == []


def serious(browser: webdriver.Chrome) -> list[tuple[str, str]]:
    browser.execute_script(AXE)
    found = browser.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run(document).then(done, e => done({error: String(e)}));"
    )
    assert "error" not in found, found
    passed = {rule["id"] for rule in found["passes"]}
    assert "color-contrast" in passed
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"] if v["impact"] != "minor"]


def column(table: WebElement, index: int) -> list[str]:
    rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
    return [r.find_elements(By.CSS_SELECTOR, "th, td")[index].text for r in rows if r.is_displayed()]


def test_tables_sort_and_filter(browser):
    show(browser)
    table = browser.find_element(By.CSS_SELECTOR, "#summary table.data")
    heads = table.find_elements(By.CSS_SELECTOR, "thead th")
    index = next(i for i, head in enumerate(heads) if head.text.startswith("clean accuracy"))
    for direction in ("ascending", "descending"):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", heads[index])
        heads[index].find_element(By.TAG_NAME, "button").click()
        assert heads[index].get_attribute("aria-sort") == direction
        values = [float(text.split()[0]) for text in column(table, index)]
        assert values == sorted(values, reverse=direction == "descending")
    box = browser.find_element(By.CSS_SELECTOR, "#summary input[type=search]")
    box.send_keys("mlp gelu")
    assert len(column(table, 0)) == 1
    assert browser.find_element(By.CSS_SELECTOR, "#summary [role=status]").text.startswith("1 of ")
    box.clear()
    box.send_keys("<script>")
    assert column(table, 0) == []


def test_downloads_hold_what_lies_beside_the_page(browser):
    show(browser)
    links = browser.find_elements(By.CSS_SELECTOR, "#downloads a[download]")
    assert {link.get_attribute("download") for link in links} == {"results.csv", "results.parquet", "results.tex"}
    for link in links:
        data = base64.b64decode(link.get_attribute("href").partition(",")[2])
        assert data == (REPORT / link.get_attribute("download")).read_bytes()
    figures = browser.find_elements(By.CSS_SELECTOR, "figure a[download$='.svg']")
    assert len(figures) == len(list((REPORT / "figures").glob("*.svg")))
    for link in figures:
        data = base64.b64decode(link.get_attribute("href").partition(",")[2])
        assert data == (REPORT / "figures" / link.get_attribute("download")).read_bytes()


def test_examples_are_shown(browser):
    show(browser)
    pictures = browser.find_elements(By.CSS_SELECTOR, "#gallery img")
    assert pictures
    assert all(browser.execute_script("return arguments[0].naturalWidth > 0", picture) for picture in pictures[:12])


def film_page(folder: Path) -> Path:
    """A report of a small made-up run with one film of three places."""
    run, examples = run_with_slices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run), "examples", lambda self, label: examples.get(label, {}))
        return write_page(run, [], folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film_page(tmp_path_factory.mktemp("film"))


def shown(browser: webdriver.Chrome) -> list[bool]:
    return [frame.is_displayed() for frame in browser.find_elements(By.CSS_SELECTOR, ".film .frame")]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_moves_the_film(browser, film, width):
    show(browser, width, page=film)
    assert shown(browser) == [True, False, False]
    slider = browser.find_element(By.CSS_SELECTOR, ".film input[type=range]")
    assert slider.accessible_name.startswith("Film 1")
    now = browser.find_element(By.CSS_SELECTOR, ".film output")
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'}); arguments[0].focus()", slider
    )
    for key, place, name in (
        (Keys.ARROW_RIGHT, 1, "σ = 0.5"), (Keys.END, 2, "σ = 0 (relu itself)"), (Keys.HOME, 0, "σ = 2")
    ):  # fmt: skip
        slider.send_keys(key)
        assert shown(browser) == [k == place for k in range(3)]
        assert now.text == slider.get_attribute("aria-valuetext") == name
    pictures = browser.find_elements(By.CSS_SELECTOR, ".film .frame.now img")
    assert [browser.execute_script("return arguments[0].naturalWidth", picture) for picture in pictures] == [444, 444]
    assert all(p.rect["x"] + p.rect["width"] <= width for p in pictures)


def test_the_film_plays_to_its_end_and_stops(browser, film):
    show(browser, page=film)
    play = browser.find_element(By.CSS_SELECTOR, ".film button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", play)
    play.click()
    assert play.text == "Pause"
    play.click()
    assert play.text == "Play"
    play.click()
    WebDriverWait(browser, 10).until(lambda _: shown(browser) == [False, False, True])
    assert play.text == "Play"
    play.click()  # from its end it starts again
    assert shown(browser) == [True, False, False]
    play.click()


def test_without_script_and_on_paper_all_pictures_stand(browser, film):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page=film)
        assert shown(browser) == [True] * 3
        assert not browser.find_elements(By.CSS_SELECTOR, ".film input, .film button")
        labels = [p.text for p in browser.find_elements(By.CSS_SELECTOR, ".film .frame p")]
        assert labels == ["σ = 2", "σ = 0.5", "σ = 0 (relu itself)"]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    show(browser, width=688, media="print", page=film)
    assert shown(browser) == [True] * 3
    assert not browser.find_element(By.CSS_SELECTOR, ".film input").is_displayed()
    images = browser.find_elements(By.CSS_SELECTOR, ".film img")
    assert max(image.rect["x"] + image.rect["width"] for image in images) <= 689


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_about_the_film(browser, film, theme):
    show(browser, 1280, theme, page=film)
    assert serious(browser) == []


def test_printed_it_keeps_within_the_paper(browser):
    show(browser, width=688, media="print")  # A4 within its margins, at 96 dots an inch
    over = browser.execute_script(
        "return Array.from(document.querySelectorAll('table, figure, .film, pre, p'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.tagName + ': ' + e.textContent.trim().slice(0, 60))"
    )
    assert over == []
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert len(base64.b64decode(pdf)) > 50_000
