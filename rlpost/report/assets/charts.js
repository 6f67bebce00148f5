// Curves as inline SVG. One cursor for all charts: wherever the pointer is, every chart reads the same step.

const plots = [];
const view = { smooth: false, cursor: null };

/** A figure with one chart; it draws itself when it gets a width, and again when that changes. */
function chartFigure(chart, columns, marks) {
  const plot = { chart, columns, marks: marks || [], log: chart.log, figure: null, steps: columns.step };
  const readout = h("p", { class: "readout" });
  const canvas = svg("svg", { class: "plot", role: "img", height: chart.main ? 230 : 150 });
  const button = h("button", {
    type: "button", "aria-pressed": String(plot.log), title: "Logarithmic axis",
    onclick: () => { plot.log = !plot.log; button.setAttribute("aria-pressed", String(plot.log)); draw(plot); },
  }, "log");
  button.hidden = chart.form === "stack" || chart.unit === "share" || !canBeLog(plot);
  if (button.hidden) plot.log = false;
  plot.figure = h("figure", { tabindex: 0, "aria-label": describe(plot), "aria-description": chart.hint, onkeydown: (event) => cursorKey(event) },
    h("figcaption", {}, h("h3", { title: chart.hint || null }, chart.title), button), readout, canvas);
  Object.assign(plot, { readout, canvas });
  canvas.addEventListener("pointermove", (event) => moveCursor(plot, event));
  canvas.addEventListener("pointerleave", () => setCursor(null));
  plots.push(plot);
  new ResizeObserver(() => draw(plot)).observe(canvas);
  return plot.figure;
}

function present(plot) {
  return plot.chart.series.filter(([key]) => plot.columns[key]);
}

/** Whether the first series is positive throughout; others may leave out what a logarithmic axis cannot show. */
function canBeLog(plot) {
  const values = plot.columns[present(plot)[0][0]].filter((value) => value !== null);
  return values.length > 0 && values.every((value) => value > 0);
}

function describe(plot) {
  const parts = present(plot).map(([key, label]) => {
    const values = plot.columns[key].filter((value) => value !== null);
    return values.length ? `${label} from ${show(values[0], plot.chart.unit)} to ${show(values.at(-1), plot.chart.unit)}` : "";
  });
  return `${plot.chart.title}: ${parts.filter(Boolean).join("; ")}. Arrow keys read single steps.`;
}

/** Cumulative sums of the series, one row a series, for stacked charts. */
function stackRows(plot) {
  const sums = plot.steps.map(() => 0);
  return present(plot).map(([key]) => plot.columns[key].map((value, i) => (sums[i] += value || 0)));
}

function draw(plot) {
  const width = plot.canvas.clientWidth, height = plot.canvas.height.baseVal.value;
  if (!width) return;
  const { chart, columns, steps } = plot;
  const band = chart.band && columns[chart.band];
  const rows = chart.form === "stack" ? stackRows(plot) : present(plot).map(([key]) => columns[key]);
  const all = rows.flat().filter((value) => value !== null && !(plot.log && value <= 0));
  if (chart.form === "stack" && band) all.push(...band.filter((value) => value !== null));
  for (const mark of plot.marks) all.push(mark.low, mark.high);
  const [low, high] = limits(all, chart, plot.log);
  const ticks = plot.log ? logTicks(low, high, 4) : linearTicks(low, high, chart.main ? 5 : 4);
  const left = 12 + 6.4 * Math.max(...ticks.map((tick) => tickText(tick, chart.unit).length));
  plot.y = valueScale(low, high, plot.log, height - 20, 8);
  const lastStep = Math.max(steps.at(-1), ...plot.marks.map((mark) => mark.step));
  const span = lastStep - steps[0] || 1;
  plot.x = (step) => left + (step - steps[0]) / span * (width - left - 10);
  plot.rows = rows;
  plot.canvas.replaceChildren(...axes(plot, ticks, width, height, left, lastStep), ...shapes(plot, rows, band), cursorLayer(plot, height));
  drawCursor(plot);
}

