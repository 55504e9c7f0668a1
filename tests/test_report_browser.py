"""The report as a reader meets it: opened in Chromium, followed by mouse and by keyboard.

Pictures of it are kept in ``tests/pictures``, which CI keeps as an artifact.
"""

import base64
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.measured import six_environments
from fakes.runs import erratum, failed, parted, passed, skipped, trained, write
from selenium.webdriver.support.ui import WebDriverWait

from refimpl.report.columns import columns
from refimpl.report.model import report
from refimpl.report.render import page

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: refimpl[test]")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(not DRIVER, reason="needs chromedriver: apt-get install chromium-driver"),
    pytest.mark.xdist_group("browser"),
]

PICTURES = Path(__file__).parent / "pictures"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"

OPTIONS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses to start as root, which containers run as, with it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A report with something of everything, plugins that mean harm among it."""
    folder = tmp_path_factory.mktemp("report")
    hostile = replace(failed(f"evil{HOSTILE}", reason=HOSTILE), question=HOSTILE, details=HOSTILE)
    known = replace(failed("autograd", reason="known"), outcome="xfailed")
    told = {"documents": {hostile.example: {"title": HOSTILE, "document": HOSTILE}}}
    many = [passed("mnist-logistic", f"check-{n}") for n in range(40)]
    new = write(
        folder, "new", passed(), parted(), skipped(), trained(), erratum(), known, hostile, *many,
        **told,
    )  # fmt: skip
    other = write(folder, "other", passed(), ends=False, packages={"torch": "2.13.0"})
    old = write(folder, "old", passed(), trained(values=(0.9, 0.5, 0.41)))
    made = report(columns([new, other], ["py313-torch23"]), columns([old]))
    path = folder / "report.html"
    path.write_text(page(made), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, address):
    """The browser at the top of the report; nothing may have been complained of when it is left."""
    browser.get("about:blank")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []


def find(browser, selector):
    return browser.find_element("css selector", selector)


def find_all(browser, selector):
    return browser.find_elements("css selector", selector)


def open_all(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")


@contextmanager
def emulated(browser, screen, scheme="light"):
    """The browser as it is on this screen, with this colour scheme."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def in_view(browser, element):
    box = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", element)
    return 0 <= box["top"] < browser.execute_script("return innerHeight")


def test_the_first_screen_has_the_verdict_and_what_changed_and_then_what_was_run(opened):
    assert find(opened, "h1").text.endswith("does what the documents say in 0 of 2 environments")
    assert "Of 3 environments: 1 incomplete, 1 not run." in find(opened, "header").text
    assert "1 figure moved" in find(opened, "header").text
    assert in_view(opened, find(opened, "#findings"))
    assert "not run" in find(opened, ".on-what").text
    assert "incomplete" in find(opened, ".on-what").text


def test_a_click_on_a_cell_opens_its_checks(opened):
    cell = find(opened, "td.failed a")
    target = opened.find_element("id", cell.get_attribute("href").split("#")[1])
    assert target.get_attribute("open") is None
    cell.click()
    # The page opens it when it hears of the new anchor.
    WebDriverWait(opened, 10).until(lambda _: target.get_attribute("open") is not None)
    assert in_view(opened, target)
    checks = target.find_element("css selector", "table.checks")
    assert checks.is_displayed()
    assert [th.text for th in checks.find_elements("css selector", "thead th")] == [
        "Check", "Figure", "Limit", "Time"]  # fmt: skip


def test_a_cell_that_was_closed_again_opens_at_the_next_click(opened):
    cell = find(opened, "td.failed a")
    target = opened.find_element("id", cell.get_attribute("href").split("#")[1])
    cell.click()
    target.find_element("css selector", "summary").click()
    assert target.get_attribute("open") is None
    opened.execute_script("arguments[0].scrollIntoView()", cell)
    cell.click()
    # The page opens it when it hears of the new anchor.
    WebDriverWait(opened, 10).until(lambda _: target.get_attribute("open") is not None)


