"use strict";
// The live figures: what each event changes in the page.

class Dashboard {
  constructor() {
    this.columns = new Columns(300);
    this.before = new Map(); // process id → the process in the last event
    this.errorsSeen = 0;
    const linear = (least, options = {}) => (values) => new LinearScale(values, { least, ...options });
    this.charts = [
      new Chart(byId("chart-throughput"), this.columns, {
        title: "Requests that ended, per second", stacked: true, show: perSecond, scale: linear(3, { whole: true }),
        series: [
          { name: "ok", label: "answered", colour: "teal", area: true },
          { name: "refused", label: "refused", colour: "amber", line: "dashed", area: true },
          { name: "failed", label: "failed", colour: "red", line: "dotted", area: true },
        ],
      }),
      new Chart(byId("chart-latency"), this.columns, {
        title: "Time of a request", show: latencyText, scale: (values) => new LogScale(values),
        series: [
          { name: "p50", label: "p50", colour: "teal" },
          { name: "p95", label: "p95", colour: "blue", line: "dashed" },
          { name: "p99", label: "p99", colour: "violet", line: "dotted" },
        ],
      }),
      new Chart(byId("chart-bytes"), this.columns, {
        title: "Bytes per second", show: (value, short) => (short ? shortBytes(value) : bytes(value)), scale: linear(3000),
        series: [
          { name: "bytes_in", label: "in", colour: "blue", area: true },
          { name: "bytes_out", label: "out", colour: "violet", line: "dashed", area: true },
        ],
      }),
      new Chart(byId("chart-load"), this.columns, {
        title: "Cores in use and waiting requests", show: (value, short) => (short ? whole(value) : perSecond(value)), scale: linear(3, { whole: true }),
        series: [
          { name: "cores", label: "cores in use", colour: "teal", area: true },
          { name: "waiting", label: "waiting", colour: "amber", line: "dashed" },
        ],
      }),
    ];
    this.stages = new KeyedList(byId("stages"), { key: (one) => one.name, create: createStage, update: updateStage });
    this.statuses = new KeyedList(byId("statuses"), { key: (one) => `${one.status} ${one.code}`, create: createStatus, update: updateStatus });
    this.workers = new KeyedList(byId("worker-list"), { key: (one) => one.pid, create: createWorker, update: (element, one) => this.updateWorker(element, one) });
    this.gateways = new KeyedList(byId("gateways"), { key: (one) => one.pid, create: createGateway, update: (element, one) => this.updateGateway(element, one) });
    this.gauges = new KeyedList(byId("gauges"), { key: (one) => one.name, create: createGauge, update: updateGauge });
    this.errors = new KeyedList(byId("error-list"), { key: textOf, create: createError, update: updateError });
    document.addEventListener("visibilitychange", () => this.draw());
  }

  draw(options) {
    if (!document.hidden) for (const chart of this.charts) chart.draw(options);
  }

  takeHistory({ second, ...columns }) {
    this.columns.take(second, columns);
    this.draw();
  }

  takeErrors({ seen, last }) {
    byId("no-errors").hidden = last.length > 0;
    setText(byId("errors-facts"), seen > last.length ? `the last ${last.length} of ${whole(seen)} since the start` : "");
    this.errors.show(alikeTogether(last));
  }

  takeLive(live) {
    const { second, ...columns } = live.columns;
    const busy = live.workers.filter((worker) => worker.state === "busy").length;
    const waiting = live.queue.light + live.queue.heavy;
    this.columns.take(second, columns);
    this.draw({ moving: true });
    this.showServer(live);
    this.showTiles(live, { busy, cores: this.columns.latest("cores"), waiting });
    this.stages.show(Object.entries(live.stages).map(([name, values]) => ({ name, values, ...spreadOf(live.stages) })));
    const most = Math.max(1, ...live.statuses.map((one) => one.count));
    this.statuses.show(live.statuses.map((one) => ({ ...one, part: one.count / most })));
    byId("no-statuses").hidden = live.statuses.length > 0;
    this.workers.show(live.workers);
    this.gateways.show(live.gateways.map((one, number) => ({ ...one, number })));
    this.gauges.show(gaugesOf(live));
    this.before = new Map([...live.workers, ...live.gateways].map((one) => [one.pid, one]));
  }

