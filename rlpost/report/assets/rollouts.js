// The rollout browser: what list.js wants to know of rollouts, and the chosen rollout.

const PAGE = 100;
const browser = {
  all: [], found: [], pool: null, rendered: 0, chosen: -1, mode: "mask", largest: 1,
  filter: { step: "", outcome: "", stop: "", kept: "", text: "", sort: "newest" },
};
const NOUN = ["rollout", "rollouts", "solved", "not solved"];
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
  startList([
    selectFilter("step", "Step", [["", "all"], ...valuesOf("step").map((step) => [String(step), String(step)])]),
    outcomeFilter("Solved", "Not solved"),
    stopFilter("Stop reason"),
    selectFilter("kept", "Learned from", [["", "either"], ["yes", "yes"], ["no", "no"]]),
    searchFilter("text, task or error"),
  ]);
}

function rolloutWords(data) {
  const count = GROUPED.format;
  if (!data.logged) return "No rollouts were recorded in this run.";
  if (data.shown === data.logged) return `All ${count(data.logged)} recorded rollouts of ${count(data.steps_logged)} steps.`;
  const steps = data.steps_shown === data.steps_logged ? "each step" : `${count(data.steps_shown)} of ${count(data.steps_logged)} steps`;
  return `${count(data.shown)} of ${count(data.logged)} recorded rollouts, the first ones of ${steps}; all of them are in rollouts/ of the run folder.`;
}

function isRight(rollout) {
  return rollout.ok;
}

function textOf(rollout) {
  return (rollout.text ??= rollout.t.map((number) => browser.pool.texts[number]).join("").toLowerCase());
}

function matches(rollout) {
  const { step, stop, kept, text } = browser.filter;
  return (!step || String(rollout.step) === step) && (!stop || rollout.stop === stop) && (!kept || rollout.kept === (kept === "yes"))
    && (!text || textOf(rollout).includes(text) || rollout.task.toLowerCase().includes(text) || rollout.error.toLowerCase().includes(text));
}

function signed(value) {
  return value === null ? "–" : (value > 0 ? "+" : "") + trimmed(value, 3);
}

function listRow(rollout) {
  const turns = rollout.turns.length;
  return [h("span", { class: "name" }, visible(rollout.task)), h("span", { class: "num" }, rollout.reward === null ? "–" : trimmed(rollout.reward, 3)),
    h("span", { class: "under" }, `step ${rollout.step} · ${turns} ${turns === 1 ? "turn" : "turns"} · ${GROUPED.format(rollout.p.length)} tokens · ${rollout.stop.replaceAll("_", " ")}`),
    h("span", { class: "under num" }, rollout.kept ? "A " + signed(rollout.adv) : "not learned")];
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

function showItem(rollout) {
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

/** The other rollouts of the same task and step. */
function siblings(rollout) {
  const group = browser.all.filter((other) => other.step === rollout.step && other.group === rollout.group);
  return siblingButtons(group, rollout, "Rollouts of the same group", `group ${rollout.group}`, ({ reward }) => reward === null ? "–" : trimmed(reward, 3));
}
