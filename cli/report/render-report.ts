import { html } from 'hono/html';
import { evaluationSections } from './evaluation-sections.ts';
import type { Html } from './line-chart.ts';
import { measuredSection } from './measured-section.ts';
import { renderPage } from './page.ts';
import type { ReportData } from './report-data.ts';
import { lossSection, paceSection } from './training-sections.ts';

/** The whole report of a training run. */
export async function renderReport(report: ReportData): Promise<string> {
  const { training, evaluation } = report;
  return renderPage({
    ...report,
    sections: [
      lossSection(training),
      measuredSection(training),
      paceSection(training),
      ...(evaluation === undefined ? [] : [evaluationSections(evaluation)]),
      creditsSection(report),
      howSection(report),
    ],
  });
}

function creditsSection({ credits }: ReportData): Html {
  if (Object.keys(credits).length === 0) return html``;
  return html`<section><h2>Pictures</h2><p>Drawn by others and openly licensed; thank you.</p><table><tbody>${Object.entries(
    credits,
  ).map(([source, credit]) => html`<tr><th>${source}</th><td>${credit}</td></tr>`)}</tbody></table></section>`;
}

function howSection({ environment, configYaml }: ReportData): Html {
  return html`<section><h2>How it was run</h2><table><tbody>${Object.entries(environment).map(
    ([name, version]) => html`<tr><th>${name}</th><td>${version}</td></tr>`,
  )}</tbody></table><details><summary>The complete config</summary><pre>${configYaml}</pre></details></section>`;
}
