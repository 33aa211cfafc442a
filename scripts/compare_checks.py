"""What scripts/check_report_html.py checks of the page of `harness serve` that compares runs, in a browser that clicks and
types. Each check is a name, what was found, and what should be.
"""

import json
import urllib.parse

ROWS = "document.querySelectorAll('#runs tbody tr[data-run]').length"
CHOSEN = "document.querySelectorAll('#chosen .long li a').length"
# All that a page shows, to be compared with what its address shows again.
VIEW = """[document.getElementById("filter").value, document.querySelector("#runs thead").textContent,
    document.querySelector("#runs th[aria-sort]")?.textContent, document.querySelector("#runs tbody").textContent,
    document.getElementById("chosen").textContent, document.getElementById("curves").innerHTML,
    document.getElementById("points").innerHTML, document.getElementById("ylog").checked]"""


class Page:
    """The page that compares the runs `ids` of experiment `made`, whose sixth one has the text `evil` wherever a record has room for it."""

    def __init__(self, browser, address, ids, evil):
        self.browser, self.address, self.ids, self.evil = browser, address, ids, evil

    def count(self, selector):
        return self.browser.value(f"document.querySelectorAll({json.dumps(selector)}).length")

    def text(self, selector):
        return self.browser.value(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")

    def comes(self, expression):
        return self.browser.wait(expression) is not None

    def checks(self):
        for part in (self.filters, self.choice, self.figures, self.link, self.markup, self.way_here, self.what_happened):
            yield from part()

    def filters(self):
        browser = self.browser
        found = browser.open(f"{self.address}compare", until=f"{ROWS} === {len(self.ids)}")
        yield "all runs are in the table", found is not None, True
        browser.type("#filter", "method(metaaug | rtn) & seed(<=1)")
        yield "a filter narrows them", self.comes(f"{ROWS} === 4"), True
        browser.type("#filter", "metod(rtn)")
        yield "a wrong filter is refused", self.comes("!document.getElementById('problem').hidden"), True
        yield "the wrong place is marked", self.text("#problem mark"), "metod"
        yield "its position is told", "(character 1)" in self.text("#problem"), True
        yield "the remedy is told", "did you mean method?" in self.text("#problem"), True
        yield "what was shown stays", browser.value(ROWS), 4
        browser.type("#filter", "method(none-such)")
        yield "a filter that nothing matches says why", self.comes(f"{ROWS} === 0"), True
        yield "and what there is", "none has method(none-such)" in self.text("#runs tbody"), True
        browser.type("#filter", "seed(<=1)")
        yield "a right one clears that", self.comes(f"{ROWS} === 4"), True

    def choice(self):
        browser = self.browser
        browser.click("#runs tbody tr:nth-child(1) input")
        yield "a run is chosen by a click", self.comes(f"{CHOSEN} === 1"), True
        browser.value("document.querySelector('#runs tbody tr:nth-child(1) input').focus()")
        browser.press("ArrowDown", 40)
        browser.press("ArrowDown", 40)
        browser.press(" ", 32)
        yield "another by the keyboard", self.comes(f"{CHOSEN} === 2"), True
        differing = browser.value("[...document.querySelectorAll('#chosen tbody:first-of-type th')].map(th => th.textContent)")
        yield "the method differs", "method" in differing, True
        yield "the network does not", "arch" in differing, False
        yield "each has a column beside the keys", self.count("#chosen thead th"), 3
        yield "the losses of the one that has any are drawn", self.count("#curves path.curve[d^=M]"), 1
        browser.click("#runs tbody tr:nth-child(2) input")
        yield "a third one adds a curve", self.comes(f"{CHOSEN} === 3") and self.count("#curves path.curve[d^=M]"), 2

    def figures(self):
        yield "each run is a point", self.count("#points a .point"), 4
        yield "the chosen ones are marked", self.count("#points .point.chosen"), 3
        yield "a point tells of its run", "wall s: " in self.text("#points a title"), True
        link = self.browser.value("document.querySelector('#points a').getAttribute('href')")
        yield "and leads to it", link.startswith("/experiments/made/runs/resnet20-"), True

    def link(self):
        browser = self.browser
        for selector, value in [("#unit", "layer1.0"), ("#phase", "meta"), ("#colour", "seed"), ("#x", "cpu")]:
            browser.select(selector, value)
        browser.click("#ylog")
        browser.click("#runs th[data-key=test]")
        browser.click("#chooser summary")
        browser.value("[...document.querySelectorAll('#chooser label')].find(label => label.textContent.trim() === 'memory').click()")
        yield "a chosen column is shown", self.count("#runs th[data-key=memory]"), 1
        before, held = browser.value(VIEW), browser.value("location.href")
        browser.open("about:blank")
        browser.open(held, until=f"{CHOSEN} === 3 && document.querySelector('#points svg')")
        yield "the address shows the same again", browser.value(VIEW) == before, True
        names = sorted(urllib.parse.parse_qs(urllib.parse.urlsplit(held).query))
        yield "it holds the choice", names, ["colour", "column", "filter", "phase", "run", "sort", "unit", "x", "ylog"]
        yield "the page is wider than the window", browser.value("document.documentElement.scrollWidth > innerWidth"), False

    def markup(self):
        query = urllib.parse.urlencode({"run": f"made/{self.ids[5]}", "column": "note", "colour": "device"})
        self.browser.open(f"{self.address}compare?{query}", until=f"{CHOSEN} === 1 && document.querySelector('#points svg')")
        yield "markup in records is text", self.evil in self.text("#runs") and self.evil in self.text("#points"), True
        yield "images that markup in records made", self.count("img"), 0
        yield "script of a record ran", self.browser.value("window.broken === 1"), False
        gone = urllib.parse.urlencode([("run", "made/gone"), ("run", f"made/{self.ids[0]}")])
        self.browser.open(f"{self.address}compare?{gone}", until=f"{CHOSEN} === 1")
        yield "a run that is gone is named", "made/gone is not stored any more" in self.text("#chosen"), True

    def way_here(self):
        self.browser.open(f"{self.address}experiments/made")
        self.browser.click("nav a[href^='/compare']")
        there = self.comes(f"location.pathname === '/compare' && {ROWS} === {len(self.ids)}")
        yield "an experiment's page leads to its runs", there, True

    def what_happened(self):
        browser = self.browser
        elsewhere = [url for url in browser.requests if not url.startswith(self.address) and url != "about:blank"]
        yield "requests to elsewhere", elsewhere, []
        yield "errors, and what the policy stopped", browser.problems, []


def many(browser, address):
    """How long the page takes with a thousand runs, from the question to a table that is laid out; the best of three."""
    shown = f"{ROWS} === 1000 && document.getElementById('runs').offsetHeight > 1000"
    took = []
    for _ in range(3):
        browser.open("about:blank")
        took.append(browser.open(f"{address}compare", until=shown))
    print("  seconds until a thousand runs were there:", ", ".join("never" if time is None else f"{time:.2f}" for time in took))
    best = min((time for time in took if time is not None), default=None)
    yield "within a second", best is not None and best < 1, True


def take_picture(browser, address, path):
    """The page with ten chosen runs."""
    browser.open(f"{address}compare", until=f"{ROWS} > 1")
    runs = browser.value("[...document.querySelectorAll('#runs tbody tr:not(.failed)')].map(tr => tr.dataset.run)")
    ten = urllib.parse.urlencode([("run", run) for run in runs[:: max(1, len(runs) // 10)][:10]])
    browser.open(f"{address}compare?{ten}", until=f"{CHOSEN} > 1 && {ROWS} > 1 && document.querySelector('#points svg')")
    browser.screenshot(path)
