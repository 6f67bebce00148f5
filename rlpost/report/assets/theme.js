// What every page starts with: the colour theme, and unpacking what travels compressed.

const THEMES = [["", "Auto"], ["light", "Light"], ["dark", "Dark"]];

function setTheme(theme) {
  document.documentElement.style.colorScheme = theme;
  try { localStorage.setItem("rlpost-theme", theme); } catch { /* a browser may forbid storage for local files */ }
}

function storedTheme() {
  try { return localStorage.getItem("rlpost-theme") || ""; } catch { return ""; }
}

/** Rollouts and answers travel compressed; unpack them once. */
async function unpack(element) {
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  element.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const theme = storedTheme();
if (theme) document.documentElement.style.colorScheme = theme;
segmented(byId("theme"), "theme", THEMES, theme, setTheme);
