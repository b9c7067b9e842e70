import { stringify } from 'yaml';
import type { RunConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { formatDuration } from '../format.ts';
import type { EvaluationRecord, ReportData, ReportPicture, TrainingRecord } from '../report/report-data.ts';
import type { Judgement } from './judge.ts';
import type { ObservedRun } from './observed-run.ts';
import type { DemoSummary } from './summary.ts';

const QUERIES_SHOWN = 12;
const PICTURES_SHOWN = 24;
const CONFUSIONS_SHOWN = 18;
const FOUND_SHOWN = 8;

export interface DemoReportInputs {
  readonly summary: Omit<DemoSummary, 'report' | 'totalSeconds'>;
  readonly config: RunConfig;
  readonly observed: ObservedRun;
  readonly judgement: Judgement;
  readonly credits: Readonly<Record<string, string>>;
  readonly environment: Readonly<Record<string, string>>;
  readonly createdAt: string;
}

export function demoReport(inputs: DemoReportInputs): ReportData {
  const { summary, config, observed } = inputs;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const killText = summary.killed > 0 ? ', and one of them was killed on the way' : '';
  return {
    title: 'A CLIP trained from nothing',
    summary:
      `${summary.workers} worker process${summary.workers === 1 ? '' : 'es'} trained it in ${formatDuration(summary.trainSeconds)} on ${summary.trainSamples} drawings and their names${killText}. ` +
      `It is judged by the drawings of ${summary.heldOut}, an artist it never saw.`,
    createdAt: inputs.createdAt,
    headline: [
      {
        label: 'right at the first guess',
        value: percent(summary.zeroShotTop1),
        note: `of ${summary.classes} names; chance ${(100 / summary.classes).toFixed(2)} %`,
      },
      { label: 'among the first five', value: percent(summary.zeroShotTop5) },
      {
        label: 'training',
        value: formatDuration(summary.trainSeconds),
        note: `${summary.steps} steps of ${summary.globalBatch}, ${summary.epochs} epochs`,
      },
      { label: 'images per second', value: summary.samplesPerSecond.toFixed(0), note: 'the recovery included' },
      ...(summary.recoverySeconds === null
        ? []
        : [
            {
              label: 'back after the kill',
              value: `${summary.recoverySeconds.toFixed(1)} s`,
              note: 'SIGKILL to the next committed step',
            },
          ]),
      {
        label: 'samples lost, doubled',
        value: `${summary.samplesLost}, ${summary.samplesDuplicated}`,
        note: `of ${summary.samplesPlanned}, by the workers' own logs`,
      },
      { label: 'final loss', value: summary.finalLoss.toFixed(3) },
    ],
    training: trainingRecord(observed, config.train.globalBatch),
    evaluation: evaluationRecord(inputs.judgement, summary.heldOut, config.seed),
    configYaml: stringify(config),
    environment: inputs.environment,
    credits: inputs.credits,
  };
}

/** The observed run on a clock that starts with its first step. */
export function trainingRecord(observed: ObservedRun, globalBatch: number): TrainingRecord {
  const { steps, kill } = observed;
  const first = steps[0];
  const startSeconds = first ? first.timeSeconds - first.stepSeconds : 0;
  const killedAt = kill && kill.atSeconds - startSeconds;
  const next = observed.firstStepAfterKill;
  return {
    globalBatch,
    steps: steps.map(({ step, generation, loss, logitScale, learningRate, timeSeconds, phaseSeconds, measures }) => ({
      step,
      generation,
      loss,
      logitScale,
      learningRate,
      seconds: timeSeconds - startSeconds,
      phaseSeconds,
      measures,
    })),
    evaluations: observed.evaluations,
    marks: kill && killedAt !== undefined ? [{ step: kill.step, seconds: killedAt, label: 'one worker killed' }] : [],
    gaps:
      killedAt !== undefined && next
        ? [
            {
              fromSeconds: killedAt,
              toSeconds: next.timeSeconds - startSeconds,
              label: 'From the kill to the next committed step',
            },
          ]
        : [],
  };
}

/** What the report shows of the evaluation. What is shown as typical is drawn by the seed, not chosen. */
export function evaluationRecord(judgement: Judgement, heldOut: string, seed: number): EvaluationRecord {
  const { zeroShot, pictures } = judgement;
  const { predictions } = zeroShot;
  const picture = (index: number): ReportPicture => ({
    label: predictions[index]!.label,
    source: dataUri(pictures[index]!),
  });
  const byLabel = new Map(predictions.map(({ label }, index) => [label, index]));
  const queries = queryRanks(judgement);
  const chosenQueries = drawn(queries.length, QUERIES_SHOWN, new RandomStream('report', 'queries', seed));
  const chosenPictures = drawn(predictions.length, PICTURES_SHOWN, new RandomStream('report', 'pictures', seed));
  const mistakes = predictions
    .map((prediction, index) => ({ prediction, index }))
    .filter(({ prediction }) => prediction.rank > 0)
    .sort((a, b) => b.prediction.best[0]!.similarity - a.prediction.best[0]!.similarity)
    .slice(0, CONFUSIONS_SHOWN);
  const queryShare = (places: number) => queries.filter(({ rank }) => rank < places).length / queries.length;
  return {
    heldOut,
    classes: zeroShot.classes,
    pictures: zeroShot.samples,
    top1: zeroShot.top1,
    top5: zeroShot.top5,
    medianRank: zeroShot.medianRank,
    textToImageTop1: queryShare(1),
    textToImageTop5: queryShare(5),
    textToImage: chosenQueries.map((index) => {
      const { query, found } = queries[index]!;
      return { query, found: found.map((one) => ({ ...picture(one), right: predictions[one]!.label === query })) };
    }),
    imageToText: chosenPictures.map((index) => {
      const { label, best } = predictions[index]!;
      return { picture: picture(index), found: best.map((one) => ({ ...one, right: one.className === label })) };
    }),
    confusions: mistakes.map(({ prediction, index }) => {
      const guess = prediction.best[0]!;
      const other = byLabel.get(guess.className);
      return { picture: picture(index), guess, guessPicture: other === undefined ? undefined : picture(other) };
    }),
    ranks: predictions.map(({ label, rank }) => ({ className: label, rank: rank + 1 })),
  };
}

interface Query {
  readonly query: string;
  /** 0-based place of the right picture. */
  readonly rank: number;
  /** The closest pictures, best first. */
  readonly found: readonly number[];
}

/** For each name the pictures in order of closeness. One picture per name, in the order of the predictions. */
function queryRanks({ zeroShot, classNames }: Pick<Judgement, 'zeroShot' | 'classNames'>): Query[] {
  const { predictions, imageEmbeddings, classEmbeddings, classes } = zeroShot;
  const embedDim = classEmbeddings.length / classes;
  const labels = predictions.map(({ label }) => label);
  return classNames.flatMap((query, row) => {
    const truth = labels.indexOf(query);
    if (truth < 0) return [];
    const similarities = Float64Array.from(predictions, (_, column) => {
      let dot = 0;
      for (let d = 0; d < embedDim; d++)
        dot += classEmbeddings[row * embedDim + d]! * imageEmbeddings[column * embedDim + d]!;
      return dot;
    });
    const own = similarities[truth]!;
    const rank = similarities.reduce((count, similarity) => count + (similarity > own ? 1 : 0), 0);
    const order = Array.from(similarities.keys()).sort((a, b) => similarities[b]! - similarities[a]! || a - b);
    return [{ query, rank, found: order.slice(0, FOUND_SHOWN) }];
  });
}

/** `count` different numbers below n. */
function drawn(n: number, count: number, stream: RandomStream): number[] {
  const chosen = new Set<number>();
  while (chosen.size < Math.min(n, count)) chosen.add(stream.integer(n));
  return [...chosen];
}

function dataUri(png: Uint8Array): string {
  return `data:image/png;base64,${Buffer.from(png).toString('base64')}`;
}