  showServer({ server, time, workers, wanted_workers: wanted }) {
    const facts = [server.version, `up ${duration(time - server.started)}`];
    if (server.gateways > 1) facts.push(plural(server.gateways, "gateway"));
    if (server.silent.length) facts.push(`${server.silent.join(", ")} did not answer`);
    if (server.draining) facts.push("shutting down");
    setText(byId("server-facts"), facts.join(" · "));
    const missing = workers.length < wanted ? `${workers.length} of ${wanted} run` : `${plural(workers.length, "worker")}, each one process`;
    setText(byId("workers-facts"), missing);
  }

  showTiles(live, { busy, cores, waiting }) {
    const last = (name) => mean([0, 1, 2, 3, 4].map((back) => this.columns.latest(name, back) ?? 0));
    const all = last("ok") + last("refused") + last("failed");
    tile("rate", perSecond(all), "per second", last("failed") || last("refused") ? `${perSecond(last("refused"))} refused, ${perSecond(last("failed"))} failed` : "all answered");
    const total = live.stages.total;
    tile("p50", milliseconds(total?.p50), "", total ? `99 % within ${milliseconds(total.p99)}` : `no request in ${live.window} s`);
    const number = live.workers.length;
    const memory = bytes(sum(live.workers.map((one) => one.rss ?? 0)));
    tile("busy", percent(cores === null || !number ? null : cores / number), `of ${plural(number, "core")}`, `${whole(busy)} busy now, ${memory}`);
    tile("queue", whole(waiting), "", live.queue.heavy ? `${whole(live.queue.heavy)} of them heavy` : `of ${whole(live.queue.limit)} a lane`);
    tile("ratio", times(live.ratio), "", live.ratio == null ? `no result in ${live.window} s` : `${bytes(last("bytes_in"))} → ${bytes(last("bytes_out"))}/s`);
    tile("connections", whole(live.connections.open), "", `of ${whole(live.connections.limit)}`);
  }

  // The share of a core that a process has used since the last event.
  cpuShare(one) {
    const before = this.before.get(one.pid);
    if (!before || one.cpu == null || before.cpu == null || one.at <= before.at) return null;
    return Math.max(0, (one.cpu - before.cpu) / (one.at - before.at));
  }

  updateWorker(element, worker) {
    element.dataset.state = worker.state;
    const parts = element.parts;
    setText(parts.state, worker.state);
    setText(parts.memory, bytes(worker.rss));
    setText(parts.cpu, percent(this.cpuShare(worker)));
    setText(parts.jobs, whole(worker.jobs));
    const { job } = worker;
    setText(parts.kind, job ? job.kind : "");
    setText(parts.now, job ? ` ${bytes(job.bytes)} for ${milliseconds(job.seconds * 1000)}${job.heavy ? ", heavy" : ""}${job.threads > 1 ? `, ${job.threads} threads` : ""}` : "no job");
  }

  updateGateway(row, gateway) {
    const cells = row.children;
    setText(cells[0], String(gateway.number + 1));
    setText(cells[1], String(gateway.pid));
    setText(cells[2], bytes(gateway.rss));
    setText(cells[3], percent(this.cpuShare(gateway)));
  }
}

