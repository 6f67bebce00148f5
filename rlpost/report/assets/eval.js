// An evaluation: a table of scores, and a browser of answers filtered by right or wrong.

const PAGE = 100;
const browser = { all: [], tasks: {}, found: [], rendered: 0, chosen: -1, filter: { bench: "", outcome: "", stop: "", text: "", sort: "given" } };
const NOUN = ["answer", "answers", "right", "wrong"];
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

function isRight(sample) {
  return sample.right;
}

function inOrder(first, second) {
  return SORTS[browser.filter.sort][1](first, second);
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
  startList([
    selectFilter("bench", "Benchmark", [["", "all"], ...valuesOf("bench").map((name) => [name, name])]),
    outcomeFilter("Right", "Wrong"),
    stopFilter("Stopped by"),
    searchFilter("text, question or task"),
  ]);
}

function taskOf(sample) {
  return browser.tasks[`${sample.bench}\n${sample.task}`] || { messages: [], reference: "" };
}

function haystack(sample) {
  return (sample.search ??= [sample.task, sample.text, sample.answer, sample.error, ...taskOf(sample).messages.map((message) => message.content)].join("\n").toLowerCase());
}

function matches(sample) {
  const { bench, stop, text } = browser.filter;
  return (!bench || sample.bench === bench) && (!stop || sample.stop === stop) && (!text || haystack(sample).includes(text));
}

function listRow(sample) {
  return [h("span", { class: "name" }, shown(sample.task)), h("span", { class: "num" }, sample.answer ? shown(sample.answer).slice(0, 14) : trimmed(sample.reward, 3)),
    h("span", { class: "under" }, `${sample.bench} · sample ${sample.index + 1} · ${GROUPED.format(sample.tokens)} tokens · ${sample.stop.replaceAll("_", " ")}`)];
}

function showItem(sample) {
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

/** The other samples of the same question. */
function siblings(sample) {
  const group = browser.all.filter((other) => other.bench === sample.bench && other.task === sample.task);
  return siblingButtons(group, sample, "Samples of the same question", `${group.filter(isRight).length} of ${group.length} right`, (other) => String(other.index + 1));
}

function drawFolds(run) {
  lazily(byId("settings"), () => byId("settings").append(h("pre", { class: "recipe", tabindex: 0, "aria-label": "Settings" }, run.settings)));
  drawVersions(run.versions);
}

const run = JSON.parse(byId("run-data").textContent);
drawHead(run);
drawFolds(run);
startBrowser();