function axes(plot, ticks, width, height, left, lastStep) {
  const lines = ticks.flatMap((tick) => {
    const y = plot.y(tick);
    return [
      svg("line", { class: "grid", x1: left, x2: width, y1: y, y2: y }),
      svg("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, tickText(tick, plot.chart.unit)),
    ];
  });
  const whole = linearTicks(plot.steps[0], Math.max(lastStep, plot.steps[0] + 1), width > 420 ? 8 : 4).filter(Number.isInteger);
  const labels = whole.map((step) => svg("text", { x: plot.x(step), y: height - 4, "text-anchor": "middle" }, String(step)));
  return [...lines, ...labels];
}

function shapes(plot, rows, band) {
  const { chart } = plot;
  if (chart.form === "stack") {
    const areas = rows.map((row, i) => svg("path", { class: `area s${i % 6 + 1}`, d: area(plot, row, i ? rows[i - 1] : row.map(() => 0)) }));
    return band ? [...areas, svg("path", { class: "total", d: path(plot, band) })] : areas;
  }
  const found = [];
  if (band) {
    const mean = rows[0];
    const clip = (value) => value === null ? null : clamp(value, plot.y.low, plot.y.high);
    const up = mean.map((value, i) => value === null || band[i] === null ? null : clip(value + band[i]));
    const down = mean.map((value, i) => value === null || band[i] === null ? null : clip(value - band[i]));
    found.push(svg("path", { class: "band s1", d: area(plot, up, down) }));
  }
  rows.forEach((row, i) => {
    const colour = `s${i % 6 + 1}`;
    if (view.smooth) {
      found.push(svg("path", { class: `curve raw ${colour}`, d: path(plot, row) }));
      found.push(svg("path", { class: `curve ${colour}`, d: path(plot, smoothed(row, Math.max(2, Math.round(plot.steps.length / 25)))) }));
    } else found.push(svg("path", { class: `curve ${colour}`, d: path(plot, row) }));
  });
  return [...found, ...plot.marks.flatMap((mark) => markShapes(plot, mark))];
}

/** An evaluation: a dot with its interval. */
function markShapes(plot, mark) {
  const x = plot.x(mark.step);
  return [
    svg("line", { class: "whisker s2", x1: x, x2: x, y1: plot.y(mark.low), y2: plot.y(mark.high) }),
    svg("circle", { class: mark.hollow ? "hollow s2" : "dot s2", cx: x, cy: plot.y(mark.value), r: 4.5 },
      svg("title", {}, `${mark.label}: ${show(mark.value, "share")}`)),
  ];
}

function path(plot, row) {
  let text = "", open = false;
  row.forEach((value, i) => {
    if (value === null || (plot.log && value <= 0)) { open = false; return; }
    const next = row[i + 1];
    const lone = !open && (next === null || next === undefined);
    text += `${open ? "L" : "M"}${plot.x(plot.steps[i]).toFixed(1)},${plot.y(value).toFixed(1)}` + (lone ? "h0.1" : "");
    open = true;
  });
  return text;
}

function area(plot, upper, lower) {
  const places = upper.map((_, i) => i).filter((i) => upper[i] !== null && lower[i] !== null);
  const point = (row) => (i) => `${plot.x(plot.steps[i]).toFixed(1)},${plot.y(row[i]).toFixed(1)}`;
  return places.length ? `M${places.map(point(upper)).join("L")}L${places.reverse().map(point(lower)).join("L")}Z` : "";
}

function cursorLayer(plot, height) {
  plot.cursor = svg("g", {}, svg("line", { class: "cursor", y1: 8, y2: height - 20 }),
    svg("text", { class: "cursor-step", y: height - 4, "text-anchor": "middle" }));
  return plot.cursor;
}

function moveCursor(plot, event) {
  const at = event.clientX - plot.canvas.getBoundingClientRect().left;
  let best = 0;
  plot.steps.forEach((step, i) => { if (Math.abs(plot.x(step) - at) < Math.abs(plot.x(plot.steps[best]) - at)) best = i; });
  setCursor(best);
}

function cursorKey(event) {
  const count = plots[0].steps.length, here = view.cursor ?? count - 1;
  const moves = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: count - 1 };
  if (event.key === "Escape") setCursor(null);
  else if (event.key in moves && event.target.tagName === "FIGURE") { event.preventDefault(); setCursor(clamp(moves[event.key], 0, count - 1)); }
}

function setCursor(index) {
  view.cursor = index;
  plots.forEach(drawCursor);
}

/** The cursor's line, and the values at it; the last ones where there is no cursor. */
function drawCursor(plot) {
  if (!plot.cursor) return;
  const index = view.cursor ?? plot.steps.length - 1;
  plot.cursor.setAttribute("visibility", view.cursor === null ? "hidden" : "visible");
  const x = plot.x(plot.steps[index]), [line, text] = plot.cursor.children;
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
  text.setAttribute("x", x);
  text.textContent = plot.steps[index];
  const { chart, columns } = plot;
  const single = chart.series.length === 1;
  const entries = present(plot).map(([key, label], i) => h("span", { class: `s${i % 6 + 1}` }, h("i", {}),
    single && label === key ? "" : label + " ", h("b", {}, show(columns[key][index], chart.unit))));
  if (chart.band && columns[chart.band]) entries.push(h("span", {}, chart.form === "stack" ? "step " : "± ", h("b", {}, show(columns[chart.band][index], chart.unit))));
  for (const mark of plot.marks.slice(-1)) entries.push(h("span", { class: "s2" }, h("i", { class: "round" }), mark.label + " ", h("b", {}, show(mark.value, "share"))));
  plot.readout.replaceChildren(...entries);
}
