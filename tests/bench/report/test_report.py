import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from bench import ROOT
from bench.load.record import to_json
from bench.report import growth, history, latency, memory, quality, style, throughput
from bench.report.__main__ import main
from bench.report.inputs import Comparison, NotABenchmark, Suite, parse, read
from bench.report.page import Section, Table, page
from tests.bench.report.documents import SERVERS, comparison, grown, load, run, suite, write_all

VOID = {"meta", "img", "br", "hr", "link", "input"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("json")
    write_all(made)
    return made


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report") / "new"
    command = [sys.executable, "-m", "bench.report", str(folder), "--out", str(made)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "other.json is left out" in done.stderr
    return made


class _Page(HTMLParser):
    """Collects the parts of a page; fails if a tag is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in {"src", "href"} and value is not None]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def written_in(svg: bytes) -> str:
    """The words of a chart. They are drawn as shapes, and matplotlib adds each as a comment."""
    return html.unescape("\n".join(re.findall("<!-- (.*?) -->", svg.decode())))


def compared() -> Comparison:
    found = parse(json.dumps(comparison()).encode())
    assert isinstance(found, Comparison)
    return found


def suites(*documents: dict[str, object]) -> list[Suite]:
    found = [parse(json.dumps(document).encode()) for document in documents]
    return [one for one in found if isinstance(one, Suite)]


def test_every_chart_is_valid_xml(out: Path) -> None:
    names = {path.name for path in out.glob("*.svg")}
    assert names == {
        "throughput.svg",
        "latency.svg",
        "memory-1.svg",
        "memory-2.svg",
        "memory-3.svg",
        "quality.svg",
        "history.svg",
    }
    for name in names:
        chart = ET.fromstring((out / name).read_bytes())  # noqa: S314 - our own
        assert chart.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_is_valid_and_needs_no_other_file(out: Path) -> None:
    found = _Page((out / "index.html").read_text())
    assert found.open == []
    assert len(found.images) == 7
    assert all(image["alt"] for image in found.images)
    assert all(link.startswith("data:image/svg+xml;base64,") for link in found.links)


def test_page_and_chart_name_all_servers_and_what_is_missing(out: Path) -> None:
    text = _Page((out / "index.html").read_text()).text
    assert all(server in text for server in SERVERS)
    assert "imgproxy is missing: not on the path" in text
    words = written_in((out / "throughput.svg").read_bytes())
    assert all(throughput.NAMES.get(server, server) in words for server in SERVERS)
    # Requests a second without the clients' share.
    assert {"12.0", "13.0", "14.0", "15.0", "16.0"} <= set(words.splitlines())


def test_the_same_files_give_the_same_bytes(folder: Path, out: Path, tmp_path: Path) -> None:
    main([folder], out=tmp_path, main_chart=None)
    for path in out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_main_chart_leaves_out_the_floors(folder: Path, tmp_path: Path) -> None:
    chart = tmp_path / "main.svg"
    main([folder / "compare.json"], out=None, main_chart=chart)
    words = written_in(chart.read_bytes())
    for server in SERVERS:
        assert (throughput.NAMES.get(server, server) in words) == (server != "codec-floor")


def test_the_main_chart_needs_exactly_one_comparison(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="these files have 0"):
        main([folder / "load.json"], out=None, main_chart=tmp_path / "main.svg")
    with pytest.raises(typer.BadParameter, match="--out"):
        main([folder], out=None, main_chart=None)


def test_bars_are_sorted_and_vipsrv_stands_out() -> None:
    with style.drawn():
        figure = throughput.chart(compared())
        axes = figure.axes[0]
        widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]  # bars are rectangles
        labels = [label.get_text() for label in axes.get_yticklabels()]
        blue = [bar.get_facecolor() for bar in axes.patches]
    assert widths == sorted(widths) == [12.0, 13.0, 14.0, 15.0, 16.0]
    assert labels[3] == "vipsrv"
    assert blue.count(blue[3]) == 1


def test_a_file_named_on_the_command_line_must_be_a_benchmark(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotABenchmark, match=r"other\.json: JSON, but no object"):
        read([folder / "other.json"])
    broken = json.loads(to_json(load(run())))
    del broken["runs"][0]["loop"]
    for content, said in (
        ("{", "not JSON"),
        ("{}", "none of"),
        (json.dumps(broken), r"runs\.0\.loop"),
        (json.dumps({"rows": [{"image": "a"}]}), r"rows\.0\.server"),
        (json.dumps({"benchmarks": []}), "commit_info"),
    ):
        path = tmp_path / "a.json"
        path.write_text(content)
        with pytest.raises(NotABenchmark, match=said):
            read([path])


def test_a_folder_without_benchmarks_gives_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(typer.Exit) as ended:
        main([tmp_path], out=tmp_path / "out", main_chart=None)
    assert ended.value.exit_code == 1
    assert not (tmp_path / "out").exists()
    assert "none of these files" in capsys.readouterr().err


def test_runs_that_differ_only_in_their_load_are_one_sweep() -> None:
    documents = [
        load(run(100.0), run(50.0), run(), run(connections=16)),
        load(run(75.0), run(75.0, protocol=2), run(75.0, latency=None)),
    ]
    found = latency.sweeps(documents)
    assert [(sweep.loop, [latency.load_of(one) for one in sweep.runs]) for sweep in found] == [
        ("open", [50.0, 75.0, 100.0]),
        ("closed", [8.0, 16.0]),
    ]


def test_growth_is_counted_from_the_thousandth_reply() -> None:
    # Samples at 0, 2,000, … 20,000 replies: that at 2,000 is the first behind 1,000.
    server = run(replies=20000).server
    assert server is not None
    assert memory.growth(server.memory) == pytest.approx(73 / 61.5, rel=0.001)
    assert memory.growth(server.memory[:2]) is None
    assert memory.growth(server.memory[:1]) is None


def test_commits_are_in_the_order_of_their_time_and_the_last_run_of_each_counts() -> None:
    early, late = suite("b" * 40, 1, ratio=0.9), suite("a" * 40, 2, ratio=0.8)
    again = suite("b" * 40, 1, ratio=0.7) | {"datetime": "2026-01-03T00:00:00+00:00"}
    ordered = history.commits(suites(late, again, early))
    assert [one.commit_info.id[0] for one in ordered] == ["b", "a"]
    cpu, ratio, likeness = history.panels(ordered)
    assert cpu.title.endswith("one client")
    assert [line.name for line in cpu.lines] == ["jpeg-1mp.jpg-400x300", "webp-6mp.webp-800x533"]
    assert {line.points for line in cpu.lines} == {((0, 0.7), (1, 0.8))}
    assert {line.points for line in ratio.lines} == {((0, 10.0), (1, 10.0))}
    assert [line.name for line in likeness.lines] == ["jpeg-1mp.jpg", "webp-6mp.webp"]


def test_labels_at_the_ends_of_lines_do_not_overlap() -> None:
    axes = Figure(figsize=(4, 2)).subplots()
    axes.set_ylim(0, 100)
    style.label_ends(axes, [(value, f"{value}", "black") for value in (99.0, 50.0, 99.5, 51.0, 100.0, 10.0)])
    heights = {one.get_text(): one.xy[1] for one in axes.texts if isinstance(one, Annotation)}
    assert heights["10.0"] == pytest.approx(0.1)
    assert 0.9 < heights["100.0"] < 1.0
    order = sorted(heights, key=float)
    assert sorted(heights.values()) == [heights[one] for one in order]
    assert all(heights[after] - heights[before] > 0.1 for before, after in pairwise(order))


@pytest.mark.parametrize("name", ["a.jpg", "a-image-of-a-corpus-with-a-very-long-name-of-its-own.jpg"])
def test_labels_of_a_history_stay_within_their_space(name: str) -> None:
    documents = [suite("a" * 40, 1), suite("b" * 40, 2)]
    for document in documents:
        for row in document["benchmarks"]:
            row["name"] = row["name"].replace("jpeg-1mp.jpg", name)
    with style.drawn():
        figure = history.chart(history.commits(suites(*documents)))
        figure.set_dpi(720)  # at which no letter is moved to a pixel
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        for place, axes in enumerate(figure.axes):
            labels = [*(one for one in axes.texts if isinstance(one, Annotation)), axes.title]
            right = [text.get_window_extent(renderer).x1 for text in (*labels, axes._left_title)]  # type: ignore[attr-defined]
            beside = place + 1 if place % 2 == 0 and place + 1 < len(figure.axes) else None
            tight = None if beside is None else figure.axes[beside].get_tightbbox(renderer)
            assert max(right) <= (figure.bbox.x1 if tight is None else tight.x0)


def test_all_lines_of_a_chart_look_different() -> None:
    looks = [style.look(number) for number in range(56)]
    assert len({*looks}) == len(looks)
    results = [quality.Result("a.jpg", f"server {number}", 10.0, 0.9) for number in range(12)]
    with style.drawn():
        (legend,) = quality.chart(results).legends
    drawn = {(one.get_color(), one.get_marker()) for one in legend.legend_handles if isinstance(one, Line2D)}
    assert len(drawn) == len(results)


def test_uncommitted_changes_are_a_separate_point() -> None:
    ordered = history.commits(suites(suite("a" * 40, 1, dirty=True), suite("a" * 40, 1)))
    assert [history.label(one).splitlines()[0] for one in ordered] == ["aaaaaaaaa", "aaaaaaaaa+"]


def test_results_of_the_suites_are_by_image_and_format() -> None:
    (only,) = suites(suite("a" * 40, 1))
    found = quality.of_suite(only)
    assert [(one.image, one.format, one.ratio, one.ssim) for one in found] == [
        ("jpeg-1mp.jpg", "jpeg", 10.0, 0.96),
        ("webp-6mp.webp", "webp", 10.0, 0.96),
    ]


def test_a_report_of_the_suites_alone(tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text(json.dumps(suite("a" * 40, 1)))
    main([tmp_path / "suite.json"], out=tmp_path / "out", main_chart=None)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", "quality.svg"}
    text = _Page((tmp_path / "out" / "index.html").read_text()).text
    assert "test_one_client[jpeg-1mp.jpg-400x300]" in text
    assert "at least two commits" in text


@pytest.mark.parametrize(
    ("exponent", "words"),
    [
        (0.03, "does not grow"),
        (0.5, "grows less than in proportion: ten times as much multiplies it by 3.16"),
        (0.97, "grows in proportion"),
        (2.0, "grows more than in proportion: ten times as much multiplies it by 100"),
        (-1.0, "falls: ten times as much multiplies it by 0.10"),
    ],
)
def test_an_exponent_is_told_in_plain_words(exponent: float, words: str) -> None:
    assert growth.meaning(exponent) == words


def test_growth_has_a_page_of_its_own(tmp_path: Path) -> None:
    for day, exponent in ((2, 1.0), (1, 0.5)):  # the older one is left out
        (tmp_path / f"{day}.json").write_text(json.dumps(grown(f"{day}" * 40, day, exponent=exponent)))
    main([tmp_path], out=tmp_path / "out", main_chart=None)
    found = _Page((tmp_path / "out" / "growth.html").read_text())
    assert found.open == []
    assert all(link.startswith("data:image/svg+xml;base64,") for link in found.links)
    assert "throughput grows with the cores" in found.text
    assert (
        "CPU of all processes grows in proportion, from 1 to 100 cores (exponent 1.00 ± 0.03)." in found.text
    )
    assert (
        "Between the two largest it grows in proportion (1.00): each further core adds 1.5 ms." in found.text
    )
    assert "exponent 0.50" not in found.text
    words = written_in((tmp_path / "out" / "growth-cores.svg").read_bytes())
    assert "CPU of the gateway: exponent 1.00 ± 0.03" in words


def test_a_row_of_growth_that_lacks_a_value_is_named(tmp_path: Path) -> None:
    document = grown("a" * 40, 1)
    del document["benchmarks"][0]["extra_info"]["points"]
    (tmp_path / "suite.json").write_text(json.dumps(document))
    with pytest.raises(NotABenchmark, match="test_throughput_grows_with_the_cores: points"):
        read([tmp_path / "suite.json"])


def test_text_from_the_files_is_escaped() -> None:
    table = Table(["<b>"], [["<script>"]])
    text = page("<title>", [Section("a & b", tables=[table], notes=["<i>"])])
    assert _Page(text).text.count("<") == 5  # the title twice
    assert "<script>" not in text


@pytest.mark.parametrize(
    ("number", "text"), [(1234.4, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23")]
)
def test_three_digits(number: float, text: str) -> None:
    assert throughput.three_digits(number) == text
