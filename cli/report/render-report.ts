import { html, raw } from 'hono/html';
import { evaluationSections } from './evaluation-sections.ts';
import type { Html } from './line-chart.ts';
import type { ReportData } from './report-data.ts';
import { REPORT_STYLES } from './styles.ts';
import { lossSection, paceSection } from './training-sections.ts';

/** The whole report as one HTML file: no script, no request to anywhere, pictures inside. */
export async function renderReport(report: ReportData): Promise<string> {
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${report.title}</title><style>${raw(REPORT_STYLES)}</style></head>
<body><main>
<h1>${report.title}</h1><p>${report.summary}</p><p class="note">${report.createdAt}</p>
<dl class="figures">${report.headline.map(
    ({ label, value, note }) =>
      html`<div><dt>${label}</dt><dd>${value}${note === undefined ? '' : html`<small>${note}</small>`}</dd></div>`,
  )}</dl>
${lossSection(report.training)}
${paceSection(report.training)}
${report.evaluation === undefined ? '' : evaluationSections(report.evaluation)}
${creditsSection(report)}
${howSection(report)}
</main></body></html>
`;
  return String(await page);
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
