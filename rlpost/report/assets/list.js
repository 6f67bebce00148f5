// A filtered list beside the item that was chosen. The page's script keeps `browser` and `SORTS`, and says what NOUN (one,
// many, and what a good and a bad one are), `isRight`, `matches`, `inOrder`, `listRow` and `showItem` are of its items.

/** Sets a filter, and the list with it. */
function filterBy(key) {
  return (value) => { browser.filter[key] = value; applyFilter(); };
}

function valuesOf(key) {
  return [...new Set(browser.all.map((item) => item[key]))];
}

function selectFilter(key, label, options) {
  return h("label", { class: "field" }, label,
    h("select", { name: key, onchange: (event) => filterBy(key)(event.target.value) }, options.map(([value, text]) => h("option", { value }, text))));
}

function stopFilter(label) {
  return selectFilter("stop", label, [["", "any"], ...valuesOf("stop").map((stop) => [stop, stop.replaceAll("_", " ")])]);
}

function outcomeFilter(right, wrong) {
  const choices = h("fieldset", { class: "choice" }, h("legend", { class: "hidden" }, "Outcome"));
  segmented(choices, "outcome", [["", "All"], ["right", "✓ " + right], ["wrong", "✗ " + wrong]], "", filterBy("outcome"));
  return h("div", { class: "field" }, "Outcome", choices);
}

function searchFilter(placeholder) {
  let wait;
  const search = h("input", { type: "search", name: "text", placeholder, oninput: (event) => {
    clearTimeout(wait);
    wait = setTimeout(() => filterBy("text")(event.target.value.toLowerCase()), 120);
  } });
  return h("label", { class: "field grow" }, "Search", search);
}

/** Show the list, under these filters and a choice of order. */
function startList(filters) {
  byId("filters").append(...filters, selectFilter("sort", "Sort", Object.entries(SORTS).map(([value, [text]]) => [value, text])));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").hidden = byId("browser").hidden = false;
  byId("list").addEventListener("keydown", listKey);
  byId("list").addEventListener("scroll", growList);
  applyFilter();
}

function applyFilter() {
  const { outcome } = browser.filter;
  browser.found = browser.all.filter((item) => (!outcome || isRight(item) === (outcome === "right")) && matches(item)).sort(inOrder);
  const count = browser.found.length, [one, many, good] = NOUN;
  byId("count").textContent = `${GROUPED.format(count)} ${count === 1 ? one : many}, ${GROUPED.format(browser.found.filter(isRight).length)} ${good}`;
  browser.rendered = 0;
  browser.chosen = -1;
  byId("list").replaceChildren();
  byId("list").scrollTop = 0;
  if (!count) {
    byId("list").append(h("p", { class: "empty" }, `No ${one} matches these filters.`));
    byId("detail").replaceChildren();
    return;
  }
  renderRows();
  choose(0);
}

function verdict(item) {
  const right = isRight(item), [, , good, bad] = NOUN;
  return h("span", { class: right ? "solved" : "unsolved", role: "img", "aria-label": right ? good : bad }, right ? "✓" : "✗");
}

function renderRows() {
  const next = browser.found.slice(browser.rendered, browser.rendered + PAGE);
  byId("list").append(...next.map((item, i) => rowAt(item, browser.rendered + i)));
  browser.rendered += next.length;
}

function rowAt(item, position) {
  return h("div", { class: "row", role: "option", id: `row-${position}`, "aria-selected": "false", onclick: () => { choose(position); if (innerWidth <= 860) byId("detail").scrollIntoView(); } },
    verdict(item), ...listRow(item));
}

/** Rows are added as the list is scrolled. */
function growList() {
  const list = byId("list");
  if (browser.rendered < browser.found.length && list.scrollTop + list.clientHeight > list.scrollHeight - 600) renderRows();
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
  showItem(browser.found[position]);
}

/** Those of the same group, one button each; one that the filters hide is shown all the same. */
function siblingButtons(items, current, label, words, text) {
  if (items.length < 2) return [];
  const go = (other) => {
    const position = browser.found.indexOf(other);
    if (position >= 0) { choose(position); byId(`row-${position}`).scrollIntoView({ block: "nearest" }); } else showItem(other);
  };
  return [h("div", { class: "siblings", role: "group", "aria-label": label }, words, items.map((other) =>
    h("button", { type: "button", "aria-current": String(other === current), title: `reward ${other.reward}`, onclick: () => go(other) }, verdict(other), " " + text(other))))];
}
