// The list of a page whose script keeps `browser` and says what `listRow` is: rows are added as it is scrolled.
function renderRows() {
  const next = browser.found.slice(browser.rendered, browser.rendered + PAGE);
  byId("list").append(...next.map((item, i) => listRow(item, browser.rendered + i)));
  browser.rendered += next.length;
}

function growList() {
  const list = byId("list");
  if (browser.rendered < browser.found.length && list.scrollTop + list.clientHeight > list.scrollHeight - 600) renderRows();
}
