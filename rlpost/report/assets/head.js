// The head of the page: what was run, what came of it; and the folds at its end.

function drawHead(run) {
  byId("head").append(
    h("p", { class: "status" + (run.status === "finished" ? " finished" : "") }, run.status),
    h("h1", {}, run.name),
    pairs("chips", run.chips),
  );
  byId("result").append(h("div", { class: "outcome" }, run.sources ? mixture(run.sources) : headline(run), run.sources ? tests(run.sources) : intervals(run.evaluations), facts(run)));
}

function percent(value) {
  const text = Number.isInteger(value * 1000) && value * 100 % 1 === 0 ? String(Math.round(value * 100)) : (value * 100).toFixed(1);
  return [text, h("span", { class: "pct" }, " %")];
}

/** Success before and after in large figures; where nothing was evaluated, the last training success. */
function headline(run) {
  const { before, after } = run.evaluations;
  if (!before && !after) {
    const series = run.curves.columns["success/mean"] || [];
    const last = series.filter((value) => value !== null).at(-1);
    if (last === undefined) return h("div", {}, h("p", { class: "caption" }, "No step has been recorded yet."));
    return h("div", {}, h("p", { class: "leap" }, percent(last)), h("p", { class: "caption" }, "success of the last step's training rollouts; held-out tasks were not evaluated"));
  }
  const figures = [before && h("span", { class: after ? "from" : "" }, percent(before.success)),
    before && after ? h("span", { class: "arrow", "aria-label": "to" }, "→") : null, after && h("span", {}, percent(after.success))];
  const episodes = GROUPED.format((after || before).episodes);
  const words = before && after ? `before and after training, sampled, ${episodes} episodes each`
    : before ? `before training, sampled, ${episodes} episodes; it has not been evaluated after it` : `after training, sampled, ${episodes} episodes`;
  return h("div", {}, h("p", { class: "leap" }, figures), h("p", { class: "caption" }, "held-out success " + words));
}

/** The heaviest source in large figures; the curves show all. */
function mixture({ weights }) {
  const [[name, weight]] = weights;
  return h("div", {}, h("p", { class: "leap" }, percent(weight)), h("p", { class: "caption" }, `weight of ${name}, the heaviest of ${weights.length} sources`));
}

/** What the test set says of each model. */
function tests({ test }) {
  if (!test.length) return null;
  const shares = (values) => values.map((value) => h("td", {}, percent(value)));
  const row = ([name, loss, ...right]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, trimmed(loss, 4)), shares(right));
  return h("div", {}, h("div", { class: "table" }, h("table", {},
    h("thead", {}, h("tr", {}, ["", "loss", "tokens", "answers"].map((title) => h("th", { scope: "col" }, title)))), h("tbody", {}, test.map(row)))),
    h("p", { class: "hint" }, "test set: loss, and shares of tokens and of whole answers right"));
}

/** Evaluations on a line from 0 to 100 %, sampled and greedy, each with its interval. */
function intervals(evaluations) {
  const rows = [["sampled", "before", "after"], ["greedy", "greedy_before", "greedy_after"]]
    .filter(([, first, second]) => evaluations[first] || evaluations[second]);
  if (!rows.length) return null;
  const height = 30 + rows.length * 62;
  const drawing = svg("svg", { class: "intervals", height, role: "img", "aria-label": spoken(rows, evaluations) });
  new ResizeObserver(() => drawIntervals(drawing, rows, evaluations, height)).observe(drawing);
  const both = rows.some(([, first, second]) => evaluations[first] && evaluations[second]);
  return h("div", {}, drawing, h("p", { class: "hint" }, both ? "○ before, ● after, with 95 % intervals" : "with its 95 % interval"));
}

