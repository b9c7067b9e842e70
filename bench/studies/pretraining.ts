import { CoveyError } from '../../common/errors.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import type { Engine } from '../../engine/index.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { openTokenizer } from '../../worker/data/open-tokenizer.ts';
import { ICON_CATEGORIES } from '../../worker/data/pack/icon-source.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import type { BenchTable } from '../support/rows.ts';
import { HELD_OUT, type IconPictures, judgedPictures } from './pretraining/icon-pictures.ts';
import { type JudgeModules, judge, judgeZeroShot } from './pretraining/judge.ts';
import { BACKBONE, METHODS, type Method, methodConfig, type StudyContext } from './pretraining/methods.ts';
import { trainFor } from './pretraining/train.ts';
import { type StudyOptions, withIcons } from './pretraining/with-icons.ts';

export interface PretrainingRow {
  readonly method: string;
  /** Accuracies on the icon category of pictures in a style that no method has seen; shares of 1. Null: left out, `note` says why. */
  readonly probe: number | null;
  readonly knn: number | null;
  readonly zeroShotTop1: number | null;
  readonly zeroShotTop5: number | null;
  readonly steps: number;
  readonly samples: number;
  readonly trainSeconds: number;
  readonly lastLoss: number | null;
  readonly note: string;
}

/** Of training, per method. */
const SECONDS = 100;
const SECONDS_QUICK = 20;
const RANDOM = 'random';

/**
 * Which pretraining gives the best backbone in the same time: each method trains the same small ViT on the icons of four artists, without
 * labels but for supervised, and its features are judged on the category of a fifth artist's drawings.
 */
export async function run(options: StudyOptions): Promise<PretrainingRow[]> {
  const methods = chosen(options.only);
  return withIcons(options, async ({ engine, icons, seconds = options.quick ? SECONDS_QUICK : SECONDS, seed }) => {
    const { imageSize: side } = BACKBONE;
    const judging: JudgeModules = {
      engine,
      train: await judgedPictures(icons.train, icons.cache.train, side),
      test: await judgedPictures(icons.test, icons.cache.test, side),
      classes: ICON_CATEGORIES.length,
      side,
      mean: [0.5, 0.5, 0.5],
      std: [0.5, 0.5, 0.5],
    };
    const tokenizer = await openTokenizer(icons.tokenizer, 12, async (url) => openObjectStore(url));
    const context = { ...icons, seed, classes: ICON_CATEGORIES, steps: 1 };
    const rows = methods === undefined || methods.includes(RANDOM) ? [untrained(context, judging)] : [];
    report(rows.at(-1));
    for (const method of METHODS) {
      if (methods !== undefined && !methods.includes(method.name.toLowerCase())) continue;
      rows.push(await study(method, seconds, context, { engine, icons, tokenizer, judging }));
      report(rows.at(-1));
    }
    return rows;
  });
}

interface StudyModules {
  readonly engine: Engine;
  readonly icons: IconPictures;
  readonly tokenizer: Tokenizer;
  readonly judging: JudgeModules;
}

const EMPTY = {
  probe: null,
  knn: null,
  zeroShotTop1: null,
  zeroShotTop5: null,
  steps: 0,
  samples: 0,
  trainSeconds: 0,
  lastLoss: null,
  note: '',
};

async function study(
  method: Method,
  seconds: number,
  context: StudyContext,
  modules: StudyModules,
): Promise<PretrainingRow> {
  const first = methodConfig(method, context);
  if (typeof first === 'string') return { ...EMPTY, method: method.name, note: `left out: ${first}` };
  const configFor = (steps: number) => {
    const config = methodConfig(method, { ...context, steps });
    if (typeof config === 'string') throw new CoveyError('INTERNAL', `Cannot study ${method.name}: ${config}`);
    return config;
  };
  const trained = await trainFor(seconds, configFor, modules);
  try {
    const { probe, knn, probeL2 } = judge(trained.model, modules.judging);
    const zeroShot = judgeZeroShot(trained.model, modules.tokenizer, modules.icons.names, modules.judging);
    return {
      method: method.name,
      probe,
      knn,
      zeroShotTop1: zeroShot?.top1 ?? null,
      zeroShotTop5: zeroShot?.top5 ?? null,
      steps: trained.steps,
      samples: trained.samples,
      trainSeconds: trained.seconds,
      lastLoss: trained.lastLoss,
      note: `probe λ ${probeL2}`,
    };
  } finally {
    trained.model.dispose();
  }
}

/** The same backbone as it is drawn from the seed. */
function untrained(context: StudyContext, judging: JudgeModules): PretrainingRow {
  const config = methodConfig({ name: RANDOM, objective: 'simclr' }, context);
  if (typeof config === 'string') throw new CoveyError('INTERNAL', `Cannot make the untrained backbone: ${config}`);
  const { model, trainer } = newTrainer(config, resolveModelConfig(config.model), judging.engine);
  try {
    const { probe, knn, probeL2 } = judge(model, judging);
    return { ...EMPTY, method: RANDOM, probe, knn, note: `untrained; probe λ ${probeL2}` };
  } finally {
    trainer.dispose();
    model.dispose();
  }
}

/** A table for people. */
export function table(rows: readonly PretrainingRow[]): BenchTable {
  const percent = (share: number | null) => (share === null ? '–' : `${(100 * share).toFixed(1)} %`);
  return {
    head: ['method', 'linear probe', 'kNN', 'zero-shot top-1', 'top-5', 'steps', 'samples', 'seconds', 'note'],
    rows: rows.map((row) => [
      row.method,
      percent(row.probe),
      percent(row.knn),
      percent(row.zeroShotTop1),
      percent(row.zeroShotTop5),
      String(row.steps),
      String(row.samples),
      row.trainSeconds.toFixed(0),
      row.note,
    ]),
    notes: [
      `probe and kNN: category (of ${ICON_CATEGORIES.length}) of the pictures of ${HELD_OUT}, which no method saw; fitted to the training styles`,
      'zero-shot: the name of each of those pictures among all of their names',
    ],
  };
}

function report(row: PretrainingRow | undefined): void {
  if (row) process.stderr.write(`${row.method}: ${JSON.stringify(row)}\n`);
}

function chosen(only: string | undefined): string[] | undefined {
  if (only === undefined) return undefined;
  const known = [RANDOM, ...METHODS.map(({ name }) => name.toLowerCase())];
  const names = only.split(',').map((name) => name.trim().toLowerCase());
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length === 0) return names;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot study ${unknown.join(', ')}: no such method; choose of ${known.join(', ')}`,
  );
}
