#!/usr/bin/env python3
"""Opens report.html and the pages of `harness serve` in a headless Chromium and uses them.

    python3 scripts/check_report_html.py --harness target/release/harness [--runs 300] [--screenshots DIR]

Runs two cells of a grid of its own, copies them to --runs stored runs, puts markup into what records say, damages a
folder, makes the report, and then checks in the browser: markup stays text, no script but the page's own runs, nothing
is fetched from elsewhere, tables sort and filter, runs unfold. On the page that compares runs it clicks and types: runs are
chosen, their differences, losses and points drawn, the address holds all of it, and a thousand runs stand there within a second.
Needs Python and Chromium (`--chromium` names it), nothing else.
"""

import argparse
import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import compare_checks
from browser import Browser
from make_many_runs import fields_of, run_id

EVIL = "</pre><script>window.broken=1</script><img src=x onerror='window.broken=1'>"
GRID = """name = "made"
title = "A report to look at"
about = "Made by scripts/check_report_html.py."
[base]
arch = "resnet20"
bits = "W2A2"
calib-images = 32
recipe = {{ iterations = 20 }}
[axes]
method = ["metaaug", "rtn"]
seed = [{seeds}]
[variants.small]
transform = {{ base = 8, depth = 2, warmup-iterations = 20 }}
meta = {{ iterations = 4, batch = 16, outer-batch = 16 }}
[[exclude]]
"""

# Runs in the page after its own scripts; what it returns becomes an element that is read from the dumped page.
REPORT = """
const shown = () => [...document.querySelectorAll("#runs > tbody")].filter(body => !body.hidden);
const type = text => {
  const input = document.querySelector(".controls input");
  input.value = text;
  input.dispatchEvent(new Event("input"));
};
const first = column => shown()[0].rows[0].cells[column].textContent.trim();
const header = title => [...document.querySelectorAll("#runs thead th")].find(th => th.textContent === title);
const found = { scripts: document.scripts.length, images: document.querySelectorAll("img[src=x]").length,
  broken: window.broken === 1, all: shown().length, title: document.title,
  failedTable: document.querySelector("#failed ~ table").textContent };
header("seed").click();
found.lowest = first(header("seed").cellIndex);
header("seed").click();
found.highest = first(header("seed").cellIndex);
type("rtn");
found.filtered = shown().length;
type("warmup-iterations");
found.byConfiguration = shown().length;
type("");
const status = [...document.querySelectorAll(".controls select")].find(select => select.dataset.title === "status");
status.value = "=failed";
status.dispatchEvent(new Event("input"));
found.failed = shown().length;
status.value = "";
status.dispatchEvent(new Event("input"));
type("metaaug");
const body = shown().find(body => body.querySelector("svg"));
body.querySelector("button.fold").click();
const detail = body.rows[1];
found.unfolded = !detail.hidden && detail.getBoundingClientRect().height > 100;
found.curves = detail.querySelectorAll("svg path[d^=M]").length;
found.pictures = [...detail.querySelectorAll("img")].filter(img => img.naturalWidth > 0).length;
found.log = [...detail.querySelectorAll("pre")].some(pre => pre.textContent.includes("evaluation of"));
found.figures = [...document.querySelectorAll("figure > img")].every(img => img.complete && img.naturalWidth > 0);
found.wider = document.documentElement.scrollWidth > document.documentElement.clientWidth;
found;
"""


def run(command, folder, **options):
    return subprocess.run(command, cwd=folder, check=True, text=True, capture_output=True, **options).stdout