function drawIntervals(drawing, rows, evaluations, height) {
  const left = 62, right = drawing.clientWidth - 24;
  const x = (value) => left + value * (right - left);
  drawing.replaceChildren();
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) drawing.append(
    svg("line", { x1: x(tick), x2: x(tick), y1: 4, y2: height - 24, stroke: "var(--line)" }),
    svg("text", { x: x(tick), y: height - 8, "text-anchor": "middle" }, `${tick * 100} %`));
  rows.forEach(([label, first, second], i) => {
    const y = 34 + i * 62;
    drawing.append(svg("text", { x: 0, y: y + 4 }, label));
    [[evaluations[first], true], [evaluations[second], false]].forEach(([found, hollow]) => {
      if (found) drawing.append(...intervalShapes(found, hollow, x, y));
    });
  });
}

/** Before lies a little higher than after, so that equal ones are both seen. */
function intervalShapes(found, hollow, x, row) {
  const y = hollow ? row - 5 : row + 5;
  const colour = hollow ? "s5" : "s1";
  const middle = clamp(x(found.success), x(0) + 16, x(1) - 16);
  return [
    svg("line", { class: `whisker ${colour}`, x1: x(found.ci95[0]), x2: x(found.ci95[1]), y1: y, y2: y }),
    svg("circle", { class: `${hollow ? "hollow" : "dot"} ${colour}`, cx: x(found.success), cy: y, r: 5.5 }),
    svg("text", { class: "value", x: middle, y: hollow ? y - 11 : y + 20, "text-anchor": "middle" }, `${(found.success * 100).toFixed(1)} %`),
  ];
}

function spoken(rows, evaluations) {
  const say = (found) => found ? `${(found.success * 100).toFixed(1)} %, 95 % interval ${(found.ci95[0] * 100).toFixed(1)} to ${(found.ci95[1] * 100).toFixed(1)} %` : "not evaluated";
  return rows.map(([label, first, second]) => `${label}: before ${say(evaluations[first])}; after ${say(evaluations[second])}`).join(". ");
}

function facts(run) {
  const { columns } = run.curves, { before, after } = run.evaluations;
  const total = (key) => (columns[key] || []).reduce((sum, value) => sum + (value || 0), 0);
  const entries = [["steps", GROUPED.format(run.steps)]];
  if (before && after) {
    const gain = (after.success - before.success) * 100;
    entries.unshift(["gain", `${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(1)} points`]);
  }
  if (run.wall) entries.push(["wall time", run.wall]);
  if (columns.episodes) entries.push(["episodes", GROUPED.format(total("episodes"))]);
  if (total("episodes/failed")) entries.push(["of them failed", GROUPED.format(total("episodes/failed"))]);
  if (columns["tokens/rollout"]) entries.push(["tokens sampled", GROUPED.format(total("tokens/rollout"))]);
  return pairs("facts", entries);
}

function drawFolds(run) {
  if (run.recipe) lazily(byId("recipe"), () => byId("recipe").append(recipeText(run.recipe)));
  if (run.steps) lazily(byId("numbers"), () => byId("numbers").append(numbersTable(run.curves.columns)));
  drawVersions(run.versions);
}

/** YAML with its keys coloured. */
function recipeText(text) {
  const block = h("pre", { class: "recipe", tabindex: 0, "aria-label": "Resolved recipe" });
  for (const line of text.split("\n")) {
    const match = /^(\s*(?:- )?)([\w./-]+)(:)(?= |$)(.*)$/.exec(line);
    if (match) block.append(match[1], h("span", { class: "key" }, match[2]), match[3] + match[4] + "\n");
    else block.append(line + "\n");
  }
  return block;
}

function numbersTable(columns) {
  const keys = ["step", ...Object.keys(columns).filter((key) => key !== "step")];
  const cell = (key, i) => key === "step" ? h("th", { scope: "row" }, String(columns.step[i]))
    : h("td", {}, columns[key][i] === null ? "–" : trimmed(columns[key][i], 5));
  return h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "All numbers" }, h("table", {},
    h("thead", {}, h("tr", {}, keys.map((key) => h("th", { scope: "col" }, key)))),
    h("tbody", {}, columns.step.map((_, i) => h("tr", {}, keys.map((key) => cell(key, i)))))));
}
