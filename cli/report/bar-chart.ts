import { html } from 'hono/html';
import type { Html } from './line-chart.ts';

export interface Bar {
  readonly label: string;
  /** 0 to 1: how much of the width it takes. */
  readonly share: number;
  /** The share in words, beside the label. */
  readonly value: string;
}

/** Shares as horizontal bars, one below the other, in the order given. A share that is no number has an empty bar. */
export function barChart(bars: readonly Bar[]): Html {
  return html`${bars.map(({ label, share, value }) => {
    const filled = Number.isFinite(share) ? Math.min(1, Math.max(0, share)) : 0;
    return html`<div class="row"><div>${label} <span class="quiet">${value}</span></div><div class="bar ground" role="img" aria-label="${label}: ${value}"><span class="tone-0" style="width:${(100 * filled).toFixed(2)}%"></span></div></div>`;
  })}`;
}
