// An evaluation: a table of scores, and a browser of answers filtered by right or wrong.

const PAGE = 100;
const browser = { all: [], tasks: {}, found: [], rendered: 0, chosen: -1, filter: { bench: "", outcome: "", stop: "", text: "", sort: "given" } };
const SORTS = {
  given: ["as asked", () => 0],
  long: ["longest", (a, b) => b.tokens - a.tokens],
  short: ["shortest", (a, b) => a.tokens - b.tokens],
  best: ["highest reward", (a, b) => b.reward - a.reward],
};

/** Control and direction characters as their code, so that a text cannot rearrange the page. */
function shown(text) {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, (sign) => `⟨${sign.codePointAt(0).toString(16).padStart(4, "0")}⟩`);
}

function percent(value) {
  return (value * 100).toFixed(1) + " %";
}

function verdict(sample) {
  return h("span", { class: sample.right ? "solved" : "unsolved", role: "img", "aria-label": sample.right ? "right" : "wrong" }, sample.right ? "✓" : "✗");
}

function drawHead(run) {
  byId("head").append(h("p", { class: "status finished" }, "evaluation"), h("h1", {}, run.name), pairs("chips", run.chips));
  const names = Object.keys(run.benchmarks);
  const extra = [...new Set(names.flatMap((name) => Object.keys(run.benchmarks[name]).filter((key) => /^(pass@(?!1$)|majority@|sgc$)/.test(key))))];
  const columns = ["benchmark", "score", "95 % interval", "", "asked", ...extra, "reward", "truncated", "failed", "tokens", "stopped by"];
  const row = (name) => {
    const found = run.benchmarks[name], [low, high] = found.ci95;
    return h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "score" }, percent(found.score)), h("td", {}, `${percent(low)} … ${percent(high)}`),
      h("td", {}, interval(found.score, low, high)), h("td", {}, `${GROUPED.format(found.questions)} × ${found.n}`),
      extra.map((key) => h("td", {}, found[key] ? percent(found[key].value) : "–")), h("td", {}, trimmed(found.reward, 4)), h("td", {}, percent(found.truncated)),
      h("td", {}, percent(found.failed)), h("td", {}, GROUPED.format(found.tokens_per_sample)),
      h("td", {}, Object.entries(found.stops).map(([stop, count]) => `${stop.replaceAll("_", " ")} ${GROUPED.format(count)}`).join(", ")));
  };
  byId("result").append(h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Scores" }, h("table", { class: "scores" },
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, names.map(row)))));
}

function interval(value, low, high) {
  const x = (share) => 8 + share * 164;
  return svg("svg", { class: "s1", viewBox: "0 0 180 22", "aria-hidden": "true" }, svg("line", { class: "track", x1: x(0), x2: x(1), y1: 11, y2: 11 }),
    svg("line", { class: "whisker", x1: x(low), x2: x(high), y1: 11, y2: 11 }), svg("circle", { class: "dot", cx: x(value), cy: 11, r: 5.5 }));
}

async function startBrowser() {
  const hint = byId("rollouts-hint");
  let data;
  try { data = await unpack(byId("rollout-data")); } catch (error) {
    hint.textContent = `This browser cannot unpack the answers (${error.message}); they are also in samples.jsonl.`;
    return;
  }
  browser.all = data.samples;
  browser.tasks = data.tasks;
  hint.textContent = data.samples.length === data.all ? `All ${GROUPED.format(data.all)} answers.` : `${GROUPED.format(data.samples.length)} of ${GROUPED.format(data.all)} answers, the first of each question; all of them are in samples.jsonl.`;
  buildFilters();
  byId("filters").hidden = byId("browser").hidden = false;
  byId("list").addEventListener("keydown", listKey);
  byId("list").addEventListener("scroll", growList);
  applyFilter();
}

function buildFilters() {
  const values = (key) => [...new Set(browser.all.map((sample) => sample[key]))];
  const change = (key) => (value) => { browser.filter[key] = value; applyFilter(); };
  const select = (key, label, options) => h("label", { class: "field" }, label,
    h("select", { name: key, onchange: (event) => change(key)(event.target.value) }, options.map(([value, text]) => h("option", { value }, text))));
  const outcome = segmented(h("fieldset", { class: "choice" }, h("legend", { class: "hidden" }, "Outcome")), "outcome", [["", "All"], ["right", "✓ Right"], ["wrong", "✗ Wrong"]], "", change("outcome"));
  let wait;
  const search = h("input", { type: "search", name: "text", placeholder: "text, question or task", oninput: (event) => {
    clearTimeout(wait);
    wait = setTimeout(() => change("text")(event.target.value.toLowerCase()), 120);
  } });
  byId("filters").append(
    select("bench", "Benchmark", [["", "all"], ...values("bench").map((name) => [name, name])]),
    h("div", { class: "field" }, "Outcome", outcome),
    select("stop", "Stopped by", [["", "any"], ...values("stop").map((stop) => [stop, stop.replaceAll("_", " ")])]),
    h("label", { class: "field grow" }, "Search", search),
    select("sort", "Sort", Object.entries(SORTS).map(([value, [text]]) => [value, text])),
  );
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
}

function taskOf(sample) {
  return browser.tasks[`${sample.bench}\n${sample.task}`] || { messages: [], reference: "" };
}

