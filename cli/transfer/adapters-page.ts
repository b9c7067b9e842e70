import { html } from 'hono/html';
import type { Evaluation } from '../../transfer/tune/evaluate.ts';
import { barChart } from '../report/bar-chart.ts';
import type { Html } from '../report/line-chart.ts';
import { renderPage } from '../report/page.ts';
import type { AdapterResults, AdapterTask } from './evaluate-adapters.ts';
import { classTable, factsSection, percent } from './task-report.ts';

/** What the page shows of one task beside its figures. */
export interface JudgedTask {
  readonly task: AdapterTask;
  /** Manifest of its pictures. */
  readonly data: string;
  readonly evaluation: Evaluation;
  readonly classNames: readonly string[];
  /** Some of its pictures, with label and prediction; undefined where nobody asked for the page. */
  readonly pictures: Html | undefined;
}

/** Several tasks on one backbone: their accuracies beside each other, then every task by itself. */
export function adaptersPage(
  results: AdapterResults,
  judged: readonly JudgedTask[],
  createdAt: string,
): Promise<string> {
  const { backbone, sharedParameters, taskParameters, tasks } = results;
  return renderPage({
    title: `Adapters of ${backbone}`,
    summary: `${tasks.length === 1 ? 'One task' : `${tasks.length} tasks`} on one backbone, which is in memory once; each has an adapter, the layers that were trained with it, and a head of its own.`,
    createdAt,
    headline: [
      { label: 'tasks', value: String(tasks.length) },
      { label: 'numbers of the backbone', value: String(sharedParameters), note: 'once' },
      { label: 'numbers of the tasks', value: String(taskParameters), note: 'all of them together' },
    ],
    sections: [
      accuracySection(tasks),
      ...judged.map(taskSection),
      factsSection({ backbone }, JSON.stringify(results, null, 2)),
    ],
  });
}

function accuracySection(tasks: readonly AdapterTask[]): Html {
  return html`<section><h2>Accuracies</h2>
<table><thead><tr><th>adapter</th><th>kind</th><th class="number">classes</th><th class="number">pictures</th><th class="number">accuracy</th><th class="number">mean over classes</th></tr></thead><tbody>${tasks.map(
    ({ adapter, kind, classes, pictures, accuracy, classAccuracy }) =>
      html`<tr><th>${adapter}</th><td>${kind}</td><td class="number">${classes}</td><td class="number">${pictures}</td><td class="number">${percent(accuracy)}</td><td class="number">${percent(classAccuracy)}</td></tr>`,
  )}</tbody></table>
${barChart(tasks.map(({ adapter, accuracy }) => ({ label: adapter, share: accuracy, value: percent(accuracy) })))}</section>`;
}

function taskSection({ task, data, evaluation, classNames, pictures }: JudgedTask): Html {
  return html`<section><h2>${task.adapter}</h2><p>${task.kind}; ${task.pictures} pictures of ${data}.</p>
${pictures ?? ''}${classTable(evaluation, classNames)}</section>`;
}
