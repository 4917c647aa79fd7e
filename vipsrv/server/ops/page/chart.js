"use strict";
// Charts of the last minutes: one value a second, the newest at the right edge, sliding left.

const STEP = 3; // pixels a second
const GUTTER = 52; // pixels on the left, for the labels of the scale
const FOOT = 20; // pixels below, for the labels of the time
const HEAD = 6;

// The columns that the server sends, kept by the number of their second.
class Columns {
  constructor(length) {
    this.length = length;
    this.clear();
  }

  clear() {
    this.last = null;
    this.values = new Map();
  }

  // Takes columns whose last value belongs to `second`. A number that goes back means another machine time.
  take(second, columns) {
    if (this.last === null || second < this.last - 5) {
      this.clear();
      this.last = second;
    }
    const ahead = Math.max(0, second - this.last);
    for (const [name, column] of this.values) {
      if (ahead) this.values.set(name, [...column, ...new Array(Math.min(ahead, this.length)).fill(null)].slice(-this.length));
      else this.values.set(name, column);
    }
    this.last += ahead;
    for (const [name, values] of Object.entries(columns)) {
      const column = this.values.get(name) ?? new Array(this.length).fill(null);
      for (let back = 0; back < values.length; back += 1) {
        const place = this.length - 1 - (this.last - second) - back;
        if (place >= 0) column[place] = values[values.length - 1 - back];
      }
      this.values.set(name, column);
    }
  }

  column(name) {
    return this.values.get(name) ?? [];
  }

  latest(name, back = 0) {
    return this.column(name).at(-1 - back) ?? null;
  }
}

// The scale of a chart: where a value is between bottom (0) and top (1), and which values get a line.
class LinearScale {
  constructor(values, { least, whole: onlyWhole = false }) {
    const highest = Math.max(least, ...values);
    const rough = highest / 3;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
    this.step = onlyWhole ? Math.max(1, Math.ceil(step)) : step;
    this.top = Math.ceil(highest / this.step - 1e-9) * this.step;
  }

  at(value) {
    return value / this.top;
  }

  ticks() {
    const found = [];
    for (let value = 0; value <= this.top * 1.0001; value += this.step) found.push(value);
    return found;
  }
}

class LogScale {
  constructor(values) {
    const positive = values.filter((value) => value > 0);
    const low = positive.length ? Math.min(...positive) : 1;
    const high = positive.length ? Math.max(...positive) : 100;
    this.bottom = Math.floor(Math.log10(low));
    this.top = Math.max(this.bottom + 2, Math.ceil(Math.log10(high)));
  }

  at(value) {
    return (Math.log10(Math.max(value, 10 ** this.bottom)) - this.bottom) / (this.top - this.bottom);
  }

  ticks() {
    const found = [];
    for (let power = this.bottom; power <= this.top; power += 1) found.push(10 ** power);
    return found;
  }
}

