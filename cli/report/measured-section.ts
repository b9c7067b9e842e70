import { html } from 'hono/html';
import { type Html, lineChart, type Series } from './line-chart.ts';
import type { TrainingRecord } from './report-data.ts';

const LINES = ['line-main', 'line-faint', 'line-third', 'line-fourth'] as const;
/** Lines that a chart can tell apart. */
const LINES_MAX = LINES.length;

/** What was measured of the run besides its loss: the objective's own results, the spread of its embeddings, held-out data. */
export function measuredSection({ steps, evaluations = [] }: TrainingRecord): Html {
  const measured = steps.flatMap(({ step, measures = {} }) =>
    Object.entries(measures).map(([name, y]) => ({ name, x: step, y })),
  );
  const heldOut = evaluations.flatMap(({ step, metrics }) =>
    Object.entries(metrics).map(([name, y]) => ({ name, x: step, y })),
  );
  const isShare = ({ name }: Point) => /top\d|R@\d+$/.test(name);
  const charts = [
    { title: 'Of the steps', points: measured.filter(({ name }) => !name.endsWith('effective_rank')) },
    { title: 'Held-out data: accuracies and recalls', points: heldOut.filter(isShare) },
    { title: 'Held-out data: losses', points: heldOut.filter(({ name }) => name.endsWith('_val_loss')) },
  ].filter(({ points }) => points.length > 0);
  if (charts.length === 0) return html``;
  return html`<section><h2>Measured while it trained</h2>
${charts.map(({ title, points }) => groupsOf(seriesOf(points)).map((series, i) => chart(i === 0 ? title : `${title}, continued`, series)))}
${lastTable(evaluations)}</section>`;
}

interface Point {
  readonly name: string;
  readonly x: number;
  readonly y: number;
}

function seriesOf(points: readonly Point[]): Omit<Series, 'className'>[] {
  const byName = new Map<string, [number, number][]>();
  for (const { name, x, y } of points) byName.set(name, [...(byName.get(name) ?? []), [x, y]]);
  return [...byName].map(([label, own]) => ({ label, points: own }));
}

function groupsOf(series: readonly Omit<Series, 'className'>[]): Series[][] {
  const groups: Series[][] = [];
  for (let begin = 0; begin < series.length; begin += LINES_MAX) {
    groups.push(series.slice(begin, begin + LINES_MAX).map((one, i) => ({ ...one, className: LINES[i]! })));
  }
  return groups;
}

function chart(title: string, series: readonly Series[]): Html {
  const names = series.map(({ label }) => label).join(', ');
  return html`<h3>${title}</h3>${lineChart({ description: `${names} by step`, xLabel: 'step', yLabel: '', series })}`;
}

function lastTable(evaluations: NonNullable<TrainingRecord['evaluations']>): Html {
  const last = evaluations.at(-1);
  if (last === undefined) return html``;
  return html`<details><summary>All figures of the last evaluation, after step ${last.step}</summary><table><tbody>${Object.entries(
    last.metrics,
  ).map(
    ([name, value]) => html`<tr><th>${name}</th><td class="number">${Number(value.toPrecision(4))}</td></tr>`,
  )}</tbody></table></details>`;
}