function haystack(sample) {
  return (sample.search ??= [sample.task, sample.text, sample.answer, sample.error, ...taskOf(sample).messages.map((message) => message.content)].join("\n").toLowerCase());
}

function matches(sample) {
  const { bench, outcome, stop, text } = browser.filter;
  return (!bench || sample.bench === bench) && (!outcome || sample.right === (outcome === "right")) && (!stop || sample.stop === stop) && (!text || haystack(sample).includes(text));
}

function applyFilter() {
  browser.found = browser.all.filter(matches).sort(SORTS[browser.filter.sort][1]);
  const right = browser.found.filter((sample) => sample.right).length;
  byId("count").textContent = `${GROUPED.format(browser.found.length)} ${browser.found.length === 1 ? "answer" : "answers"}, ${GROUPED.format(right)} right`;
  browser.rendered = 0;
  browser.chosen = -1;
  byId("list").replaceChildren();
  byId("list").scrollTop = 0;
  if (!browser.found.length) {
    byId("list").append(h("p", { class: "empty" }, "No answer matches these filters."));
    byId("detail").replaceChildren();
    return;
  }
  renderRows();
  choose(0);
}

function listRow(sample, position) {
  return h("div", { class: "row", role: "option", id: `row-${position}`, "aria-selected": "false", onclick: () => { choose(position); if (innerWidth <= 860) byId("detail").scrollIntoView(); } },
    verdict(sample), h("span", { class: "name" }, shown(sample.task)), h("span", { class: "num" }, sample.answer ? shown(sample.answer).slice(0, 14) : trimmed(sample.reward, 3)),
    h("span", { class: "under" }, `${sample.bench} · sample ${sample.index + 1} · ${GROUPED.format(sample.tokens)} tokens · ${sample.stop.replaceAll("_", " ")}`));
}

function listKey(event) {
  const jump = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
  if (jump === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  choose(clamp(browser.chosen + jump, 0, browser.found.length - 1));
  byId(`row-${browser.chosen}`).scrollIntoView({ block: "nearest" });
}

function choose(position) {
  while (browser.rendered <= position) renderRows();
  const before = byId(`row-${browser.chosen}`), now = byId(`row-${position}`);
  if (before) before.setAttribute("aria-selected", "false");
  now.setAttribute("aria-selected", "true");
  byId("list").setAttribute("aria-activedescendant", now.id);
  browser.chosen = position;
  showSample(browser.found[position]);
}

function showSample(sample) {
  const task = taskOf(sample);
  const entries = [["benchmark", sample.bench], ["sample", String(sample.index + 1)], ["answer", shown(sample.answer) || "–"], ["reference", shown(task.reference).slice(0, 200) || "–"],
    ["reward", trimmed(sample.reward, 4)], ["stop", sample.stop.replaceAll("_", " ")], ["tokens", GROUPED.format(sample.tokens)], ["seed", sample.seed],
    ...Object.entries(sample.parts).map(([name, value]) => [`reward: ${name}`, trimmed(value, 4)])];
  byId("detail").replaceChildren(h("h3", {}, verdict(sample), " ", shown(sample.task)), pairs("props", entries),
    ...(sample.error ? [h("p", { class: "error" }, shown(sample.error))] : []), ...siblings(sample),
    ...task.messages.map((message) => said(message.role, message.content, "")), said("the model", sample.text, "answer"));
  byId("detail").scrollTop = 0;
}

function said(who, text, kind) {
  return h("div", { class: `said ${kind}` }, h("p", { class: "label" }, who), h("pre", {}, marked(shown(text))));
}

/** The text with what was searched for marked. */
function marked(text) {
  const needle = browser.filter.text;
  if (!needle) return [text];
  const parts = [], low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(needle); at >= 0; at = low.indexOf(needle, from)) {
    parts.push(text.slice(from, at), h("mark", {}, text.slice(at, at + needle.length)));
    from = at + needle.length;
  }
  return [...parts, text.slice(from)];
}

/** The other samples of the same question, one button each. */
function siblings(sample) {
  const group = browser.all.filter((other) => other.bench === sample.bench && other.task === sample.task);
  if (group.length < 2) return [];
  return [h("div", { class: "siblings", role: "group", "aria-label": "Samples of the same question" }, `${group.filter((other) => other.right).length} of ${group.length} right`,
    group.map((other) => h("button", { type: "button", "aria-current": String(other === sample), onclick: () => {
      const position = browser.found.indexOf(other);
      if (position >= 0) { choose(position); byId(`row-${position}`).scrollIntoView({ block: "nearest" }); } else showSample(other);
    } }, verdict(other), ` ${other.index + 1}`)))];
}

function drawFolds(run) {
  lazily(byId("settings"), () => byId("settings").append(h("pre", { class: "recipe", tabindex: 0, "aria-label": "Settings" }, run.settings)));
  lazily(byId("versions"), () => byId("versions").append(h("div", { class: "table" }, h("table", { class: "pairs" },
    h("tbody", {}, Object.entries(run.versions).map(([name, version]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, version))))))));
}

const run = JSON.parse(byId("run-data").textContent);
drawHead(run);
drawFolds(run);
startBrowser();
