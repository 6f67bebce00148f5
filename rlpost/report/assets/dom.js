// Building the page. Strings only ever become text nodes or attribute values: nothing here parses HTML.

/** An element; props are attributes (class, aria-*, ...), `on*` functions are listeners, kids are nodes or strings. */
function h(tag, props, ...kids) {
  return fill(document.createElement(tag), props, kids);
}

/** The same for SVG. */
function svg(tag, props, ...kids) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, kids);
}

function fill(node, props, kids) {
  for (const [key, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const kid of kids.flat()) if (kid !== null && kid !== undefined) node.append(kid);
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

/** Put a segmented control of radio buttons into a fieldset; options are [value, label]. */
function segmented(fieldset, name, options, chosen, onChange) {
  for (const [value, label] of options) {
    const input = h("input", { type: "radio", name, value, onchange: () => onChange(value) });
    input.checked = value === chosen;
    fieldset.append(h("label", {}, input, h("span", {}, label)));
  }
  return fieldset;
}

/** Terms and their descriptions, each pair in a div. */
function pairs(className, entries) {
  return h("dl", { class: className }, entries.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text))));
}

/** Fill a <details> the first time it is opened. */
function lazily(details, build) {
  details.hidden = false;
  details.addEventListener("toggle", () => { if (details.open) build(); }, { once: true });
}

/** The fold with the packages' versions; it stays hidden where none are known. */
function drawVersions(versions) {
  const rows = Object.entries(versions).map(([name, version]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, version)));
  const table = () => h("div", { class: "table" }, h("table", { class: "pairs" }, h("tbody", {}, rows)));
  if (rows.length) lazily(byId("versions"), () => byId("versions").append(table()));
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
