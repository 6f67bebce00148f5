// Start: head, charts, folds, rollouts.

/** Held-out evaluations stand where their policy stands: before the first step, and after the last. */
function evaluationMarks(run) {
  const steps = run.curves.columns.step || [], { before, after } = run.evaluations;
  if (!steps.length) return [];
  const mark = (found, step, label, hollow) => ({ step, label, hollow, value: found.success, low: found.ci95[0], high: found.ci95[1] });
  return [...(before ? [mark(before, steps[0], "held-out, before", true)] : []), ...(after ? [mark(after, steps.at(-1) + 1, "held-out, after", false)] : [])];
}

function drawCurves(run) {
  const { columns, charts, more } = run.curves;
  if (!columns.step || !charts.length) { byId("curves").hidden = true; return; }
  byId("curves-hint").textContent = `${GROUPED.format(columns.step.length)} steps. Point at a curve, or focus it and use the arrow keys: all charts read the same step.`;
  for (const chart of charts) byId(chart.main ? "main-charts" : "charts").append(
    chartFigure(chart, columns, chart.title === "Success" ? evaluationMarks(run) : []));
  if (more.length) lazily(byId("more"), () => byId("more-charts").append(...more.map((chart) => chartFigure(chart, columns))));
  view.smooth = columns.step.length >= 60;
  byId("smooth-label").hidden = columns.step.length < 12;
  byId("smooth").checked = view.smooth;
  byId("smooth").addEventListener("change", (event) => { view.smooth = event.target.checked; plots.forEach(draw); });
}

const run = JSON.parse(byId("run-data").textContent);
drawHead(run);
drawCurves(run);
drawFolds(run);
if (run.sources) document.querySelectorAll("#rollouts, [href='#rollouts']").forEach((part) => part.remove());
else startBrowser();
