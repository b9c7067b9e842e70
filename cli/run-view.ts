import type { Evaluation } from '../proto/gen/covey/v1/Evaluation.ts';
import type { Run } from '../proto/gen/covey/v1/Run.ts';
import type { StepRecord } from '../proto/gen/covey/v1/StepRecord.ts';
import { formatBytes, formatDuration, formatNumber, formatTime } from './format.ts';

/** `RUN_STATE_RUNNING` → `running`; also for member states. */
export function stateName(state: string): string {
  return state.replace(/^(RUN|MEMBER)_STATE_/, '').toLowerCase();
}

/** States in which nothing more happens by itself. */
export function isEnded(state: string): boolean {
  return ['stopped', 'finished', 'failed'].includes(stateName(state));
}

/** Seconds until the last step at the present pace; not a number before the first measurement. */
export function secondsLeft(run: Run): number {
  const samples = run.lastStep?.samples ?? 0;
  if (run.samplesPerSecond <= 0 || samples <= 0) return Number.NaN;
  return ((run.totalSteps - run.step) * samples) / run.samplesPerSecond;
}

/** A run as --json prints it: names in camel case, numbers as numbers, no nested JSON text. */
export function runAsJson(run: Run): object {
  const { configJson, lastStep, lastCheckpoint, members, ...rest } = run;
  return {
    ...rest,
    state: stateName(run.state),
    secondsLeft: isEnded(run.state) ? 0 : secondsLeft(run) || null,
    lastStep: lastStep ? stepAsJson(lastStep) : null,
    lastCheckpoint,
    members: members.map((member) => ({ ...member, state: stateName(member.state) })),
    config: configJson === '' ? null : (JSON.parse(configJson) as unknown),
  };
}

export function stepAsJson(record: StepRecord): object {
  return { ...record };
}

export function evaluationAsJson(evaluation: Evaluation): object {
  return { ...evaluation };
}

/** Results by name, `name 0.123`, in the order they came. */
export function metricTexts(metrics: Readonly<Record<string, number>>): string[] {
  return Object.entries(metrics).map(
    ([name, value]) => `${name} ${formatNumber(value, Math.abs(value) >= 100 ? 1 : 4)}`,
  );
}

/** The one line that says how a run is doing. */
export function progressText(run: Run): string {
  const last = run.lastStep;
  const parts = [`${run.run} ${stateName(run.state)}`, `step ${run.step}/${run.totalSteps}`];
  if (last) parts.push(`loss ${formatNumber(last.loss, 4)}`, `scale ${formatNumber(last.logitScale, 1)}`);
  if (run.samplesPerSecond > 0) parts.push(`${formatNumber(run.samplesPerSecond, 0)} samples/s`);
  parts.push(`${run.members.length} worker${run.members.length === 1 ? '' : 's'}`);
  if (!isEnded(run.state) && run.step > 0) parts.push(`ETA ${formatDuration(secondsLeft(run))}`);
  return parts.join(' · ');
}

/** A run in full, for people. */
export function statusText(
  run: Run,
  table: (head: readonly string[], rows: readonly (readonly (string | number)[])[]) => string,
): string {
  const last = run.lastStep;
  const checkpoint = run.lastCheckpoint;
  const lines = [
    `run          ${run.run}`,
    `state        ${stateName(run.state)}${run.reason ? ` (${run.reason})` : ''}`,
    `step         ${run.step} of ${run.totalSteps}`,
    `generation   ${run.generation}`,
    `created      ${formatTime(run.createdAtSeconds)} UTC`,
  ];
  if (last) {
    lines.push(
      `loss         ${formatNumber(last.loss, 4)}`,
      `logit scale  ${formatNumber(last.logitScale, 2)}`,
      `grad norm    ${formatNumber(last.gradNorm, 3)}`,
      `samples/s    ${formatNumber(run.samplesPerSecond, 0)}`,
      `step takes   ${formatNumber(last.stepSeconds, 2)} s`,
    );
    if (last.peakMemoryBytes > 0)
      lines.push(`step needs   ${formatBytes(last.peakMemoryBytes)} of tensors at its peak`);
  }
  if (last) for (const text of metricTexts(last.metrics)) lines.push(`objective    ${text}`);
  if (run.lastEvaluation) {
    const { step, metrics } = run.lastEvaluation;
    lines.push(`evaluated    step ${step}`, ...metricTexts(metrics).map((text) => `             ${text}`));
  }
  lines.push(
    `checkpoint   ${checkpoint ? `step ${checkpoint.step}, ${formatTime(checkpoint.createdAtSeconds)} UTC` : 'none yet'}`,
  );
  if (!isEnded(run.state)) lines.push(`time left    ${formatDuration(secondsLeft(run))}`);
  if (run.members.length > 0) {
    const rows = run.members.map((one) => [
      one.slot,
      stateName(one.state),
      `${one.laneBegin}–${one.laneEnd}`,
      one.appliedStep,
      one.host,
      one.pid,
    ]);
    lines.push('', table(['worker', 'state', 'lanes', 'step', 'host', 'pid'], rows));
  }
  return lines.join('\n');
}
