import { html } from 'hono/html';
import { extent, type Html, linearScale, px } from './line-chart.ts';

export interface ScatterGroup {
  readonly label: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** CSS class of the dots: `dot-main`, `dot-other`. */
  readonly className: string;
}

export interface ScatterChart {
  readonly title: string;
  /** What the chart shows, for those who cannot see it. */
  readonly description: string;
  readonly groups: readonly ScatterGroup[];
}

const SIDE = 420;
const MARGIN = 12;

/** Points in a plane whose directions mean nothing by themselves: no axes. Coloured by the page's style sheet. */
export function scatterChart({ title, description, groups }: ScatterChart): Html {
  const points = groups.flatMap((group) => group.points);
  if (points.length === 0) return html`<p class="quiet">Nothing was recorded.</p>`;
  const x = linearScale(extent(points.map(([value]) => value)), [MARGIN, SIDE - MARGIN]);
  const y = linearScale(extent(points.map(([, value]) => value)), [SIDE - MARGIN, MARGIN]);
  return html`<figure><figcaption>${title}</figcaption>
<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 ${SIDE} ${SIDE}" role="img" aria-label="${description}">
<title>${description}</title>
${groups.map(
  ({ points: own, className }) =>
    html`<g class="${className}">${own.map(([px0, py0]) => html`<circle cx="${px(x(px0))}" cy="${px(y(py0))}" r="3"/>`)}</g>`,
)}
</svg></figure>`;
}

/** Charts beside each other under one legend. */
export function scatterPair(charts: readonly ScatterChart[]): Html {
  const groups = charts[0]?.groups ?? [];
  return html`<div class="pair">${charts.map(scatterChart)}</div>
<p class="legend">${groups.map(({ label, className }) => html`<span><i class="${className}"></i>${label}</span>`)}</p>`;
}
