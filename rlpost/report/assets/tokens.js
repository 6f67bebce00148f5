// The tokens of one rollout: coloured, in turns, each with its numbers at hand.

const SHOWN_CONTEXT = 400;
const GAPS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
const GAP_NAMES = ["< 1e−5", "< 1e−4", "< 0.001", "< 0.01", "< 0.1", "≥ 0.1"];
const PROBABILITIES = [0.9, 0.5, 0.2, 0.05, 0.01];
const PROBABILITY_NAMES = ["p ≥ 0.9", "≥ 0.5", "≥ 0.2", "≥ 0.05", "≥ 0.01", "< 0.01"];
const MODES = [["mask", "Policy"], ["advantage", "Advantage"], ["gap", "Gap"], ["logprob", "Log-prob"]];

/** Per-token facts of a rollout: for token i, `policy[i]` is its place among policy tokens, or -1. */
function unroll(rollout) {
  if (rollout.policy) return rollout;
  const policy = new Int32Array(rollout.t.length).fill(-1);
  let at = 0, place = 0;
  rollout.m.forEach((length, run) => {
    for (let i = 0; i < length; i++, at++) if (run % 2) policy[at] = place++;
  });
  rollout.policy = policy;
  rollout.versions = rollout.v.flatMap(([version, count]) => Array(count).fill(version));
  return rollout;
}

/** The class that colours policy token number k. */
function tokenClass(mode, rollout, k, largest) {
  if (mode === "mask") return "m1";
  if (mode === "advantage") {
    if (rollout.adv === null) return "none";
    const level = rollout.adv === 0 ? 0 : Math.max(1, Math.ceil(Math.abs(rollout.adv) / largest * 3));
    return level ? (rollout.adv > 0 ? "u" : "d") + level : "a0";
  }
  if (mode === "gap") {
    const difference = rollout.d && rollout.d[k];
    return difference === null ? "none" : "g" + GAPS.filter((bound) => Math.abs(difference) >= bound).length;
  }
  if (rollout.p[k] === null) return "none";
  const probability = Math.exp(rollout.p[k]);
  return "p" + PROBABILITIES.filter((bound) => probability < bound).length;
}

function legend(mode, largest) {
  const entry = (name, text) => h("span", { class: "t " + name }, text);
  const what = (text) => h("span", { class: "what" }, text);
  if (mode === "mask") return [entry("m1", "sampled by the policy"), what("plain: prompt and observations")];
  if (mode === "advantage") return [what("advantage"), entry("d3", "−" + trimmed(largest, 2)), entry("d2", ""), entry("d1", ""), entry("a0", "0"),
    entry("u1", ""), entry("u2", ""), entry("u3", "+" + trimmed(largest, 2))].map((node) => { if (!node.textContent) node.textContent = "\u2002"; return node; });
  if (mode === "gap") return [what("|learner − rollout|, nats"), ...GAP_NAMES.map((name, i) => entry("g" + i, name)), entry("none", "not computed")];
  return [what("probability when sampled"), ...PROBABILITY_NAMES.map((name, i) => entry("p" + i, name))];
}

/** [start, end, turn number or -1] of everything between and in the turns. */
function segments(rollout) {
  const found = [];
  let at = 0;
  rollout.turns.forEach(([start, end], i) => {
    if (start > at) found.push([at, start, -1]);
    found.push([start, end, i]);
    at = end;
  });
  if (at < rollout.t.length) found.push([at, rollout.t.length, -1]);
  return found;
}

/** The whole token view; `hits` is a set of token numbers to mark. */
function tokenView(rollout, pool, mode, largest, hits) {
  unroll(rollout);
  const spans = [];
  const make = (i) => {
    const k = rollout.policy[i];
    const name = "t" + (k >= 0 ? " " + tokenClass(mode, rollout, k, largest) : "") + (hits.has(i) ? " hit" : "");
    return (spans[i] = h("span", { class: name, "data-i": i }, ...pieceNodes(pool.texts[rollout.t[i]])));
  };
  const blocks = segments(rollout).map(([start, end, turn]) => {
    const stream = h("div", { class: "stream" });
    addTokens(stream, start, end, turn < 0 && !hits.size, make);
    return h("div", { class: "segment " + (turn < 0 ? "context" : "turn") }, segmentLabel(rollout, start, end, turn), stream);
  });
  const box = h("div", { class: "tokens", tabindex: 0, role: "group", "aria-label": "Tokens; arrow keys move from token to token" }, blocks);
  attachTooltip(box, spans, rollout, pool);
  return box;
}

