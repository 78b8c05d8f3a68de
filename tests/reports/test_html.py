"""The HTML file: whole, safe, small, and the same in a browser as on paper."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from gradverify.records.case import Case, tally
from gradverify.records.finding import Gradient
from gradverify.records.run import Run, from_json, to_json
from gradverify.reports import plots
from gradverify.reports.html import html
from tests.reports import runs
from tests.reports.test_formats import RUNS, hostile, many

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
TRUE = tuple(float(k) - 7.5 for k in range(20))
TWICE = Gradient(argument="w", shape=(4, 5), analytic=tuple(2 * t for t in TRUE), numeric=TRUE, error=(1e-12,) * 20)
CURVE = tuple((4.0**-k, 1e-3 * 16.0**-k + 1e-16 * 4.0**k) for k in range(20))
FRAME = ((51, "    dz = g"), (52, "    return dz @ w.T, 2 * (x.T @ dz)"))
REPRO = "import torch\nfrom mypkg.ops import FusedLinear\nprint(1 < 2)"
TRIED = tally(
    Case(spec="s", claim="vjp", dims=(("b", (k, 3)), ("n", k % 4)), layouts=(("x", "sliced"),)) for k in range(40)
)

VOID = {"meta", "link", "br", "img", "input", "hr"}


@cache
def shown(count: int) -> str:
    return html(illustrated(count) if count else runs.PASSING)


def illustrated(count: int = 1) -> Run:
    finding = replace(
        runs.WRONG_SCALE,
        gradient=TWICE,
        curve=CURVE,
        frame=FRAME,
        caret=("52 |     return dz @ w.T, 2 * (x.T @ dz)",),
        location=replace(runs.WRONG_SCALE.location, col=22, end_col=36),
        replay_id="7f3a2c",
        repro=REPRO,
    )
    wrong = replace(runs.VJP_FAIL, finding=finding, tried=TRIED)
    return runs.run(*(runs.op(wrong, runs.passed("linear"), spec=f"op_{k}") for k in range(count)))


class Page(HTMLParser):
    """Elements with their attributes, the text, and what is not closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [a[name] or "" for _, a in self.elements if name in a]


@pytest.fixture(params=[*RUNS, "illustrated"])
def run(request: pytest.FixtureRequest) -> Run:
    return illustrated() if request.param == "illustrated" else RUNS[request.param]


def test_the_file_is_a_pure_function_of_the_json(run: Run) -> None:
    assert html(from_json(to_json(run))) == html(run)


def test_elements_are_closed_ids_are_unique_and_links_lead_somewhere(run: Run) -> None:
    page = Page(html(run))
    assert (page.wrong, page.open) == ([], [])
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {h[1:] for h in page.attributes("href") if h.startswith("#")} <= set(ids)
    assert set(page.attributes("data-copy")) <= set(ids)


def test_nothing_is_loaded_and_nothing_but_ours_is_run(run: Run) -> None:
    page = Page(html(run))
    assert [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "img")] == []
    assert page.attributes("src") == []
    assert [a.get("type") for tag, a in page.elements if tag == "script"] == ["application/json", None]
    assert [name for _, a in page.elements for name in a if name.startswith("on")] == []
    assert all(h.startswith("#") for name in ("href", "xlink:href") for h in page.attributes(name))
    assert "default-src 'none'" in " ".join(page.attributes("content"))


def test_the_json_is_embedded_whole(run: Run) -> None:
    embedded = re.search(r'<script type="application/json" id="run">(.*?)</script>', html(run), re.DOTALL)[1]
    assert json.loads(embedded) == json.loads(to_json(run))


def test_a_finding_has_its_block_its_source_its_figures_and_its_commands() -> None:
    text = html(illustrated())
    page = Page(text)
    assert "gradverify: FAIL" in page.text
    assert "smallest case x (1,1) w (1,1) cotangent (1,1)" in page.text
    assert page.text.count("52 | return dz @ w.T, 2 * (x.T @ dz)") == 1
    assert text.count('<span class="here">   52 |     return dz @ w.T, <mark>2 * (x.T @ dz)</mark>') == 1
    assert "gradient of w: returned against true, slope 2 " in page.text
    labels = page.attributes("aria-label")
    assert any("slope 2" in label for label in labels)
    assert any("error of central differences" in label for label in labels)
    assert (
        "below it like 1/h (round-off, or a jump), above it like h^2 (truncation); used: h = 5e-04 ... 1e-03"
        in page.text
    )
    assert "[3, 4]: returned 23, true 11.5" in page.attributes("title")


def test_what_is_there_to_be_copied_is_whole_and_has_a_button() -> None:
    text = html(illustrated())
    page = Page(text)
    copied = [text.partition(f'<code id="{name}">')[2].partition("</code>")[0] for name in page.attributes("data-copy")]
    assert [unescape(each) for each in copied] == [REPRO, "gradverify replay 7f3a2c"]
    buttons = [a["aria-label"] for tag, a in page.elements if tag == "button"]
    assert buttons == ["copy: the same without gradverify", "copy: the same case again"]
    assert page.text.count("import torch") == 1


def test_a_cell_of_the_matrix_leads_to_its_finding_and_says_what_it_is() -> None:
    page = Page(html(runs.MIXED))
    cells = {a["href"]: a["aria-label"] for tag, a in page.elements if tag == "a" and "aria-label" in a}
    assert [name.strip("#0123456789") for name in cells] == ["f", "e", "f", "w", "f"]
    assert any(label.startswith("mypkg.ops:FusedLinear, vjp: FAIL GV199") for label in cells.values())
    assert "What holds, with a remark float32_inside vjp[cpu-float64] GV602" in page.text