def test_whoever_is_sent_a_link_to_a_cell_finds_it_open(browser, address, opened):
    anchor = find(opened, "td.failed a").get_attribute("href").split("#")[1]
    browser.get("about:blank")
    browser.get(f"{address}#{anchor}")
    assert browser.find_element("id", anchor).get_attribute("open") is not None


def test_the_keyboard_reaches_the_matrix_and_opens_a_cell(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(key):
        ActionChains(opened).send_keys(key).perform()

    press(Keys.TAB)
    skip = opened.switch_to.active_element
    assert skip.get_attribute("class") == "skip"
    assert in_view(opened, skip)
    press(Keys.ENTER)
    for _ in range(8):
        press(Keys.TAB)
        active = opened.switch_to.active_element
        if active.tag_name == "a" and ".in-" in active.get_attribute("href"):
            break
    assert active.value_of_css_property("outline-style") == "solid"
    target = opened.find_element("id", active.get_attribute("href").split("#")[1])
    press(Keys.ENTER)
    assert target.get_attribute("open") is not None
    assert opened.switch_to.active_element.tag_name == "summary"


def test_what_a_plugin_says_is_shown_and_does_nothing(opened):
    open_all(opened)
    assert opened.execute_script("return window.hacked") is None
    assert HOSTILE in find(opened, "main").text
    assert find_all(opened, "img") == []


def test_even_a_script_that_got_in_would_not_run(browser, address):
    browser.get(address)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 3';"
        "document.body.append(s)"
    )
    assert browser.execute_script("return window.hacked") is None
    (refusal,) = browser.get_log("browser")
    assert "Content Security Policy" in refusal["message"]


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    with emulated(opened, PHONE):
        open_all(opened)
        assert opened.execute_script("return document.documentElement.scrollWidth") == 390
        small = opened.execute_script(
            "return [...document.querySelectorAll('main *')]"
            ".filter(e => e.childNodes.length && !e.closest('svg'))"
            ".filter(e => parseFloat(getComputedStyle(e).fontSize) < 10).map(e => e.outerHTML)"
        )
        assert small == []


def test_it_is_dark_where_the_reader_has_asked_for_dark(opened):
    def ground():
        colour = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour[4:-1].split(","))

    light = ground()
    with emulated(opened, DESKTOP, "dark"):
        assert ground() < 100 < 600 < light


def test_every_drawing_is_drawn(opened):
    lines = find_all(opened, "svg .line path")
    assert lines
    for line in lines:
        assert opened.execute_script("return arguments[0].getTotalLength()", line) > 20


def test_a_screen_reader_hears_what_a_cell_is(opened):
    cell = find(opened, "td.failed a")
    assert "2 failed" in cell.accessible_name or "1 failed" in cell.accessible_name
    assert " in Python 3.11 · torch 2.14.1 · cpu: " in cell.accessible_name
    open_all(opened)
    assert all(region.accessible_name for region in find_all(opened, "[role=region]"))
    assert all(image.accessible_name for image in find_all(opened, "svg"))