/** All tokens, or both ends of a long context with a button for the middle. */
function addTokens(stream, start, end, foldable, make) {
  const range = (from, to) => Array.from({ length: to - from }, (_, i) => make(from + i));
  if (!foldable || end - start <= SHOWN_CONTEXT) { stream.append(...range(start, end)); return; }
  const first = start + SHOWN_CONTEXT / 2, last = end - SHOWN_CONTEXT / 2;
  const button = h("button", { type: "button", class: "more-tokens", onclick: () => button.replaceWith(...range(first, last)) },
    `show ${GROUPED.format(last - first)} more tokens`);
  stream.append(...range(start, first), button, ...range(last, end));
}

function segmentLabel(rollout, start, end, turn) {
  const count = end - start, words = `${GROUPED.format(count)} ${count === 1 ? "token" : "tokens"}`;
  if (turn < 0) return h("p", { class: "label" }, `${start === 0 ? "prompt" : "observation"} · ${words}`);
  const known = rollout.p.slice(rollout.policy[start], rollout.policy[start] + count).filter((value) => value !== null);
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
  return h("p", { class: "label" }, h("b", {}, `turn ${turn + 1}`), ` · ${words} · mean log-prob ${known.length ? trimmed(mean, 3) : "–"}`,
    rollout.turns[turn][2] ? " · cut off at its token budget" : "");
}

/** A token's text; one whose character was shown at an earlier token is a dot. */
function pieceNodes(text) {
  return text === "" ? [h("span", { class: "sign" }, "·")] : visible(text);
}

/** A text with what cannot be seen made visible: line ends, tabs, control and direction characters. */
function visible(text) {
  return text.split(/([\n\r\t]|[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff])/).filter(Boolean).map((part) => {
    if (part === "\n") return lineEnd();
    if (part === "\r") return h("span", { class: "sign" }, "␍");
    if (part === "\t") return h("span", { class: "sign" }, "⇥\t");
    if (part.length === 1 && /[\0-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/.test(part)) return h("span", { class: "sign" }, `⟨${part.codePointAt(0).toString(16).padStart(4, "0")}⟩`);
    return part;
  });
}

function lineEnd() {
  return h("span", {}, h("span", { class: "sign" }, "↵"), "\n");
}

function attachTooltip(box, spans, rollout, pool) {
  const tip = byId("tooltip");
  let here = -1;
  const mark = (i) => {
    if (spans[here]) spans[here].classList.remove("here");
    here = i;
  };
  const showAt = (i) => {
    tip.replaceChildren(...tokenFacts(rollout, pool, i));
    tip.hidden = false;
    placeNear(tip, spans[i].getClientRects()[0] || spans[i].getBoundingClientRect());
  };
  const hide = () => { tip.hidden = true; };
  box.addEventListener("pointerover", (event) => {
    const span = event.target.closest("[data-i]");
    if (span) showAt(Number(span.dataset.i)); else hide();
  });
  box.addEventListener("pointerleave", hide);
  box.addEventListener("blur", () => { mark(-1); hide(); });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") { mark(-1); hide(); }
    if (!step || event.target !== box) return;
    event.preventDefault();
    let next = here < 0 ? rollout.turns.length ? rollout.turns[0][0] : 0 : here + step;
    while (next > 0 && next < rollout.t.length && !spans[next]) next += step;
    if (!spans[next]) return;
    mark(next);
    spans[next].classList.add("here");
    spans[next].scrollIntoView({ block: "nearest" });
    showAt(next);
    box.setAttribute("aria-description", tip.innerText.replaceAll("\n", " "));
  });
}

function tokenFacts(rollout, pool, i) {
  const number = rollout.t[i], k = rollout.policy[i];
  const entries = [["token id", String(pool.ids[number])], ["position", GROUPED.format(i)]];
  if (k < 0) entries.push(["written by", "prompt or environment"]);
  else {
    const p = rollout.p[k], d = rollout.d ? rollout.d[k] : null;
    entries.push(["rollout log-prob", p === null ? "–" : trimmed(p, 5)], ["probability", p === null ? "–" : trimmed(Math.exp(p), 3)],
      ["learner log-prob", p === null || d === null ? "not computed" : trimmed(p + d, 5)],
      ["learner − rollout", d === null ? "–" : trimmed(d, 3)], ["policy version", String(rollout.versions[k])]);
    if (rollout.adv !== null) entries.push(["advantage", trimmed(rollout.adv, 4)]);
  }
  return [h("div", { class: "piece" }, JSON.stringify(pool.texts[number])), h("dl", {}, entries.map(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]).flat())];
}

function placeNear(tip, box) {
  const { width, height } = tip.getBoundingClientRect();
  const above = box.top - height - 8;
  tip.style.left = `${clamp(box.left, 6, Math.max(6, innerWidth - width - 6))}px`;
  tip.style.top = `${above > 54 ? above : box.bottom + 8}px`;
}
