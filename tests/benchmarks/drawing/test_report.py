"""The page: well-formed, complete, in need of nothing, and made of text only where a file has its say."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from jukebox_deploy.benchmarks.drawing.markup import Markup, join, printable, tag
from jukebox_deploy.benchmarks.drawing.report import by_machine, report_html, write_report
from jukebox_deploy.engines.installed_gpus import Gpu
from jukebox_deploy.quantities import NOT_MEASURED
from tests.benchmarks.benchmark_documents import MACHINE, RUN, WIDE_RUN, hostile_run

VOID = {"meta"}
X = "\N{MULTIPLICATION SIGN}"


class Page(HTMLParser):
    """A page as a tree's leaves: tags, attributes, and text by the innermost element that is no `span`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.tags[name] += 1
        self.attributes += [(key, value or "") for key, value in attributes]
        if name not in VOID:
            self.open.append(name)
        if name == "tr":
            self.rows.append([])
        if name in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, name, attributes):
        self.handle_starttag(name, attributes)
        if name not in VOID:
            self.open.pop()

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data + " " * (self.open[-1] != "span")

    def of(self, name):
        return [text for parent, text in self.texts if parent == name]


@pytest.fixture(scope="module")
def source():
    return report_html(by_machine({"first": RUN, "second": WIDE_RUN}))


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_every_workload_has_a_table_and_every_variant_a_row(page):
    results = [*RUN.results, *WIDE_RUN.results]
    assert page.tags["h3"] == len(results)
    sweeps = 2
    assert page.tags["table"] == len(results) + sweeps
    assert page.tags["svg"] == page.tags["figure"] == 3 + sweeps
    for name in {variant.name for result in results for variant in result.variants}:
        assert name in page.of("th")


def test_a_row_has_what_was_measured_and_dashes(page):
    rows = {row[0].strip(): row[1:] for row in page.rows if len(row) == 16}
    assert " ".join(cell.split()[0] for cell in rows["onnxruntime fp32"]) == (
        f"8.00 4.00{X} 2.00{X} 80 125 150 p99 250 500 {NOT_MEASURED} 2 0.980 0.0200 1.00 10.0"
    )
    assert "7.92 to 8.08" in rows["onnxruntime fp32"][0]
    assert rows["eager-static fp32"][9].strip() == "3.00 GB"


def test_the_card_tells_the_machine_and_each_run(page):
    facts = dict(zip(page.of("dt"), [text for text in page.of("dd") if text], strict=False))
    assert facts["cores"] == "2"
    assert "torch 2.13.0" in facts["versions"]
    assert page.of("code") == ["jukebox-deploy bench run"] * 2
    assert page.of("dt").count("run") == 2


def test_the_card_tells_the_gpus_that_there_are(page):
    assert "GPU" not in page.of("dt")
    gpus = (Gpu("NVIDIA L4", 24_000_000_000, "8.9", "550.54"), Gpu("NVIDIA GB10", None, "9.0", None))
    shown = Page(report_html(by_machine({"run.json": replace(RUN, machine=replace(MACHINE, gpus=gpus))})))
    told = "NVIDIA L4, 24.0 GB, compute capability 8.9, driver 550.54; NVIDIA GB10, \N{EN DASH}, compute capability 9.0"
    assert told in shown.of("dd")


def test_it_needs_nothing_else(source, page):
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    links = [value for key, value in page.attributes if key in ("src", "href", "action")]
    assert all(value.startswith("#") for value in links)
    assert "http" not in source
    assert "@import" not in source
    assert all(value.startswith("url(#") for value in re.findall(r"url\([^)]*", source))


def test_it_fits_a_phone_and_knows_the_dark(source, page):
    assert ("content", "width=device-width, initial-scale=1") in page.attributes
    assert "prefers-color-scheme: dark" in source
    scrolling = [value for key, value in page.attributes if (key, value) == ("class", "scroll")]
    assert len(scrolling) == page.tags["table"]


def test_every_id_is_there_once_and_every_reference_leads_to_one(source, page):
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', source)) <= set(ids)


def test_pictures_have_words(page):
    labels = [value for key, value in page.attributes if key == "aria-label"]
    for title in page.of("strong"):
        assert title in labels


def test_notes_are_beneath_the_table(page):
    assert "onnxruntime fp32, int8 weights: calibrated" in page.of("li")


