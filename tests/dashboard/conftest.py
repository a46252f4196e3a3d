"""One browser for all tests of the site, and one site of a store with all that a store may hold."""

import shutil
from pathlib import Path

import pytest
from builders.rows import a_row
from builders.site_rows import HOSTILE, rows_of_all_kinds

from bench.compare.verdicts import Rules
from bench.dashboard.write import write
from bench.rows.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")


class Browser:
    """A headless Chromium that opens pages of a site and says what went wrong in them."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, hash="", width=1280, height=900):
        """Load a page anew in a window of that size, and wait until it is shown."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(f"{Path(page).as_uri()}{hash}")
        self.until("return document.querySelector('main .page, main .empty, main .error') !== null")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments, seconds=20):
        """Wait until a script returns something that is true, and return that."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.02).until(lambda _: self.run(script, *arguments))

    def text(self, selector="main"):
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def errors(self):
        """What the console said since the last call, but for notes of the graphics driver."""
        log = self.driver.get_log("browser")
        return [each["message"] for each in log if "GL Driver Message" not in each["message"]]

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    words = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"]
    for word in [*words, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    made = Browser(driver)
    made.downloads = downloads
    yield made
    driver.quit()


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    rows = rows_of_all_kinds()
    Store(folder / "2026-01-02").append(rows[:10])
    Store(folder / "2026-01-03").append(rows[10:])
    part = Store(folder / "2026-01-04").append([a_row(point_id="whole", latency_s=1.0, valid=True)])
    part.write_text(part.read_text() + '{"schema_version": 99}\n')
    return folder


@pytest.fixture(scope="session")
def site(store, tmp_path_factory):
    """index.html of the folder form."""
    pytest.importorskip("plotly")
    out = tmp_path_factory.mktemp("site") / "site"
    write(store, out, f"Night & day {HOSTILE}", Rules())
    return out / "index.html"
