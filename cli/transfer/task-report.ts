import { html } from 'hono/html';
import type { L2Trial } from '../../models/linear/l2-sweep.ts';
import type { AdapterOptions } from '../../transfer/adapters/adapter.ts';
import type { Evaluation } from '../../transfer/tune/evaluate.ts';
import type { TuneRecord } from '../../transfer/tune/tune.ts';
import type { WisePoint } from '../../transfer/tune/wise-ft.ts';
import { type Html, lineChart } from '../report/line-chart.ts';

export const percent = (share: number) => (Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : '–');

export function adapterInWords(options: AdapterOptions): string {
  switch (options.kind) {
    case 'lora':
      return `lora, rank ${options.rank}`;
    case 'bottleneck':
      return `bottleneck, width ${options.width}`;
    case 'conv':
      return `conv, ${options.placement}`;
  }
}

/** Recall of every class, and what it is taken for most. */
export function classSection(evaluation: Evaluation, classes: readonly string[], judgedOn: string): Html {
  return html`<section><h2>Every class</h2><p>Pictures of the ${judgedOn} split.</p>
${classTable(evaluation, classes)}</section>`;
}

/** The same as a table alone. */
export function classTable({ confusion }: Evaluation, classes: readonly string[]): Html {
  const rows = confusion.flatMap((row, k) => {
    const count = row.reduce((a, b) => a + b, 0);
    if (count === 0) return [];
    const mistakes = row
      .map((n, other) => ({ n, name: classes[other]! }))
      .filter(({ n }, other) => n > 0 && other !== k)
      .sort((a, b) => b.n - a.n);
    return [{ name: classes[k]!, count, recall: row[k]! / count, mistakes: mistakes.slice(0, 3) }];
  });
  return html`<table><thead><tr><th>class</th><th class="number">pictures</th><th class="number">right</th><th>taken for</th></tr></thead><tbody>${rows.map(
    ({ name, count, recall, mistakes }) =>
      html`<tr><th>${name}</th><td class="number">${count}</td><td class="number">${percent(recall)}</td><td>${mistakes.map(({ n, name: other }) => `${other} ${n}`).join(', ')}</td></tr>`,
  )}</tbody></table>`;
}

/** Every penalty that was tried. */
export function sweepSection(trials: readonly L2Trial[], best: L2Trial): Html {
  return html`<section><h2>The penalty</h2><p>Each fit is an optimum; the chosen one has the highest validation accuracy.</p>
<table><thead><tr><th class="number">λ</th><th class="number">train</th><th class="number">validation</th><th class="number">evaluations</th><th class="number">gradient norm, relative</th></tr></thead><tbody>${trials.map(
    (trial) =>
      html`<tr><td class="number">${trial === best ? '✓ ' : ''}${trial.l2.toExponential(1)}</td><td class="number">${percent(trial.train.accuracy)}</td><td class="number">${percent(trial.validation.accuracy)}</td><td class="number">${trial.fit.evaluations}</td><td class="number">${trial.fit.gradientNormRelative.toExponential(1)}</td></tr>`,
  )}</tbody></table></section>`;
}

/** Loss and validation accuracy over the steps. */
export function historySection(history: readonly TuneRecord[], best: TuneRecord): Html {
  const line = (pick: (record: TuneRecord) => number) => history.map((one) => [one.step, pick(one)] as const);
  return html`<section><h2>Training</h2>${lineChart({
    description: 'Validation accuracy over the steps',
    xLabel: 'step',
    yLabel: 'accuracy',
    series: [{ label: 'validation accuracy', points: line(({ accuracy }) => accuracy), className: 'line-main' }],
    marks: [{ x: best.step, label: 'kept' }],
  })}${lineChart({
    description: 'Training and validation loss over the steps',
    xLabel: 'step',
    yLabel: 'loss',
    series: [
      {
        label: 'training (augmented, smoothed targets)',
        points: line(({ trainLoss }) => trainLoss),
        className: 'line-faint',
      },
      { label: 'validation', points: line(({ crossEntropy }) => crossEntropy), className: 'line-main' },
    ],
  })}</section>`;
}

/** WiSE-FT: accuracy between the weights before and after. */
export function wiseSection(curve: readonly WisePoint[], judgedOn: string): Html {
  return html`<section><h2>Between before and after (WiSE-FT)</h2><p>Accuracy on the ${judgedOn} split of the weights (1 − α)·before + α·after.</p>${lineChart(
    {
      description: 'Accuracy over alpha',
      xLabel: 'α',
      yLabel: 'accuracy',
      series: [
        {
          label: 'accuracy',
          points: curve.map(({ alpha, evaluation }) => [alpha, evaluation.accuracy] as const),
          className: 'line-main',
        },
      ],
    },
  )}</section>`;
}

/** What it was made of and with. */
export function factsSection(facts: Readonly<Record<string, string>>, recipe: string): Html {
  return html`<section><h2>How it was run</h2><table><tbody>${Object.entries(facts).map(
    ([name, value]) => html`<tr><th>${name}</th><td>${value}</td></tr>`,
  )}</tbody></table><details><summary>The complete recipe</summary><pre>${recipe}</pre></details></section>`;
}
