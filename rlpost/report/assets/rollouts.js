// The rollout browser: filters, a list that grows as it is scrolled, and the chosen rollout.

const PAGE = 100;
const browser = {
  all: [], found: [], pool: null, rendered: 0, chosen: -1, mode: "mask", largest: 1,
  filter: { step: "", outcome: "", stop: "", kept: "", text: "", sort: "newest" },
};
const SORTS = {
  newest: ["latest step first", (rollout) => rollout.step, -1],
  oldest: ["first step first", (rollout) => rollout.step, 1],
  best: ["highest reward", (rollout) => rollout.reward, -1],
  worst: ["lowest reward", (rollout) => rollout.reward, 1],
  rise: ["highest advantage", (rollout) => rollout.adv, -1],
  fall: ["lowest advantage", (rollout) => rollout.adv, 1],
  long: ["longest", (rollout) => rollout.t.length, -1],
};

/** In the chosen order; rollouts without the number stand last, whichever way the list runs. */
function inOrder(first, second) {
  const [, number, direction] = SORTS[browser.filter.sort];
  const a = number(first), b = number(second);
  return (a === null) - (b === null) || direction * (a - b);
}

async function startBrowser() {
  const hint = byId("rollouts-hint");
  let data;
  try { data = await unpack(byId("rollout-data")); } catch (error) {
    hint.textContent = `This browser cannot unpack the rollouts (${error.message}); they are also in rollouts/ of the run folder.`;
    return;
  }
  browser.all = data.rollouts;
  browser.pool = data.pool;
  browser.largest = data.rollouts.reduce((most, rollout) => Math.max(most, Math.abs(rollout.adv || 0)), 0) || 1;
  hint.textContent = rolloutWords(data);
  if (!data.rollouts.length) return;
  buildFilters();
  byId("filters").hidden = byId("browser").hidden = false;
  byId("list").addEventListener("keydown", listKey);
  byId("list").addEventListener("scroll", growList);
  applyFilter();
}

function rolloutWords(data) {
  const count = GROUPED.format;
  if (!data.logged) return "No rollouts were recorded in this run.";
  if (data.shown === data.logged) return `All ${count(data.logged)} recorded rollouts of ${count(data.steps_logged)} steps.`;
  const steps = data.steps_shown === data.steps_logged ? "each step" : `${count(data.steps_shown)} of ${count(data.steps_logged)} steps`;
  return `${count(data.shown)} of ${count(data.logged)} recorded rollouts, the first ones of ${steps}; all of them are in rollouts/ of the run folder.`;
}

function buildFilters() {
  const values = (key) => [...new Set(browser.all.map((rollout) => rollout[key]))];
  const change = (key) => (value) => { browser.filter[key] = value; applyFilter(); };
  const select = (key, label, options) => h("label", { class: "field" }, label,
    h("select", { name: key, onchange: (event) => change(key)(event.target.value) }, options.map(([value, text]) => h("option", { value }, text))));
  const outcome = h("fieldset", { class: "choice" }, h("legend", { class: "hidden" }, "Outcome"));
  segmented(outcome, "outcome", [["", "All"], ["solved", "✓ Solved"], ["failed", "✗ Not solved"]], "", change("outcome"));
  let wait;
  const search = h("input", { type: "search", name: "text", placeholder: "text, task or error", oninput: (event) => {
    clearTimeout(wait);
    wait = setTimeout(() => change("text")(event.target.value.toLowerCase()), 120);
  } });
  byId("filters").append(
    select("step", "Step", [["", "all"], ...values("step").map((step) => [String(step), String(step)])]),
    h("div", { class: "field" }, "Outcome", outcome),
    select("stop", "Stop reason", [["", "any"], ...values("stop").map((stop) => [stop, stop.replaceAll("_", " ")])]),
    select("kept", "Learned from", [["", "either"], ["yes", "yes"], ["no", "no"]]),
    h("label", { class: "field grow" }, "Search", search),
    select("sort", "Sort", Object.entries(SORTS).map(([value, [text]]) => [value, text])),
  );
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
}

function textOf(rollout) {
  return (rollout.text ??= rollout.t.map((number) => browser.pool.texts[number]).join("").toLowerCase());
}

function matches(rollout) {
  const { step, outcome, stop, kept, text } = browser.filter;
  return (!step || String(rollout.step) === step) && (!outcome || rollout.ok === (outcome === "solved"))
    && (!stop || rollout.stop === stop) && (!kept || rollout.kept === (kept === "yes"))
    && (!text || textOf(rollout).includes(text) || rollout.task.toLowerCase().includes(text) || rollout.error.toLowerCase().includes(text));
}

function applyFilter() {
  browser.found = browser.all.filter(matches).sort(inOrder);
  const solved = browser.found.filter((rollout) => rollout.ok).length;
  byId("count").textContent = `${GROUPED.format(browser.found.length)} ${browser.found.length === 1 ? "rollout" : "rollouts"}, ${GROUPED.format(solved)} solved`;
  browser.rendered = 0;
  byId("list").replaceChildren();
  byId("list").scrollTop = 0;
  if (!browser.found.length) {
    byId("list").append(h("p", { class: "empty" }, "No rollout matches these filters."));
    byId("detail").replaceChildren();
    return;
  }
  renderRows();
  choose(0);
}