// A chart of `columns`. Each of `series` has a name, a label, a colour and a form: line or stacked area.
class Chart {
  constructor(figure, columns, { title, series, show, scale, stacked = false }) {
    this.columns = columns;
    this.title = title;
    this.series = series;
    this.show = show;
    this.makeScale = scale;
    this.stacked = stacked;
    this.pointed = null; // the second under the pointer, counted back from the newest
    this.width = 0;
    this.build(figure);
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  build(figure) {
    this.legend = this.series.map((one) => ({ one, value: make("b", {}, NONE) }));
    this.when = make("li", { class: "when" }, "now");
    const key = (one) =>
      makeSvg("svg", { viewBox: "0 0 24 12", "aria-hidden": "true", class: `chart-key ${one.colour}` },
        makeSvg("path", { class: `trace ${one.line ?? ""}`, d: "M1 6H23", stroke: "var(--colour)", "stroke-width": 2 }));
    const list = make("ul", { class: "legend chart-legend" },
      ...this.legend.map(({ one, value }) => make("li", {}, key(one), one.label, value)), this.when);

    const id = `${figure.id}-clip`;
    this.clip = makeSvg("rect", { x: GUTTER, y: 0 });
    this.scaleLines = makeSvg("g");
    this.moving = makeSvg("g", { class: "moving" });
    this.paths = this.series.map((one) => {
      const area = one.area ? makeSvg("path", { class: `area ${one.colour}` }) : null;
      const trace = makeSvg("path", { class: `trace ${one.colour} ${one.line ?? ""}` });
      if (area) this.moving.append(area);
      this.moving.append(trace);
      return { area, trace };
    });
    this.rule = makeSvg("line", { class: "rule", visibility: "hidden" });
    this.svg = makeSvg("svg", { role: "img", "aria-label": this.title },
      makeSvg("defs", {}, makeSvg("clipPath", { id }, this.clip)),
      this.scaleLines, makeSvg("g", { "clip-path": `url(#${id})` }, this.moving), this.rule);
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.point(null));

    this.table = make("tbody");
    this.details = make("details", {}, make("summary", {}, "The last 10 seconds as a table"),
      make("table", {},
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "seconds ago"),
          ...this.series.map((one) => make("th", { scope: "col" }, one.label)))),
        this.table));
    this.details.addEventListener("toggle", () => this.fillTable());
    figure.append(list, this.svg, this.details);
  }

  // Draws what is known. The charts slide while they are `moving`; then the newest second begins outside.
  draw({ moving = false } = {}) {
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!width || !height) return;
    this.width = width;
    const plot = { left: GUTTER, right: width, top: HEAD, bottom: height - FOOT };
    setAttribute(this.clip, "width", Math.max(0, width - GUTTER));
    setAttribute(this.clip, "height", height);
    const shown = Math.min(this.columns.length, Math.ceil((plot.right - plot.left) / STEP) + 2);
    const heights = this.heights(shown);
    const scale = this.makeScale(heights.flatMap(({ tops }) => tops).filter((value) => value != null));
    this.drawScale(scale, plot);
    const slides = moving && !reducedMotion.matches;
    const x = (index) => plot.right - (shown - 1 - index) * STEP + (slides ? STEP : 0);
    const y = (value) => plot.bottom - Math.min(1, scale.at(value)) * (plot.bottom - plot.top);
    heights.forEach(({ tops, bottoms }, number) => {
      const { area, trace } = this.paths[number];
      trace.setAttribute("d", linePath(tops, x, y));
      if (area) area.setAttribute("d", areaPath(tops, bottoms, x, y, plot.bottom));
    });
    if (slides) {
      this.moving.animate([{ transform: "translateX(0)" }, { transform: `translateX(${-STEP}px)` }],
        { duration: 1000, fill: "forwards" });
    } else {
      for (const animation of this.moving.getAnimations()) animation.cancel();
    }
    this.showValues();
    this.fillTable();
  }

  heights(shown) {
    let below = new Array(shown).fill(0);
    return this.series.map((one) => {
      const values = padded(this.columns.column(one.name), shown);
      if (!this.stacked) return { tops: values, bottoms: null };
      const bottoms = below;
      below = values.map((value, index) => (value ?? 0) + bottoms[index]);
      // Nothing of a kind has no line of its own, which would lie over the one below it.
      const hasLine = (value) => value != null && (value > 0 || one === this.series[0]);
      return { tops: values.map((value, index) => (hasLine(value) ? below[index] : null)), bottoms };
    });
  }

  drawScale(scale, plot) {
    const parts = [];
    for (const tick of scale.ticks()) {
      const y = Math.round(plot.bottom - scale.at(tick) * (plot.bottom - plot.top)) + 0.5;
      parts.push(makeSvg("line", { class: "grid", x1: plot.left, x2: plot.right, y1: y, y2: y }),
        makeSvg("text", { x: plot.left - 8, y: y + 4, "text-anchor": "end" }, this.show(tick, true)));
    }
    const seconds = (plot.right - plot.left) / STEP;
    for (let ago = 0; ago < seconds - 15; ago += seconds > 150 ? 60 : 30) {
      const anchor = ago ? "middle" : "end";
      parts.push(makeSvg("text", { x: plot.right - ago * STEP, y: plot.bottom + 16, "text-anchor": anchor }, ago ? `−${duration(ago)}` : "now"));
    }
    this.scaleLines.replaceChildren(...parts);
  }

  point(x) {
    this.pointed = x === null || x < GUTTER ? null : Math.max(0, Math.round((this.width - x) / STEP));
    this.showValues();
  }

  showValues() {
    const back = this.pointed ?? 0;
    for (const { one, value } of this.legend) setText(value, this.show(this.columns.latest(one.name, back)));
    setText(this.when, back ? `${duration(back)} ago` : "now");
    setAttribute(this.rule, "visibility", this.pointed === null ? "hidden" : "visible");
    if (this.pointed !== null) {
      const x = this.width - back * STEP;
      for (const [name, at] of [["x1", x], ["x2", x], ["y1", HEAD], ["y2", this.svg.clientHeight - FOOT]]) setAttribute(this.rule, name, at);
    }
    const now = this.series.map((one) => `${one.label} ${this.show(this.columns.latest(one.name))}`);
    setAttribute(this.svg, "aria-label", `${this.title}. Now: ${now.join(", ")}.`);
  }

  fillTable() {
    if (!this.details.open) return;
    const rows = [];
    for (let back = 0; back < 10; back += 1) {
      rows.push(make("tr", {}, make("th", { scope: "row" }, String(back)),
        ...this.series.map((one) => make("td", {}, this.show(this.columns.latest(one.name, back))))));
    }
    this.table.replaceChildren(...rows);
  }
}

function padded(values, length) {
  const tail = values.slice(-length);
  return tail.length < length ? [...new Array(length - tail.length).fill(null), ...tail] : tail;
}

// The path of the values that are known; a gap ends a line.
function linePath(values, x, y) {
  let path = "";
  let drawing = false;
  values.forEach((value, index) => {
    if (value == null) drawing = false;
    else {
      path += `${drawing ? "L" : "M"}${x(index)} ${y(value).toFixed(1)}`;
      if (!drawing && values[index + 1] == null) path += "h0.01"; // a single value is a dot
      drawing = true;
    }
  });
  return path;
}

function areaPath(tops, bottoms, x, y, floor) {
  let path = "";
  for (let start = 0; start < tops.length; start += 1) {
    if (tops[start] == null) continue;
    let end = start;
    while (end + 1 < tops.length && tops[end + 1] != null) end += 1;
    const low = (index) => (bottoms ? y(bottoms[index]) : floor).toFixed(1);
    path += `M${x(start)} ${low(start)}`;
    for (let index = start; index <= end; index += 1) path += `L${x(index)} ${y(tops[index]).toFixed(1)}`;
    for (let index = end; index >= start; index -= 1) path += `L${x(index)} ${low(index)}`;
    path += "Z";
    start = end;
  }
  return path;
}