def test_rounds_that_differ_much_are_told_beneath_the_table():
    first, *others = RUN.results
    engine = replace(first.variants[0], units_per_second=(9.0, 8.0, 10.0, 11.0, 12.0))
    disturbed = replace(RUN, results=(replace(first, variants=(engine, *first.variants[1:])), *others))
    told = "Warning: rounds differ by more than 20 % of their median: onnxruntime fp32 by 40 %."
    items = Page(report_html(by_machine({"run": disturbed}))).of("li")
    assert [item.startswith(told) for item in items].count(True) == 1


def test_what_a_file_says_never_becomes_markup(page):
    honest = Page(report_html(by_machine({"first": hostile_free(hostile_run())})))
    text = report_html(by_machine({"</title><script>": hostile_run()}))
    hostile = Page(text)
    lines = {"text"}  # a longer title has more of them
    assert {name: count for name, count in hostile.tags.items() if name not in lines} == {
        name: count for name, count in honest.tags.items() if name not in lines
    }
    assert {key for key, _ in hostile.attributes} == {key for key, _ in honest.attributes}
    assert not {"\x00", "\u202e", "\ud800"} & set(text)
    text.encode()
    assert any("<script>alert(1)</script>" in words for words in hostile.of("h2"))


def hostile_free(run):
    """The same run with tame names."""
    results = tuple(
        replace(
            result,
            workload=replace(result.workload, model="small"),
            variants=tuple(
                replace(v, precision="bf8", weights="bf4", notes=tuple("note" for _ in v.notes))
                if v.precision not in ("fp32", "int8")
                else v
                for v in result.variants
            ),
        )
        for result in run.results
    )
    return replace(run, command="x", date="x", machine=replace(MACHINE, packages={"x": "x"}), results=results)


def test_machines_have_a_section_each_and_links_to_them():
    other = replace(RUN, machine=replace(MACHINE, processor="another"))
    page = Page(report_html(by_machine({"first": RUN, "second": other})))
    assert page.of("h2") == ["a processor", "another"]
    assert page.of("a") == ["a processor", "another"]


def test_sections_of_one_machine_are_told_apart_by_their_runs():
    updated = replace(WIDE_RUN, machine=replace(MACHINE, packages={"torch": "3"}))
    page = Page(report_html(by_machine({"first": RUN, "second": updated})))
    assert page.of("li")[:2] == [", 2026-01-02, with first", ", 2026-01-03, with second"]


def test_headings_of_one_workload_are_followed_by_its_run():
    page = Page(report_html(by_machine({"first": RUN, "second": replace(RUN, date="2026-01-04T00:00:00Z")})))
    origins = [text for text in page.of("p") if "width 64" in text and "depth 4" in text]
    step = ", 2026-01-0{}T00:00:00Z; width 64, depth 4, context 1,024"
    assert origins == ["first" + step.format(2)] * 3 + ["second" + step.format(4)] * 3
    labels = [value for key, value in page.attributes if key == "aria-label" and "T00:00:00Z" in value]
    assert len(labels) == len(set(labels)) == 8


def test_many_tables_are_folded(page):
    assert page.of("summary") == ["The numbers"] * 2  # of the sweeps
    many = Page(report_html(by_machine(dict.fromkeys(("first", "second", "third"), RUN))))
    assert many.tags["h3"] == 12
    assert many.tags["details"] == 12 + 1


def test_a_run_that_was_stopped_is_marked():
    page = Page(report_html(by_machine({"first": replace(RUN, complete=False)})))
    assert "no: it was stopped before its end" in page.of("dd")


def test_runs_of_one_machine_belong_together_the_oldest_first():
    slower = replace(WIDE_RUN, machine=replace(MACHINE, read_bytes_per_second=1e10))
    updated = replace(RUN, machine=replace(MACHINE, packages={"torch": "3"}))
    reports = by_machine({"new": slower, "updated": updated, "old": RUN})
    assert [list(report.runs) for report in reports] == [["updated"], ["old", "new"]]
    assert reports[1].name == "new"


def test_a_run_without_results_is_a_page_too(tmp_path):
    write_report(tmp_path / "page.html", by_machine({"empty": replace(RUN, results=())}))
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "No results." in page.of("p")
    assert page.tags["table"] == 0


def test_only_markup_passes_unescaped():
    assert tag("p", "<b>", Markup("<i></i>"), 3) == "<p>&lt;b&gt;<i></i>3</p>"
    assert tag("a", "x", href='"><script>', aria_label="y", class_="z") == (
        '<a href="&quot;&gt;&lt;script&gt;" aria-label="y" class="z">x</a>'
    )
    assert isinstance(join("<"), Markup)
    assert printable("a\nb\u202ec") == "a\ufffdb\ufffdc"