def test_the_keyboard_alone_reaches_the_command_of_a_finding_and_copies_it(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for _ in range(12):
        ActionChains(opened).send_keys(Keys.TAB).perform()
        active = opened.switch_to.active_element
        if active.get_attribute("class") == "copy":
            break
    command = active.find_element("xpath", "preceding-sibling::code").text
    assert command.startswith("refimpl ")
    ActionChains(opened).send_keys(Keys.ENTER).perform()
    opened.execute_async_script("setTimeout(arguments[0], 200)")
    assert active.text == "Copied"


def test_the_filter_leaves_what_is_looked_for(opened):
    from selenium.webdriver.support.select import Select

    def shown():
        return [a.find_element("css selector", "h3").text for a in find_all(opened, "article")
                if a.is_displayed()]  # fmt: skip

    everything = shown()
    find(opened, "#filter-text").send_keys("mnist check-7")
    assert shown() == ["mnist-logistic"]
    assert find(opened, "#filter-count").text == "1 check"
    rows = [row for row in find_all(opened, "article tr[id]") if row.is_displayed()]
    assert [row.get_attribute("id") for row in rows] == [
        "check.mnist-logistic.script.check-7.cpu.stand-in"
    ]
    find(opened, "#filter-text").clear()
    opened.execute_script("document.getElementById('filter-text').dispatchEvent("
                          "new Event('input', { bubbles: true }))")  # fmt: skip
    assert shown() == everything
    Select(find(opened, "#filter-state")).select_by_value("failed")
    assert "mnist-logistic" not in shown()
    assert any(name.startswith("evil") for name in shown())


def test_a_link_from_a_finding_leads_to_its_open_check(opened):
    find(opened, ".findings details summary").click()
    link = find(opened, ".findings details a")
    link.click()
    target = opened.find_element("id", link.get_attribute("href").split("#")[1])
    assert target.is_displayed()
    assert in_view(opened, target)


# --- whole runs in six environments --------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of whole runs in six environments: one failed, one was cut off."""
    folder = tmp_path_factory.mktemp("six")
    path = folder / "report.html"
    path.write_text(page(report(columns(six_environments(folder)))), encoding="utf-8")
    return path


@pytest.fixture
def six(browser, whole):
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get(whole.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def test_the_page_of_six_environments_is_small_and_opens_in_a_second(browser, whole):
    assert whole.stat().st_size <= 1.5e6
    took = []
    for _ in range(3):  # whatever else this machine does
        browser.get("about:blank")
        browser.get(whole.as_uri())
        took.append(browser.execute_script(
            "return performance.getEntriesByType('navigation')[0].loadEventEnd"
        ))  # fmt: skip
    assert 0 < min(took) < 1000, took


def test_no_request_leaves_the_page(six, whole):
    open_all(six)
    find(six, "#filter-text").send_keys("titanic")
    events = [json.loads(entry["message"])["message"] for entry in six.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events
            if e["method"] == "Network.requestWillBeSent"]  # fmt: skip
    assert [url for url in sent if not url.startswith("about:")] == [whole.as_uri()]


def test_what_failed_and_what_was_cut_off_is_on_the_first_screen(six):
    assert find(six, "h1").text.endswith("does what the documents say in 4 of 6 environments")
    assert "Of 6 environments: 1 incomplete." in find(six, "header").text
    named = find(six, ".findings li")
    assert in_view(six, named)
    assert "parameters is 650, expected 651" in named.text
    assert "py312-torch214.jsonl has no footer" in find(six, ".on-what").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "screen"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_each_screen_shows_it_and_a_picture_is_kept(six, name, screen, scheme):
    with emulated(six, screen, scheme):
        width, shown = six.execute_script(
            "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
        )
        assert width == shown
        assert contrast(six, "h1") > 7
        assert contrast(six, ".findings li") > 4.5
        assert contrast(six, ".note") > 4.5
        data = six.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    PICTURES.mkdir(exist_ok=True)
    picture = PICTURES / f"report-{name}-{scheme}.png"
    picture.write_bytes(base64.b64decode(data))
    assert picture.stat().st_size > 20_000


def contrast(browser, selector):
    """How much lighter the text is than its ground, or the ground than the text, as WCAG counts."""
    return browser.execute_script(
        """
        const light = (text) => {
          const part = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
        };
        const own = document.querySelector(arguments[0]);
        let ground = own;
        while (ground && /, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor)) {
          ground = ground.parentElement;
        }
        const both = [getComputedStyle(own).color, getComputedStyle(ground).backgroundColor];
        const [a, b] = both.map(light).sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
        """,
        selector,
    )