function latencyText(value, short) {
  if (value == null) return NONE;
  if (!short) return milliseconds(value);
  return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function mean(values) {
  return sum(values) / values.length;
}

function tile(name, value, unit, more) {
  const element = byId(`tile-${name}`);
  const text = unit ? `${value} ${unit}` : value;
  if (element.textContent !== text) element.replaceChildren(value, ...(unit ? [" ", make("small", {}, unit)] : []));
  setText(byId(`tile-${name}-more`), more);
}

function createStage({ name }) {
  const row = make("tr", { class: name === "total" ? "whole" : null }, make("th", { scope: "row" }, name));
  const line = makeSvg("line", { class: "range", y1: 8, y2: 8 });
  const dot = makeSvg("circle", { class: "middle", cy: 8, r: 4 });
  row.append(make("td", { class: "spread" }, makeSvg("svg", { "aria-hidden": "true" }, line, dot)), make("td"), make("td"), make("td"));
  row.drawing = { line, dot };
  return row;
}

// The range of all stages on one logarithmic scale.
function spreadOf(stages) {
  const values = Object.values(stages).filter(Boolean).flatMap(({ p50, p99 }) => [p50, p99]);
  const scale = new LogScale(values);
  return { at: (value) => scale.at(value) };
}

function updateStage(row, { values, at }) {
  const cells = row.children;
  ["p50", "p95", "p99"].forEach((name, index) => setText(cells[index + 2], milliseconds(values?.[name])));
  const { line, dot } = row.drawing;
  const shown = values ? "visible" : "hidden";
  for (const part of [line, dot]) part.setAttribute("visibility", shown);
  if (!values) return;
  const place = (value) => `${(4 + 92 * Math.min(1, at(value))).toFixed(2)}%`;
  line.setAttribute("x1", place(values.p50));
  line.setAttribute("x2", place(values.p99));
  dot.setAttribute("cx", place(values.p50));
}

const OUTCOME_COLOURS = { ok: "teal", refused: "amber", failed: "red" };

function createStatus({ status, code, outcome }) {
  return make("li", { class: OUTCOME_COLOURS[outcome] },
    make("span", { class: "code" }, `${status} ${code}`), make("span", { class: "rail" }, make("span")), make("span", { class: "count" }));
}

function updateStatus(element, { count, part }) {
  setBar(element.children[1], part);
  setText(element.children[2], whole(count));
}

function createWorker({ pid, gateway }) {
  const parts = Object.fromEntries(["memory", "cpu", "jobs"].map((name) => [name, make("dd")]));
  parts.state = make("span", { class: "lamp" });
  parts.kind = make("b");
  parts.now = make("span");
  const element = make("li", { class: "worker" },
    make("div", { class: "head" }, parts.state, make("span", { class: "pid" }, make("span", { class: "unseen" }, `gateway ${gateway + 1}, process `), String(pid))),
    make("dl", { class: "facts" },
      make("div", {}, make("dt", {}, "memory"), parts.memory),
      make("div", {}, make("dt", {}, "CPU"), parts.cpu),
      make("div", {}, make("dt", {}, "jobs"), parts.jobs)),
    make("div", { class: "now" }, parts.kind, parts.now));
  element.parts = parts;
  return element;
}

function createGateway() {
  return make("tr", {}, make("th", { scope: "row" }), make("td"), make("td"), make("td"));
}

function gaugesOf({ queue, spool, connections }) {
  return [
    { name: "Light queue", value: queue.light, limit: queue.limit, show: whole },
    { name: "Heavy queue", value: queue.heavy, limit: queue.limit, show: whole },
    { name: "Spool in memory", value: spool.memory, limit: spool.memory_limit, show: bytes },
    { name: "Spool on disk", value: spool.disk, limit: spool.disk_limit, show: bytes },
    { name: "Connections", value: connections.open, limit: connections.limit, show: whole },
  ];
}

function createGauge({ name }) {
  return make("li", { class: "gauge" },
    make("div", {}, make("span", { class: "label" }, name), make("span")), make("div", { class: "rail", "aria-hidden": "true" }, make("span")));
}

function updateGauge(element, { value, limit, show }) {
  const [{ lastElementChild: text }, rail] = element.children;
  const part = limit ? value / limit : 0;
  setText(text, `${show(value)} of ${show(limit)}`);
  setBar(rail, part);
  element.classList.toggle("amber", part >= 0.75 && part < 0.95);
  element.classList.toggle("red", part >= 0.95);
}

function textOf({ status, code, message }) {
  return `${status} ${code} ${message}`;
}

// The errors with the same text as one, the newest, with their number.
function alikeTogether(errors) {
  const found = new Map();
  for (const error of errors) {
    const known = found.get(textOf(error));
    if (known) known.count += 1;
    else found.set(textOf(error), { ...error, count: 1 });
  }
  return [...found.values()];
}

function createError({ status, code, outcome, message }) {
  const parts = { time: make("time"), count: make("span", { class: "count" }), where: make("span", { class: "where" }) };
  const element = make("li", { class: OUTCOME_COLOURS[outcome] }, parts.time,
    make("span", { class: "code" }, `${status} ${code}`), make("span", { class: "message" }, message, " ", parts.count), parts.where);
  element.parts = parts;
  return element;
}

function updateError({ parts }, error) {
  const facts = [error.kind, error.source ?? (error.bytes ? "image" : null), error.bytes ? bytes(error.bytes) : null,
    `connection ${error.connection}, request ${error.id}`, error.worker ? `worker ${error.worker}` : null];
  setAttribute(parts.time, "datetime", new Date(error.time * 1000).toISOString());
  setText(parts.time, clockTime(error.time));
  setText(parts.count, error.count > 1 ? `× ${error.count}` : "");
  setText(parts.where, `${error.count > 1 ? "last: " : ""}${facts.filter(Boolean).join(" · ")}`);
}
