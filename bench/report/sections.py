"""The sections of the report, each made from the files of its kind."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bench.load.record import Document, Run
from bench.report import growth, history, latency, memory, quality, style, throughput
from bench.report.inputs import Axis, Comparison, Inputs, Suite
from bench.report.page import Cell, Chart, Section, Table

_LEAST_SAMPLES = 3

_METRICS = {
    history.CPU: "CPU over a bare loop's",
    "compression_ratio": "compression ratio",
    "ssim": "SSIM",
}

_HOW_TO_READ = (
    (
        "The cost of x is about a factor times x to the power of the exponent: with 0 it does not grow, "
        "with 1 it grows in proportion, with 2 it grows with the square. The exponent is that of the line of "
        "least squares through the logarithms of the points, ± its standard error. What every request costs, "
        "whatever x is, keeps it below 1; the one at the large end, between the two largest points, is "
        "nearly free of that."
    ),
    (
        "CPU is user and system time of all processes of the server. Memory is the most that they hold "
        "together, without files and with shared memory counted once. Requests a second are by the clock."
    ),
)


def sections(inputs: Inputs) -> list[Section]:
    """Make every section that there are results for."""
    found: list[Section] = []
    for number, (path, comparison) in enumerate(inputs.comparisons):
        found.append(_throughput(path, comparison, _suffix(number, len(inputs.comparisons))))
    if inputs.loads:
        documents = [document for _, document in inputs.loads]
        found += [_latency(documents), *_memory(documents)]
    if (compared := _quality(inputs)) is not None:
        found.append(compared)
    if inputs.suites:
        found += _suites([suite for _, suite in inputs.suites])
    return found


def growth_sections(inputs: Inputs) -> list[Section]:
    """The sections of the page about growth: all exponents, and one for each axis. None without results."""
    axes = growth.axes_of(suite for _, suite in inputs.suites)
    if not axes:
        return []
    head = ["along", "from", "to", "unit", "cost", "exponent", "± error", "at the large end", "meaning"]
    rows: list[list[Cell]] = []
    for axis in axes:
        first, last = axis.points[0]["x"], axis.points[-1]["x"]
        for name in growth.drawn(axis):
            law = axis.growth[name]
            cells: list[Cell] = [axis.axis, first, last, axis.unit, growth.COSTS[name]]
            rows.append([*cells, law.exponent, law.error, law.exponent_at_end, growth.meaning(law.exponent)])
    notes = [
        *_HOW_TO_READ,
        *sorted(
            {_ran_on(path, {}, suite.commit_info.id[:12], suite.datetime) for path, suite in inputs.suites}
        ),
    ]
    return [Section("Exponents", [], [Table(head, rows)], notes), *map(_axis, axes)]


def _axis(axis: Axis) -> Section:
    names = growth.drawn(axis)
    head = [axis.unit, *(growth.COSTS[name] for name in names), "requests", "others' CPU"]
    rows: list[list[Cell]] = [
        [point["x"], *(point[name] for name in names), int(point["requests"]), f"{point['others']:.0%}"]
        for point in axis.points
    ]
    title = f"Along {axis.axis}: {axis.claim}"
    chart = _drawn(f"growth-{axis.axis.replace(' ', '-')}", title, growth.chart(axis))
    return Section(title, [chart], [Table(head, rows)], growth.sentences(axis))


def _suffix(number: int, of: int) -> str:
    return "" if of == 1 else f"-{number + 1}"


def _drawn(name: str, title: str, figure: Figure) -> Chart:
    return Chart(f"{name}.svg", title, style.svg(figure, title))


def _throughput(path: Path, comparison: Comparison, suffix: str) -> Section:
    head = ["image", "server", "requests/s", "of bare loop", "CPU ms", "result bytes", "SSIM"]
    rows = sorted(
        enumerate(comparison.rows),
        key=lambda item: (_first(comparison, item[1].image), -item[1].throughput),
    )
    cells: list[list[Cell]] = [
        [
            row.image,
            row.server,
            row.throughput,
            row.ratio_to_bare_loop,
            row.cpu_ms_per_request,
            row.output_bytes,
            row.ssim,
        ]
        for _, row in rows
    ]
    own = frozenset(place for place, (_, row) in enumerate(rows) if row.server == throughput.OWN)
    notes = [f"{server}: {version}" for server, version in comparison.versions.items()]
    notes += [f"{server} is missing: {why}" for server, why in comparison.missing.items()]
    notes.append(_ran_on(path, comparison.machine, comparison.commit, comparison.time))
    title = "Throughput against the baselines"
    chart = _drawn(f"throughput{suffix}", title, throughput.chart(comparison))
    return Section(title, [chart], [Table(head, cells, own)], notes)


def _first(comparison: Comparison, image: str) -> int:
    return next(place for place, row in enumerate(comparison.rows) if row.image == image)


def _latency(documents: list[Document]) -> Section:
    found = latency.sweeps(documents)
    charts = [
        _drawn(
            f"latency{_suffix(number, len(found))}",
            f"Latency against load: {sweep.name}",
            latency.chart(sweep),
        )
        for number, sweep in enumerate(found)
    ]
    head = ["run", "load", "images/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "p99/p50"]
    head += ["errors", "server CPU ms", "generator CPU ms", "others' CPU"]
    runs = [run for document in documents for run in document.runs]
    notes = [f"latency {way}" for way in sorted({run.coordinated_omission for run in runs})]
    if any(run.generator.saturated for run in runs):
        notes.append(
            "In rows marked * the load generator was saturated or late, so it may have limited the result."
        )
    notes += sorted({_ran_on(None, one.machine, one.commit, None) for one in documents})
    return Section("Load", charts, [Table(head, [_run(run) for run in runs])], notes)


def _run(run: Run) -> list[Cell]:
    load = f"{run.rate:g}/s" if run.rate is not None else f"{run.connections * run.pipeline} in flight"
    cells: list[Cell] = [
        latency.describe(run) + (" *" if run.generator.saturated else ""),
        load,
        run.replies_per_second,
    ]
    if run.latency is None:
        cells += [None] * 6
    else:
        one = run.latency
        cells += [one.p50_ms, one.p90_ms, one.p99_ms, one.p999_ms, one.max_ms, one.p99_ms / one.p50_ms]
    cells.append(", ".join(f"{count} {code}" for code, count in run.errors.items()) or "none")
    others = None if run.cores.others is None else f"{run.cores.others + run.cores.stolen:.0%}"
    return [*cells, run.server.cpu_ms if run.server else None, run.generator.cpu_ms, others]


def _memory(documents: list[Document]) -> list[Section]:
    runs = [
        run
        for document in documents
        for run in document.runs
        if run.server is not None and len(run.server.memory) >= _LEAST_SAMPLES
    ]
    if not runs:
        return []
    longest = sorted(runs, key=_last_reply, reverse=True)[:3]
    charts = [
        _drawn(f"memory{_suffix(number, len(longest))}", "Memory over time", memory.chart(run))
        for number, run in enumerate(longest)
    ]
    return [Section("Memory", charts, notes=["The runs with the most replies, three at most."])]


def _last_reply(run: Run) -> int:
    return run.server.memory[-1].requests if run.server else 0


def _quality(inputs: Inputs) -> Section | None:
    results = [one for _, comparison in inputs.comparisons for one in quality.of_comparison(comparison)]
    if not results:
        ordered = history.commits(suite for _, suite in inputs.suites)
        results = quality.of_suite(ordered[-1]) if ordered else []
    if not results:
        return None
    title = "Compression and similarity by format"
    head = ["format", "image", "server", "bytes sent over bytes returned", "SSIM"]
    ordered_results = sorted(results, key=lambda one: (one.format, one.image, one.server))
    rows: list[list[Cell]] = [
        [one.format, one.image, one.server, one.ratio, one.ssim] for one in ordered_results
    ]
    own = frozenset(place for place, one in enumerate(ordered_results) if one.server == throughput.OWN)
    return Section(title, [_drawn("quality", title, quality.chart(results))], [Table(head, rows, own)])


def _suites(suites: list[Suite]) -> list[Section]:
    ordered = history.commits(suites)
    found = []
    if len(ordered) > 1 and history.panels(ordered):
        title = "History over commits"
        found.append(Section(title, [_drawn("history", title, history.chart(ordered))]))
    last = ordered[-1]
    head = ["row", "median ms", "rounds", *_METRICS.values()]
    rows: list[list[Cell]] = [
        [
            row.fullname,
            row.stats.median * 1e3,
            row.stats.rounds,
            *map(row.metric, _METRICS),
        ]
        for row in last.benchmarks
    ]
    notes = [] if len(ordered) > 1 else ["A history needs the JSON of at least two commits."]
    name = history.label(last).replace("\n", ", ")
    return [*found, Section(f"Suites at {name}", tables=[Table(head, rows)], notes=notes)]


def _ran_on(path: Path | None, machine: Mapping[str, object], commit: str | None, time: str | None) -> str:
    words = ", ".join(f"{name} {value}" for name, value in machine.items())
    return " · ".join(
        part
        for part in (path.name if path else "", words, f"commit {commit}" if commit else "", time)
        if part
    )
