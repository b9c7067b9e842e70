import { html, raw } from 'hono/html';

export type Html = ReturnType<typeof html>;

export interface Series {
  readonly label: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** CSS class of the line: `line-main`, `line-faint` … */
  readonly className: string;
}

export interface LineChart {
  /** What the chart shows, for those who cannot see it. */
  readonly description: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly Series[];
  readonly marks?: readonly { readonly x: number; readonly label: string }[];
  readonly bands?: readonly { readonly from: number; readonly to: number; readonly label: string }[];
  /** Default: the least value shown. */
  readonly yMin?: number;
}

export const CHART_WIDTH = 860;
export const CHART_HEIGHT = 320;
const MARGIN = { top: 26, right: 16, bottom: 42, left: 56 };
/** More points than this are thinned out: a screen has no more columns. */
const POINTS_MAX = 1600;

export interface Scale {
  (value: number): number;
  readonly ticks: readonly number[];
}

/** A line chart with its legend, coloured by the page's style sheet. */
export function lineChart(chart: LineChart): Html {
  if (shownPoints(chart).length === 0) return html`<p class="quiet">Nothing was recorded.</p>`;
  return html`${chartSvg(chart)}
<p class="legend">${chart.series.map((series) => html`<span><i class="${series.className}"></i>${series.label}</span>`)}</p>`;
}

function shownPoints(chart: LineChart): (readonly [number, number])[] {
  return chart.series.flatMap((series) => series.points).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
}

/** The chart alone; `style` goes into the image, for a file that stands by itself. There must be something to show. */
export function chartSvg(chart: LineChart, style?: string): Html {
  const points = shownPoints(chart);
  const right = CHART_WIDTH - MARGIN.right;
  const bottom = CHART_HEIGHT - MARGIN.bottom;
  const xs = extent([...points.map(([x]) => x), ...(chart.bands ?? []).flatMap(({ from, to }) => [from, to])]);
  const ys = extent([...points.map(([, y]) => y), ...(chart.yMin === undefined ? [] : [chart.yMin])]);
  const x = linearScale(xs, [MARGIN.left, right]);
  const y = linearScale(ys, [bottom, MARGIN.top]);
  return html`<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 ${CHART_WIDTH} ${CHART_HEIGHT}" role="img" aria-label="${chart.description}">
<title>${chart.description}</title>
${style === undefined ? '' : html`<style>${raw(style)}</style>`}
${(chart.bands ?? []).map((band) => bandOf(band, x, bottom))}
<g class="grid">${y.ticks.map((tick) => html`<line x1="${MARGIN.left}" x2="${right}" y1="${px(y(tick))}" y2="${px(y(tick))}"/>`)}</g>
<g class="axis">
${y.ticks.map((tick) => html`<text x="${MARGIN.left - 8}" y="${px(y(tick) + 4)}" text-anchor="end">${tickText(tick, y.ticks)}</text>`)}
${x.ticks.map((tick) => html`<text x="${px(x(tick))}" y="${bottom + 18}" text-anchor="middle">${tickText(tick, x.ticks)}</text>`)}
<text x="${right}" y="${CHART_HEIGHT - 6}" text-anchor="end">${chart.xLabel}</text>
<text x="${MARGIN.left - 44}" y="14">${chart.yLabel}</text>
</g>
${chart.series.map((series) => html`<polyline class="${series.className}" points="${pathOf(series.points, x, y)}"/>`)}
${(chart.marks ?? []).map((mark) => markOf(mark, x, bottom))}
</svg>`;
}

function bandOf(band: { from: number; to: number; label: string }, x: Scale, bottom: number): Html {
  const width = Math.max(2, x(band.to) - x(band.from));
  return html`<rect class="band" x="${px(x(band.from))}" y="${MARGIN.top}" width="${px(width)}" height="${bottom - MARGIN.top}"><title>${band.label}</title></rect>`;
}

function markOf(mark: { x: number; label: string }, x: Scale, bottom: number): Html {
  const at = x(mark.x);
  // The label goes where there is room for it.
  const anchor = at > CHART_WIDTH * 0.6 ? 'end' : 'start';
  const offset = anchor === 'end' ? -6 : 6;
  return html`<g class="mark"><line x1="${px(at)}" x2="${px(at)}" y1="${MARGIN.top - 8}" y2="${bottom}"/><text x="${px(at + offset)}" y="${MARGIN.top}" text-anchor="${anchor}">${mark.label}</text></g>`;
}

function pathOf(points: Series['points'], x: Scale, y: Scale): Html {
  const stride = Math.max(1, Math.ceil(points.length / POINTS_MAX));
  const kept = points.filter((_, i) => i % stride === 0 || i === points.length - 1);
  return raw(kept.map(([px0, py0]) => `${px(x(px0))},${px(y(py0))}`).join(' '));
}

/** The least and the largest value, never equal. */
export function extent(values: readonly number[]): readonly [number, number] {
  // Not Math.min(...values): a long run has more steps than a call may have arguments.
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

/** From values to pixels, with round ticks. */
export function linearScale([low, high]: readonly [number, number], [from, to]: readonly [number, number]): Scale {
  const scale = (value: number) => from + ((value - low) / (high - low)) * (to - from);
  return Object.assign(scale, { ticks: niceTicks(low, high, 6) });
}

/** At most about `count` round numbers in [low, high]: 1, 2 or 5 times a power of ten apart. */
export function niceTicks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? rough;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function tickText(tick: number, ticks: readonly number[]): string {
  const step = Math.abs((ticks[1] ?? 1) - (ticks[0] ?? 0)) || 1;
  return tick.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
}

/** A coordinate as text. */
export const px = (value: number) => value.toFixed(1);