def test_the_inputs_that_were_tried_are_counted() -> None:
    page = Page(html(illustrated()))
    assert re.search(r"size n\s*0\s*10\s*1\s*10\s*2\s*10\s*3\s*10", page.text)
    assert re.search(r"layout\s*sliced\s*40", page.text)
    assert "and 28 more" in page.text


def test_what_was_not_verified_is_listed() -> None:
    assert "jvp, vmap: not a claim yet" in Page(html(runs.PASSING)).text
    assert "cuda: no device" in Page(html(runs.PASSING)).text


def test_without_matplotlib_the_numbers_stand_in_for_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    page = Page(html(illustrated()))
    assert [tag for tag, _ in page.elements if tag == "svg"] == []
    assert "[3, 4]" in page.text
    assert re.search(r"step h\s*error\s*1\.0e\+00\s*1\.0e-03", page.text)


def test_figures_are_the_same_each_time_and_take_the_colour_of_the_text() -> None:
    one, two = (plots.curve(CURVE, (0.25,), prefix="f0") for _ in range(2))
    assert one == two
    assert "currentColor" in one
    assert not re.search(r"<dc:date>|#010203|#000000", one)


def test_names_are_shown_and_do_nothing() -> None:
    page = Page(html(hostile()))
    assert "<script>alert(1)</script>" in page.text
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 2


def test_many_failures_with_figures_stay_below_two_megabytes() -> None:
    assert len(shown(200).encode()) < 2_000_000


PROBE = """<iframe id="page" src="{page}" width="{width}" height="900"></iframe><pre id="said"></pre><script>
onload = () => {{
  const inside = document.getElementById("page").contentWindow, root = inside.document.documentElement;
  const style = inside.getComputedStyle(inside.document.body);
  const shown = (e) => e.getClientRects().length > 0 && e.getBoundingClientRect().width > 0;
  const count = (q) => [...inside.document.querySelectorAll(q)].filter(shown).length;
  document.getElementById("said").textContent = JSON.stringify({{
    overflow: root.scrollWidth - root.clientWidth, rows: count(".matrix tbody tr"), findings: count(".finding"),
    open: count(".finding[open]"), figures: count("figure svg"), words: inside.document.body.innerText,
    ink: style.color, page: style.backgroundColor,
  }});
}};
</script>"""


def in_chromium(folder: Path, *flags: str) -> str:
    """What Chromium has of folder/probe.html once its scripts have run."""
    common = ("--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *common, *flags, profile, "--virtual-time-budget=5000", (folder / "probe.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return Page(dom[dom.index('<pre id="said">') : dom.index("<script>")]).text


KEYS = """<iframe id="page" src="report.html" width="1280" height="900"></iframe><pre id="said"></pre><script>
onload = () => {
  const inside = document.getElementById("page").contentWindow, all = (q) => [...inside.document.querySelectorAll(q)];
  const named = (e) => (e.getAttribute("aria-label") || e.title || e.textContent).trim() !== "";
  const long = (e) => e.scrollWidth > e.clientWidth + 1;
  const scrolls = (e) => long(e) && ["auto", "scroll"].includes(inside.getComputedStyle(e).overflowX);
  const reached = (e) => e.tabIndex >= 0 || e.querySelector("a, button, [tabindex]") !== null;
  for (const each of all("details")) each.open = true;
  const link = inside.document.querySelector(".matrix td a");
  link.focus();
  document.getElementById("said").textContent = JSON.stringify({
    nameless: all("a, button, summary, [role=img], table:not(.numbers), [tabindex]").filter((e) => !named(e)).length,
    stuck: all("*").filter((e) => scrolls(e) && !reached(e)).map((e) => e.outerHTML.slice(0, 80)),
    focused: inside.document.activeElement === link,
    outline: inside.getComputedStyle(link).outlineStyle,
    headings: all("h1, h2, h3, h4").map((e) => Number(e.tagName[1])),
  });
};
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_all_is_reached_by_keys_and_has_a_name_for_readers_of_screens(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(shown(1), encoding="utf-8")
    (tmp_path / "probe.html").write_text(KEYS, encoding="utf-8")
    said = json.loads(in_chromium(tmp_path))
    assert (said["nameless"], said["stuck"], said["focused"]) == (0, [], True)
    assert all(b - a <= 1 for a, b in zip(said["headings"], said["headings"][1:], strict=False))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
@pytest.mark.parametrize("count", [0, 1, 200])
def test_in_a_browser_all_is_seen_and_nothing_hangs_over(tmp_path: Path, count: int, width: int, scheme: str) -> None:
    (tmp_path / "report.html").write_text(shown(count), encoding="utf-8")
    (tmp_path / "probe.html").write_text(PROBE.format(page="report.html", width=width), encoding="utf-8")
    said = json.loads(in_chromium(tmp_path, f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"))
    assert said["overflow"] <= 0
    assert (said["rows"], said["findings"]) == (2 if count == 0 else count, count)
    assert said["open"] == min(count, 10)
    assert said["figures"] == 2 * min(count, 10)
    assert ("Nothing is wrong" in said["words"]) is (count == 0)
    dark = [sum(map(int, re.findall(r"\d+", said[name])[:3])) for name in ("page", "ink")]
    assert (dark[0] < dark[1]) is (scheme == "dark")


def test_the_many_are_all_there() -> None:
    page = Page(html(many(200)))
    assert (
        len([1 for tag, a in page.elements if tag == "details" and (a.get("class") or "").startswith("finding")]) == 200
    )
