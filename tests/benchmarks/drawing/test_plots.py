"""Plots: which there are, what their titles say, and how they become SVG and PNG."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.drawing.plot_layout import PAGE_COLOURS, colour_of, marker_of, round_numbers
from jukebox_deploy.benchmarks.drawing.plots import plots_of, write_png
from jukebox_deploy.benchmarks.drawing.svg import inline_svg
from jukebox_deploy.benchmarks.results import Backend, Latency, WorkloadResult
from tests.benchmarks.benchmark_documents import BASE, RUN, SLOTS, WIDE, hostile_run, step, step_result, variant

X = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def plots():
    return {plot.name: plot for plot in plots_of({"run": [*RUN.results, WIDE]})}


def written_in(plot):
    return [text.get_text() for axes in plot.figure.axes for text in axes.texts]


def test_each_kind_of_plot_is_there(plots):
    assert list(plots) == ["speed", "ratio", "latency", "cost-slots-1", "cost-width-1"]


def test_titles_say_what_is_seen(plots):
    assert plots["speed"].title == "Up to 80 % of what the memory allows (onnxruntime fp32)"
    assert plots["ratio"].title == f"2.00{X} to 8.00{X} the speed of eager"
    assert plots["latency"].title == f"One call in a hundred takes 1.50{X} the median or longer"
    assert plots["cost-slots-1"].title == f"From 1 to 16 slots, a step costs 4.00{X} as much"
    assert plots["cost-width-1"].title == f"From width 64 to 128, a step costs 4.00{X} as much"


def test_speeds_are_written_beside_the_bars(plots):
    assert written_in(plots["speed"])[:4] == [
        "onnxruntime fp32",
        "8.00 tokens/s · 80 %",
        "onnxruntime fp32, int8 weights",
        "16.0 tokens/s · 64 %",
    ]


def test_the_bar_and_the_limit_are_drawn_to_scale(plots):
    axes = plots["speed"].figure.axes[0]
    limit, speed = (patch.get_width() for patch in axes.patches[:2])
    assert (limit, speed) == (pytest.approx(10.0), pytest.approx(8.0))


def test_a_sweep_has_its_numbers_as_a_table(plots):
    assert plots["cost-slots-1"].table == (
        ("slots", "1", "4", "16", "growth"),
        ("onnxruntime fp32", "125 ms", "250 ms", "500 ms", f"4.00{X}"),
        ("onnxruntime fp32, int8 weights", "62.5 ms", "125 ms", "250 ms", f"4.00{X}"),
    )


def test_growth_over_other_ends_says_over_which():
    far = WorkloadResult(step(slots=64), (variant(Backend.EAGER, 16.0),))
    (plot,) = (p for p in plots_of({"run": [BASE, *SLOTS, far]}) if p.name == "cost-slots-1")
    assert [row[-1] for row in plot.table[1:]] == [f"4.00{X}, 1 to 16", f"4.00{X}, 1 to 16", f"8.00{X}"]
    assert plot.title == f"From 1 to 64 slots, a step costs 8.00{X} as much"


def test_a_sweep_says_which_run_it_is_of():
    again = step_result(step(), 1.0, baselines=True)
    (plot,) = (p for p in plots_of({"growth": [BASE, *SLOTS], "again": [again]}) if p.name == "cost-slots-1")
    assert plot.note.endswith(" Measured in growth.")
    assert plot.table[1][1] == "125 ms"


def test_plots_say_which_of_several_runs_they_show():
    again = step_result(step(), 1.0, baselines=True)
    plots = plots_of({"first": [BASE], "second": [again]})
    told = "Step of small, level 0, 1 slot, position 512 of 1,024: as measured in second, one of 2 runs."
    assert [plot.note.endswith(told) for plot in plots] == [True] * 3
    assert not any("as measured in" in plot.note for plot in plots_of({"first": [BASE]}))


@pytest.mark.parametrize(
    ("latency", "title"),
    [
        (Latency(1.0, 1.2, 1.5, 1.6, 64), f"The slowest of 64 calls takes 1.60{X} the median"),
        (Latency(1.0, 1.2, 1.5), f"One call in ten takes 1.20{X} the median or longer"),
    ],
)
def test_one_call_in_a_hundred_is_told_of_enough_calls_only(latency, title):
    few = replace(BASE, variants=tuple(replace(v, latency=latency) for v in BASE.variants))
    (plot,) = (plot for plot in plots_of({"run": [few]}) if plot.name == "latency")
    assert plot.title == title
    assert not any("p99" in words for words in written_in(plot))


def test_counts_of_calls_that_differ_are_a_range():
    first, second, *_ = BASE.variants
    counted = [replace(v, latency=Latency(1.0, 1.2, 1.5, 2.0, calls)) for v, calls in ((first, 500), (second, 64))]
    (plot,) = (p for p in plots_of({"run": [replace(BASE, variants=tuple(counted))]}) if p.name == "latency")
    assert plot.title == f"The slowest of 64 to 500 calls takes 2.00{X} the median"


def test_what_one_more_layer_costs_is_said():
    (plot,) = (
        p
        for p in plots_of({"": [BASE, step_result(step("small-depth-12", depth=12), 4.0)]})
        if p.name == "cost-depth-1"
    )
    assert plot.table[0] == ("depth, in layers", "4", "12", "growth", "per layer")
    assert plot.table[1] == ("onnxruntime fp32", "125 ms", "250 ms", f"2.00{X}", "15.6 ms")


def test_what_was_not_measured_is_not_drawn():
    assert plots_of({}) == []
    bare = WorkloadResult(step(), (variant(Backend.ONNXRUNTIME, 3.0),))
    assert [plot.name for plot in plots_of({"run": [bare]})] == ["latency"]


def test_without_eager_the_next_baseline_is_taken():
    kept = replace(BASE, variants=tuple(v for v in BASE.variants if v.backend is not Backend.EAGER))
    (ratio,) = (plot for plot in plots_of({"run": [kept]}) if plot.name == "ratio")
    assert ratio.title.endswith("the speed of eager-static")


def test_positions_are_drawn_from_zero_seconds():
    (plot,) = (p for p in plots_of({"run": [BASE, step_result(step(position=0), 8.1)]}) if p.name == "cost-position-1")
    assert plot.figure.axes[0].get_ylim()[0] == 0.0
    assert plot.title.startswith("From position 0 to 512, a step costs 1.01")


def test_a_variant_has_one_colour_and_no_other_of_its_workload():
    engines = [variant(Backend.ONNXRUNTIME, 1.0, weights) for weights in ("fp32", "int8", "int4")]
    others = [variant(backend, 1.0) for backend in (Backend.EAGER, Backend.EAGER_STATIC, Backend.HUGGING_FACE)]
    assert len({colour_of(v) for v in engines + others}) == 6
    assert len({marker_of(v)["marker"] for v in engines}) == 3


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4", "fp8"])
@pytest.mark.parametrize("backend", Backend)
def test_every_backend_has_a_colour(backend, weights):
    assert colour_of(variant(backend, 1.0, weights)).startswith("#")


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.5, 300.0), [1.0, 10.0, 100.0]),
        ((0.9, 11.0), [1.0, 3.0, 10.0]),
        ((1.9, 4.2), [2.0, 3.0]),
        ((1e-6, 1e6), [1e-6, 1e-3, 1.0, 1e3, 1e6]),
    ],
)
def test_axes_have_a_few_round_numbers(ends, expected):
    assert round_numbers(*ends) == pytest.approx(expected)


def test_svg_is_the_same_at_every_run_and_takes_the_colours_of_the_page(plots):
    first, second = (inline_svg(plots["speed"].figure, "a", "A label", PAGE_COLOURS) for _ in range(2))
    assert first == second
    assert "var(--ink)" in first
    assert not any(colour in first for colour in PAGE_COLOURS)
    assert "http" not in first


def test_ids_are_a_figure_s_own(plots):
    def ids(svg):
        return {part.partition('"')[0] for part in svg.split(' id="')[1:]}

    first, second = (inline_svg(plots["ratio"].figure, name, "A label", PAGE_COLOURS) for name in ("a", "b"))
    assert ids(first)
    assert not ids(first) & ids(second)


def test_a_png_has_the_title_above_the_plot(plots, tmp_path: Path):
    from matplotlib.image import imread

    plot = plots["cost-slots-1"]
    height, width = imread(write_png(plot, tmp_path / "pictures" / "plot.png")).shape[:2]
    assert width > 600
    assert height > 200 * plot.figure.get_figheight()
    assert plot.figure.texts == []  # the figure is as it was


def test_hostile_names_are_drawn_as_they_are(tmp_path: Path):
    plots = plots_of({"run": hostile_run().results})
    assert [plot.name for plot in plots] == ["speed", "ratio", "latency", "cost-slots-1"]
    assert all(len(text) <= 60 for plot in plots for text in written_in(plot))
    assert write_png(plots[0], tmp_path / "plot.png").stat().st_size
