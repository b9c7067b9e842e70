import { html } from 'hono/html';
import type { DomainPoints, DomainView } from '../../transfer/domain/diagnostics/domain-view.ts';
import type { TuneRecord } from '../../transfer/tune/tune.ts';
import { type Html, lineChart, type Series } from '../report/line-chart.ts';
import { type ScatterChart, scatterPair } from '../report/scatter-chart.ts';
import { percent } from './task-report.ts';

/** How far apart the domains are before and after, and pictures of it. */
export function domainSection(before: DomainView, after: DomainView): Html {
  const row = (name: string, { distance }: DomainView) =>
    html`<tr><th>${name}</th><td class="number">${distance ? percent(distance.accuracy) : '–'}</td><td class="number">${distance ? distance.proxyADistance.toFixed(2) : '–'}</td></tr>`;
  const pictures = before.distance?.samples;
  return html`<section><h2>The two domains</h2>
<p>A linear classifier, fitted afresh to each network’s features, tells source from target on pictures that no training saw${pictures === undefined ? '' : ` (${pictures})`}: 50 % where no line separates them.
The proxy A-distance is 2·(1 − 2ε) of its error ε: 2 apart, 0 alike.</p>
<table><thead><tr><th>features</th><th class="number">tells domains apart</th><th class="number">proxy A-distance</th></tr></thead><tbody>${row('before', before)}${row('after', after)}</tbody></table>
<h3>Principal components</h3>${scatterPair([
    scatter(`before: ${percent(before.pcaShare)} of the variance`, 'Principal components before', before.pca),
    scatter(`after: ${percent(after.pcaShare)} of the variance`, 'Principal components after', after.pca),
  ])}
<h3>t-SNE</h3>${scatterPair([
    scatter('before', 't-SNE before', before.tsne),
    scatter('after', 't-SNE after', after.tsne),
  ])}</section>`;
}

function scatter(title: string, what: string, { source, target }: DomainPoints): ScatterChart {
  return {
    title,
    description: `${what}: ${source.length} pictures of the source and ${target.length} of the target`,
    groups: [
      { label: 'source', points: source, className: 'dot-main' },
      { label: 'target', points: target, className: 'dot-other' },
    ],
  };
}

const CHARTS: readonly {
  readonly title: string;
  readonly yLabel: string;
  readonly lines: Readonly<Record<string, string>>;
}[] = [
  {
    title: 'The adversary',
    yLabel: 'share',
    lines: { adversaryAccuracy: 'right about the domain, in training', reversal: 'λ of the reversal' },
  },
  { title: 'The alignment', yLabel: 'loss', lines: { alignmentLoss: 'loss between the domains' } },
  {
    title: 'Predictions on the target, without labels',
    yLabel: 'nats',
    lines: { targetInformation: 'information on the class', targetEntropy: 'mean entropy' },
  },
];
const CLASS_NAMES = ['line-main', 'line-fourth'];

/** What the alignment and the choice of weights measured over the steps. */
export function alignmentSection(history: readonly TuneRecord[], best: TuneRecord): Html {
  const charts = CHARTS.map(({ title, yLabel, lines }) => {
    const series = Object.entries(lines).flatMap(([key, label], i): Series[] => {
      const points = history.flatMap(({ step, measures }) =>
        measures?.[key] === undefined ? [] : [[step, measures[key]] as const],
      );
      return points.length === 0 ? [] : [{ label, points, className: CLASS_NAMES[i]! }];
    });
    return { title, yLabel, series };
  }).filter(({ series }) => series.length > 0);
  if (charts.length === 0) return html``;
  return html`<section><h2>Drawing the domains together</h2>
<p>The weights kept are those with the most information on target pictures less the cross-entropy on the source’s validation split: no label of the target is in it.</p>
${charts.map(
  ({ title, yLabel, series }) =>
    html`<h3>${title}</h3>${lineChart({ description: `${title} over the steps`, xLabel: 'step', yLabel, series, marks: [{ x: best.step, label: 'kept' }] })}`,
)}</section>`;
}