def make_results(harness, folder, count):
    """A grid of about `count` cells, of which two were run and the others are copies of them."""
    seeds = ", ".join(str(seed) for seed in range(max(2, count // 2)))
    grid = GRID.format(seeds=seeds).replace("[[exclude]]\n", "")
    (folder / "grid.toml").write_text(grid)
    run([harness, "run", "grid.toml", "--filter", "seed(0)", "--quiet"], folder)
    runs = folder / "results/made/runs"
    templates = {path.name.rsplit("-s0-", 1)[0]: path for path in runs.iterdir() if (path / "record.json").exists()}
    ids = re.findall(r"^\S+\s+(resnet20-\S+)", run([harness, "plan", "grid.toml"], folder), flags=re.M)
    assert len(ids) == 2 * max(2, count // 2), ids[:3]
    stored = []
    for index, planned in enumerate(ids):
        slug, seed = re.fullmatch(r"(.*)-s(\d+)-[0-9a-f]+", planned).groups()
        record = json.loads((templates[slug] / "record.json").read_text())
        record["cell"]["seed"] = int(seed)
        # The calibration images are those of seed 0, so the id is not the planned one.
        record["run_id"] = run_id(fields_of((templates[slug] / "cell.toml").read_text()) | {"seed": seed}, record)
        stored.append(record["run_id"])
        place = runs / record["run_id"]
        if place != templates[slug]:
            shutil.copytree(templates[slug], place)
        record["metrics"]["test_top1"] += 0.0001 * (index % 90)
        if index in (3, 4):
            record.update(status="failed", error=f"the loss became NaN {EVIL}", metrics=None)
        if index == 5:
            record["provenance"]["grid"] = record["provenance"]["device"] = EVIL
            (place / "log.txt").write_text(EVIL)
            (place / "notes.jsonl").write_text(json.dumps({"at_unix_s": 0, "note": EVIL, "add_tags": [EVIL]}) + "\n")
        (place / "record.json").write_text(json.dumps(record))
    broken = runs / "<script>window.broken=1<"
    broken.mkdir()
    (broken / "record.json").write_text('{"format": 1, "run')
    return stored


def browse(chromium, address, script=None, screenshot=None, size="1300,1600"):
    """The value of `script` in the page, or the dumped page."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}",
               "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=6000"]
    if screenshot:
        subprocess.run([*command, f"--screenshot={screenshot}", address], check=True, capture_output=True)
        return None
    dumped = subprocess.run([*command, "--dump-dom", address], check=True, capture_output=True, text=True).stdout
    if script is None:
        return dumped
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dumped, flags=re.S).group(1)))


def instrumented(page, target):
    """A copy of `page` that runs `REPORT` at its end and shows what it found."""
    probe = ("<script>addEventListener('securitypolicyviolation', event => (window.blocked ??= []).push(event.blockedURI));"
             "addEventListener('load', () => setTimeout(() => {const value = eval(" + json.dumps(REPORT).replace("</", "<\\/")
             + "); value.blocked = window.blocked ?? []; const pre = document.createElement('pre'); pre.id = 'found';"
             "pre.textContent = JSON.stringify(value); document.body.append(pre);}, 500));</script>")
    # The page's policy knows no eval: the copy allows it, and nothing else more.
    text = page.read_text().replace("script-src 'unsafe-inline'", "script-src 'unsafe-inline' 'unsafe-eval'", 1)
    target.write_text(text.replace("</body>", probe + "</body>"))
    return target


def check(name, actual, expected):
    verdict = "ok" if actual == expected else f"WRONG: expected {expected!r}"
    print(f"  {name}: {str(actual)[:150]!r} {verdict}")
    return actual == expected


def check_report(arguments, folder, ids):
    page = folder / "results/made/report.html"
    print(f"report.html of {len(ids)} runs: {page.stat().st_size / 1e6:.2f} MB")
    found = browse(arguments.chromium, instrumented(page, folder / "probe.html").as_uri(), script=REPORT)
    highest = str(len(ids) // 2 - 1)
    results = [
        check("scripts (the page's and this check's)", found["scripts"], 2),
        check("images that markup in records made", found["images"], 0),
        check("script of a record ran", found["broken"], False),
        check("requests that the policy stopped", found["blocked"], []),
        check("the error's markup is text", EVIL in found["failedTable"], True),
        check("runs", found["all"], len(ids)),
        check("sorted upwards", found["lowest"], "0"),
        check("sorted downwards", found["highest"], highest),
        check("filtered by method", found["filtered"], len(ids) // 2),
        check("filtered by configuration", found["byConfiguration"], len(ids) // 2),
        check("chosen by status", found["failed"], 2),
        check("a run unfolds", found["unfolded"], True),
        check("it has curves", found["curves"] > 10, True),
        check("it has pictures", found["pictures"], 1),
        check("it has a log", found["log"], True),
        check("all figures are drawn", found["figures"], True),
        check("the page is wider than the window", found["wider"], False),
    ]
    if arguments.screenshots:
        shots = pathlib.Path(arguments.screenshots)
        shots.mkdir(parents=True, exist_ok=True)
        browse(arguments.chromium, page.as_uri(), screenshot=shots / "report.png", size="1300,3200")
        browse(arguments.chromium, f"{page.as_uri()}#run-{ids[0]}", screenshot=shots / "run.png")
        browse(arguments.chromium, page.as_uri(), screenshot=shots / "narrow.png", size="500,1600")
    return results


def check_serve(arguments, folder, ids):
    server = subprocess.Popen([arguments.harness, "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+/", server.stdout.readline()).group(0)
        overview = browse(arguments.chromium, address)
        experiment = browse(arguments.chromium, f"{address}experiments/made")
        stored = browse(arguments.chromium, f"{address}experiments/made/report")
        one = browse(arguments.chromium, f"{address}experiments/made/runs/{ids[5]}")
        print(f"harness serve at {address}")
        results = [
            check("the overview lists the experiment", 'href="/experiments/made"' in overview, True),
            check("the tables' script ran", f">{len(ids)} of {len(ids)}</output>" in experiment, True),
            check("markup stays text", "<img src" in experiment + one, False),
            check("the report's own script runs", f">{len(ids)} of {len(ids)}</output>" in stored, True),
            check("the run page has its configuration", "warmup-iterations" in one or "iterations" in one, True),
        ]
        if arguments.screenshots:
            shots = pathlib.Path(arguments.screenshots)
            browse(arguments.chromium, address, screenshot=shots / "overview.png", size="1300,600")
            browse(arguments.chromium, f"{address}experiments/made", screenshot=shots / "experiment.png", size="1300,900")
            browse(arguments.chromium, f"{address}experiments/made/runs/{ids[0]}", screenshot=shots / "served-run.png")
        return results
    finally:
        server.terminate()
        server.wait()


def check_compare(arguments, folder, ids):
    """The page that compares runs; then the same with a thousand of them."""
    many = folder / "many"
    template = next(path for path in (folder / "results/made/runs").iterdir() if "-metaaug-small-s0-" in path.name)
    maker = pathlib.Path(__file__).with_name("make_many_runs.py")
    run([sys.executable, str(maker), str(template), str(many), "50"], folder)
    of_few = lambda browser, address: compare_checks.Page(browser, address, ids, EVIL).checks()
    return compare(arguments, folder, of_few, "compare") + compare(arguments, many, compare_checks.many, "compare-many")


def compare(arguments, folder, checks, picture):
    server = subprocess.Popen([arguments.harness, "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+/", server.stdout.readline()).group(0)
        print(f"{address}compare")
        with Browser(arguments.chromium) as browser:
            results = [check(*found) for found in checks(browser, address)]
            if arguments.screenshots:
                compare_checks.take_picture(browser, address, pathlib.Path(arguments.screenshots) / f"{picture}.png")
        return results
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", default="target/release/harness", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--screenshots", help="folder for pictures of the pages")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        ids = make_results(arguments.harness, folder, arguments.runs)
        run([arguments.harness, "report", "grid.toml", "--quiet"], folder)
        results = check_report(arguments, folder, ids) + check_serve(arguments, folder, ids) + check_compare(arguments, folder, ids)
    print("all as it should be" if all(results) else "some are wrong")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
