"""The report as a reader meets it: opened in Chromium, followed by mouse and by keyboard."""

import shutil
from dataclasses import replace

import pytest
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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
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
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        open_all(opened)
        assert opened.execute_script("return document.documentElement.scrollWidth") == 390
        small = opened.execute_script(
            "return [...document.querySelectorAll('main *')]"
            ".filter(e => e.childNodes.length && !e.closest('svg'))"
            ".filter(e => parseFloat(getComputedStyle(e).fontSize) < 10).map(e => e.outerHTML)"
        )
        assert small == []
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_is_dark_where_the_reader_has_asked_for_dark(opened):
    def ground():
        colour = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour[4:-1].split(","))

    light = ground()
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        assert ground() < 100 < 600 < light
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


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
