import { html, raw } from 'hono/html';
import type { Html } from './line-chart.ts';
import type { HeadlineFigure } from './report-data.ts';
import { REPORT_STYLES } from './styles.ts';

export interface Page {
  readonly title: string;
  /** One or two sentences under the title. */
  readonly summary: string;
  /** ISO 8601. */
  readonly createdAt: string;
  readonly headline: readonly HeadlineFigure[];
  readonly sections: readonly Html[];
}

/** A report as one HTML file: no script, no request to anywhere, pictures inside. */
export async function renderPage({ title, summary, createdAt, headline, sections }: Page): Promise<string> {
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${title}</title><style>${raw(REPORT_STYLES)}</style></head>
<body><main>
<h1>${title}</h1><p>${summary}</p><p class="note">${createdAt}</p>
<dl class="figures">${headline.map(
    ({ label, value, note }) =>
      html`<div><dt>${label}</dt><dd>${value}${note === undefined ? '' : html`<small>${note}</small>`}</dd></div>`,
  )}</dl>
${sections}
</main></body></html>
`;
  return String(await page);
}