function verdict(rollout) {
  return h("span", { class: rollout.ok ? "solved" : "unsolved", role: "img", "aria-label": rollout.ok ? "solved" : "not solved" }, rollout.ok ? "✓" : "✗");
}

function signed(value) {
  return value === null ? "–" : (value > 0 ? "+" : "") + trimmed(value, 3);
}

function listRow(rollout, position) {
  const turns = rollout.turns.length;
  return h("div", { class: "row", role: "option", id: `row-${position}`, "aria-selected": "false", onclick: () => { choose(position); if (innerWidth <= 860) byId("detail").scrollIntoView(); } },
    verdict(rollout), h("span", { class: "name" }, visible(rollout.task)), h("span", { class: "num" }, rollout.reward === null ? "–" : trimmed(rollout.reward, 3)),
    h("span", { class: "under" }, `step ${rollout.step} · ${turns} ${turns === 1 ? "turn" : "turns"} · ${GROUPED.format(rollout.p.length)} tokens · ${rollout.stop.replaceAll("_", " ")}`),
    h("span", { class: "under num" }, rollout.kept ? "A " + signed(rollout.adv) : "not learned"));
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
  showRollout(browser.found[position]);
}

/** Numbers of the tokens that a search found. */
function hitTokens(rollout) {
  const hits = new Set(), needle = browser.filter.text;
  if (!needle) return hits;
  const starts = [];
  let length = 0;
  for (const number of rollout.t) { starts.push(length); length += browser.pool.texts[number].toLowerCase().length; }
  starts.push(length);
  let token = 0;
  for (let at = textOf(rollout).indexOf(needle); at >= 0; at = textOf(rollout).indexOf(needle, at + 1)) {
    while (starts[token + 1] <= at) token++;
    for (let i = token; i < rollout.t.length && starts[i] < at + needle.length; i++) hits.add(i);
  }
  return hits;
}

function showRollout(rollout) {
  const detail = byId("detail"), legendBox = h("div", { class: "legend", "aria-label": "Legend" }), holder = h("div", {});
  const paint = () => {
    byId("tooltip").hidden = true;
    legendBox.replaceChildren(...legend(browser.mode, browser.largest));
    holder.replaceChildren(tokenView(rollout, browser.pool, browser.mode, browser.largest, hitTokens(rollout)));
  };
  const modes = segmented(h("fieldset", { class: "choice" }, h("legend", { class: "hidden" }, "Colour tokens by")), "mode", MODES, browser.mode,
    (mode) => { browser.mode = mode; paint(); });
  detail.replaceChildren(h("h3", {}, verdict(rollout), " ", visible(rollout.task)), pairs("props", properties(rollout)),
    ...(rollout.error ? [h("p", { class: "error" }, visible(rollout.error))] : []), ...siblings(rollout),
    h("div", { class: "colouring" }, modes, legendBox), holder);
  paint();
  detail.scrollTop = 0;
  const hit = holder.querySelector(".hit");
  if (hit && innerWidth > 860) detail.scrollTop = hit.getBoundingClientRect().top - detail.getBoundingClientRect().top - 160;
}

function properties(rollout) {
  const number = (value) => value === null ? "–" : trimmed(value, 4);
  const entries = [["step", String(rollout.step)], ["reward", number(rollout.reward)], ["advantage", signed(rollout.adv)],
    ["learned from", rollout.kept ? "yes" : "no"], ["stop", rollout.stop.replaceAll("_", " ")],
    ["tokens", `${GROUPED.format(rollout.p.length)} of ${GROUPED.format(rollout.t.length)}`],
    ["policy version", [...new Set(rollout.v.map(([version]) => version))].join(", ") || "–"], ["seconds", number(rollout.wall)], ["seed", rollout.seed]];
  if (rollout.source) entries.push(["source", rollout.source]);
  for (const [name, value] of Object.entries(rollout.parts)) entries.push([`reward: ${name}`, number(value)]);
  for (const [name, value] of Object.entries(rollout.metrics)) entries.push([name, number(value)]);
  return entries;
}

/** The other rollouts of the same task and step, one button each. */
function siblings(rollout) {
  const group = browser.all.filter((other) => other.step === rollout.step && other.group === rollout.group);
  if (group.length < 2) return [];
  return [h("div", { class: "siblings", role: "group", "aria-label": "Rollouts of the same group" }, `group ${rollout.group}`, group.map((other) =>
    h("button", { type: "button", "aria-current": String(other === rollout), title: `reward ${other.reward}`, onclick: () => chooseSibling(other) },
      verdict(other), " " + (other.reward === null ? "–" : trimmed(other.reward, 3)))))];
}

function chooseSibling(other) {
  const position = browser.found.indexOf(other);
  if (position >= 0) { choose(position); byId(`row-${position}`).scrollIntoView({ block: "nearest" }); } else showRollout(other);
}
