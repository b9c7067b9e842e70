import { html } from 'hono/html';
import { type Html, lineChart } from '../report/line-chart.ts';
import { renderPage } from '../report/page.ts';
import type { ComparedRow } from './compare.ts';
import { COMPARED_IN_WORDS, type ComparedMethod } from './compared-methods.ts';
import { factsSection, percent } from './task-report.ts';

export interface ComparisonSummary {
  readonly backbone: string;
  readonly judgedOn: string;
  readonly judged: number;
  readonly classes: number;
  readonly seeds: number;
  readonly rows: readonly ComparedRow[];
}

const LINES: Readonly<Record<ComparedMethod, string>> = {
  scratch: 'line-faint',
  probe: 'line-third',
  finetune: 'line-main',
};

type Measure = 'accuracy' | 'classAccuracy';

/** A line per method, a column per share of the labels; the last line is what pretraining brought. */
export function comparisonTable(
  { rows }: ComparisonSummary,
  measure: Measure = 'accuracy',
): { readonly head: string[]; readonly rows: string[][] } {
  const fractions = [...new Set(rows.map(({ fraction }) => fraction))];
  const methods = [...new Set(rows.map(({ method }) => method))];
  const at = (method: ComparedMethod, fraction: number) =>
    rows.find((row) => row.method === method && row.fraction === fraction);
  const lines = methods.map((method) => [
    COMPARED_IN_WORDS[method],
    ...fractions.map((fraction) => shown(at(method, fraction)!, measure)),
  ]);
  const gains = fractions.map((fraction) => {
    const scratch = at('scratch', fraction);
    const others = methods.flatMap((method) => (method === 'scratch' ? [] : at(method, fraction)![measure]));
    return scratch === undefined || others.length === 0 ? undefined : Math.max(...others) - scratch[measure];
  });
  const gainLine = gains.some((gain) => gain !== undefined)
    ? [['better of the two, less scratch', ...gains.map((gain) => points(gain ?? Number.NaN))]]
    : [];
  const head = fractions.map((fraction) => {
    const { pictures } = rows.find((row) => row.fraction === fraction)!;
    return `${Number((100 * fraction).toPrecision(3))} % (${Math.round(pictures)} pictures)`;
  });
  return { head: ['', ...head], rows: [...lines, ...gainLine] };
}

function shown(row: ComparedRow, measure: Measure): string {
  const [least, largest] = row[`${measure}Range`];
  const half = (largest - least) / 2;
  return half === 0 ? percent(row[measure]) : `${percent(row[measure])} ± ${(100 * half).toFixed(1)}`;
}

const points = (gain: number) => `${gain < 0 ? '−' : '+'}${Math.abs(100 * gain).toFixed(1)} points`;

/** The table and a chart of it. */
export function comparisonPage(summary: ComparisonSummary, recipes: object, createdAt: string): Promise<string> {
  const { backbone, judgedOn, judged, classes, seeds, rows } = summary;
  const methods = [...new Set(rows.map(({ method }) => method))];
  const most = Math.max(...rows.map(({ fraction }) => fraction));
  return renderPage({
    title: `What ${backbone} is worth`,
    summary: `${classes} classes; accuracy on ${judged} pictures of the ${judgedOn} split${seeds > 1 ? `, mean over ${seeds} seeds ± half their range` : ''}.`,
    createdAt,
    headline: methods.map((method) => ({
      label: COMPARED_IN_WORDS[method],
      value: percent(rows.find((row) => row.method === method && row.fraction === most)!.accuracy),
      note: `with ${Number((100 * most).toPrecision(3))} % of the labels`,
    })),
    sections: [
      tableSection(summary),
      html`<section><h2>By the number of labels</h2>${lineChart({
        description: 'Accuracy of each method over the number of labelled pictures',
        xLabel: 'labelled pictures, power of ten',
        yLabel: 'accuracy',
        yMin: 0,
        series: methods.map((method) => ({
          label: COMPARED_IN_WORDS[method],
          className: LINES[method],
          points: rows
            .filter((row) => row.method === method)
            .map(({ pictures, accuracy }) => [Math.log10(pictures), accuracy] as const),
        })),
      })}</section>`,
      factsSection({ backbone }, JSON.stringify(recipes, null, 2)),
    ],
  });
}

function tableSection(summary: ComparisonSummary): Html {
  return html`<section><h2>By the share of the labels</h2><p>From scratch: random weights of the same shape, all at the whole learning rate; the other settings are those of fine-tuning.</p>
${tableOf(comparisonTable(summary))}
<h3>Mean over the classes, each counting one</h3>${tableOf(comparisonTable(summary, 'classAccuracy'))}</section>`;
}

function tableOf({ head, rows }: ReturnType<typeof comparisonTable>): Html {
  return html`<table><thead><tr>${head.map((name, i) => (i === 0 ? html`<th></th>` : html`<th class="number">${name}</th>`))}</tr></thead><tbody>${rows.map(
    ([name, ...cells]) => html`<tr><th>${name}</th>${cells.map((one) => html`<td class="number">${one}</td>`)}</tr>`,
  )}</tbody></table>`;
}
