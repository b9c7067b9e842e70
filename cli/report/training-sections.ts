import { html } from 'hono/html';
import { formatDuration } from '../format.ts';
import { chartSvg, type Html, type LineChart, lineChart } from './line-chart.ts';
import type { ReportStep, TrainingRecord } from './report-data.ts';
import { smooth } from './smooth.ts';
import { CHART_IMAGE_STYLES } from './styles.ts';

const LOSS_SPAN = 20;
/** Pace is averaged over this many steps. */
const PACE_STEPS = 10;

/** The loss curve by step: what happened to the workers is marked, and must not show in the curve. */
export function lossSection(training: TrainingRecord): Html {
  const { steps, marks } = training;
  return html`<section><h2>Loss</h2>
<p>Contrastive loss of the global batch of ${training.globalBatch}, as committed by the coordinator.</p>
${lineChart(lossChart(training))}
${marks.map((mark) => aroundMark(mark, steps))}
<details><summary>Logit scale and learning rate</summary>
${lineChart({
  description: 'exp(logit scale) by step',
  xLabel: 'step',
  yLabel: 'exp(logit scale)',
  series: [
    {
      label: 'exp(logit scale)',
      className: 'line-main',
      points: steps.map((step) => [step.step, step.logitScale] as const),
    },
  ],
})}
${lineChart({
  description: 'Learning rate by step',
  xLabel: 'step',
  yLabel: 'learning rate',
  series: [
    {
      label: 'learning rate',
      className: 'line-main',
      points: steps.map((step) => [step.step, step.learningRate] as const),
    },
  ],
  yMin: 0,
})}
</details></section>`;
}

function lossChart({ steps, marks }: TrainingRecord): LineChart {
  const losses = steps.map((step) => step.loss);
  const smoothed = smooth(losses, LOSS_SPAN);
  const by = (values: readonly number[]) => steps.map((step, i) => [step.step, values[i]!] as const);
  return {
    description: `Loss by step, from ${losses[0]?.toFixed(3) ?? '–'} at the first step to ${losses.at(-1)?.toFixed(3) ?? '–'} at step ${steps.length}.`,
    xLabel: 'step',
    yLabel: 'loss',
    series: [
      { label: 'each step', className: 'line-faint', points: by(losses) },
      { label: `average of about ${LOSS_SPAN}`, className: 'line-main', points: by(smoothed) },
    ],
    marks: marks.map(({ step, label }) => ({ x: step, label })),
  };
}

/** The loss curve as an SVG file of its own. The training must have steps. */
export async function lossCurveImage(training: TrainingRecord): Promise<string> {
  return String(await chartSvg(lossChart(training), CHART_IMAGE_STYLES));
}

function aroundMark(mark: TrainingRecord['marks'][number], steps: readonly ReportStep[]): Html {
  const mean = (from: number, to: number) => {
    const kept = steps.filter(({ step }) => step > from && step <= to);
    return kept.length === 0 ? '–' : (kept.reduce((sum, { loss }) => sum + loss, 0) / kept.length).toFixed(3);
  };
  return html`<p>${mark.label}, after step ${mark.step}: mean loss of the ${LOSS_SPAN} steps before <strong>${mean(mark.step - LOSS_SPAN, mark.step)}</strong>, of the ${LOSS_SPAN} steps after <strong>${mean(mark.step, mark.step + LOSS_SPAN)}</strong>.</p>`;
}

/** Images per second over time, with the pauses, and where the time of a step goes. */
export function paceSection(training: TrainingRecord): Html {
  const { steps, globalBatch, marks, gaps } = training;
  const paces = steps.slice(1).map((step, i) => {
    // The first steps have fewer before them.
    const window = Math.min(PACE_STEPS, i + 1);
    const seconds = step.seconds - steps[i + 1 - window]!.seconds;
    return [step.seconds, (window * globalBatch) / Math.max(seconds, 1e-3)] as const;
  });
  return html`<section><h2>Pace</h2>
${lineChart({
  description: 'Images per second over time',
  xLabel: 'seconds since the first step',
  yLabel: 'images/s',
  series: [{ label: `images per second, over up to ${PACE_STEPS} steps`, className: 'line-main', points: paces }],
  marks: marks.map(({ seconds, label }) => ({ x: seconds, label })),
  bands: gaps.map(({ fromSeconds, toSeconds, label }) => ({ from: fromSeconds, to: toSeconds, label })),
  yMin: 0,
})}
${gaps.map((gap) => html`<p>${gap.label}: ${(gap.toSeconds - gap.fromSeconds).toFixed(1)} s without a committed step, then the same step was computed again from the same weights.</p>`)}
${phaseBar(steps)}</section>`;
}

/** Share of each phase in the time of all steps, as the reporting worker saw it. */
function phaseBar(steps: readonly ReportStep[]): Html {
  const sums = new Map<string, number>();
  for (const step of steps) {
    for (const [phase, seconds] of Object.entries(step.phaseSeconds)) sums.set(phase, (sums.get(phase) ?? 0) + seconds);
  }
  const total = [...sums.values()].reduce((a, b) => a + b, 0);
  if (total === 0) return html``;
  const phases = [...sums]
    .sort(([, a], [, b]) => b - a)
    .map(([phase, seconds], i) => ({ phase, share: seconds / total, tone: `tone-${i % 8}` }));
  return html`<h3>Where a step's time goes</h3>
<div class="bar" role="img" aria-label="${phases.map(({ phase, share }) => `${phase} ${percent(share)}`).join(', ')}">${phases.map(({ share, tone }) => html`<span class="${tone}" style="flex:${share.toFixed(4)}"></span>`)}</div>
<p class="legend">${phases.map(({ phase, share, tone }) => html`<span><i class="tone ${tone}"></i>${phase} ${percent(share)}</span>`)}</p>
<p class="note">Mean step: ${formatMilliseconds(total / steps.length)} on the compute thread; ${formatDuration(total)} in all.</p>`;
}

const percent = (share: number) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const formatMilliseconds = (seconds: number) => `${(1000 * seconds).toFixed(0)} ms`;
