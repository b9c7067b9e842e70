import { DEMO_AUGMENT } from '../../cli/demo/recipe.ts';
import { augmentSchema } from '../../common/config/augment-config.ts';
import { mean } from '../../common/mean.ts';
import type { Engine } from '../../engine/index.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { fractionByClass, type LabelledSample, readLabelledSet } from '../../transfer/data/labelled-set.ts';
import { PictureSource } from '../../transfer/data/picture-source.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import { ICON_CATEGORIES } from '../../worker/data/pack/icon-source.ts';
import type { ShardCache } from '../../worker/data/shard-cache.ts';
import type { BenchTable } from '../support/rows.ts';
import { HELD_OUT, type IconPictures, PIXELS_MAX } from './pretraining/icon-pictures.ts';
import { type PretrainedSubject, pretrainedBackbone } from './pretraining/pretrained-backbone.ts';
import { type StudyOptions, withIcons } from './pretraining/with-icons.ts';
import { type LabelledPictures, type Method, RESNET_METHODS, runMethod, VIT_METHODS } from './transfer/methods.ts';

export interface TransferRow {
  readonly backbone: string;
  readonly method: string;
  /** Share of the labels, and how many pictures that is. */
  readonly labels: number;
  readonly pictures: number;
  /** On pictures that were not learnt from; mean over the seeds, and the least and the largest of them. */
  readonly accuracy: number;
  readonly accuracyRange: readonly [number, number];
  /** Numbers trained in backbone and adapter over those of the backbone; the head is not counted. */
  readonly trainedShare: number;
  /** Of learning, mean over the seeds. */
  readonly seconds: number;
}

const FRACTIONS = [0.01, 0.1, 1] as const;

interface Subject extends PretrainedSubject {
  readonly pretrainSteps: number;
  readonly methods: readonly Method[];
  readonly batch: number;
  readonly steps: number;
  readonly seeds: number;
}

/** Both are pretrained as CLIP is, on the names of four artists' icons. The ResNet is small: its convolutions cost a CPU much. */
const SUBJECTS: readonly Subject[] = [
  { name: 'ViT', pretrainSteps: 1500, methods: VIT_METHODS, batch: 64, steps: 200, seeds: 2 },
  {
    name: 'ResNet-18',
    model: { vision: { kind: 'resnet', depth: 18, width: 16, stem: 'cifar', imageSize: 32 } },
    globalBatch: 128,
    pretrainSteps: 2000,
    methods: RESNET_METHODS,
    batch: 64,
    steps: 120,
    seeds: 1,
  },
];

/**
 * What a backbone that covey pretrained is worth with few labels, and what each way of handing it on costs: methods × shares of the labels. As in
 * SimCLR's semi-supervised protocol, the pictures of pretraining are labelled in part, here with their category; unlike there, the drawings that
 * judge are a fifth artist's, whom neither pretraining nor learning ever saw.
 */
export async function run(options: StudyOptions): Promise<TransferRow[]> {
  return withIcons(options, async ({ engine, icons, seconds, seed: firstSeed }) => {
    const rows: TransferRow[] = [];
    for (const subject of SUBJECTS) {
      const methods = chosen(subject, options.only);
      if (methods.length === 0) continue;
      // By steps where nothing is said: they are the same on any machine.
      const length = seconds === undefined ? { steps: options.quick ? 50 : subject.pretrainSteps } : { seconds };
      const backbone = await pretrainedBackbone(subject, { ...length, seed: firstSeed }, { engine, icons });
      const settings = options.quick ? { ...subject, steps: 6, seeds: 1 } : subject;
      rows.push(...(await compare({ ...settings, methods }, backbone, firstSeed, { engine, icons })));
    }
    return rows;
  });
}

interface Modules {
  readonly engine: Engine;
  readonly icons: IconPictures;
}

async function compare(
  { name, methods, batch, steps, seeds }: Subject,
  backbone: Backbone,
  firstSeed: number,
  { engine, icons }: Modules,
): Promise<TransferRow[]> {
  const { samples: pool, pictures } = await labelledPictures(icons.train, icons.cache.train, backbone, firstSeed);
  const test = await labelledPictures(icons.test, icons.cache.test, backbone, firstSeed);
  const rows: TransferRow[] = [];
  for (const fraction of FRACTIONS) {
    for (const method of methods) {
      const outcomes: Awaited<ReturnType<typeof runMethod>>[] = [];
      let labelled: readonly LabelledSample[] = pool;
      for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
        labelled = fraction === 1 ? pool : fractionByClass(pool, fraction, seed);
        const task = { labelled: { samples: labelled, pictures }, test, classes: ICON_CATEGORIES.length };
        outcomes.push(await runMethod(method, backbone, task, { steps, batch, seed }, engine));
      }
      const accuracies = outcomes.map(({ accuracy }) => accuracy);
      const row = {
        backbone: name,
        method: method.name,
        labels: fraction,
        pictures: labelled.length,
        accuracy: mean(accuracies),
        accuracyRange: [Math.min(...accuracies), Math.max(...accuracies)] as const,
        trainedShare: outcomes[0]!.trainedShare,
        seconds: mean(outcomes.map((one) => one.seconds)),
      };
      rows.push(row);
      process.stderr.write(`${JSON.stringify(row)}\n`);
    }
  }
  return rows;
}

async function labelledPictures(
  dataset: Dataset,
  cache: ShardCache,
  { vision: { imageSize } }: Backbone,
  seed: number,
): Promise<LabelledPictures> {
  const { samples } = await readLabelledSet(dataset, { metaKey: 'category', classes: ICON_CATEGORIES });
  const augment = augmentSchema.parse(DEMO_AUGMENT);
  const pictures = new PictureSource({ imageSide: imageSize, augment, seed, pixelsMax: PIXELS_MAX }, { cache });
  await pictures.findBroken(samples.map(({ located }) => located));
  return { samples, pictures };
}

/** A table for people: a line per method, a column per share of the labels. */
export function table(rows: readonly TransferRow[]): BenchTable {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const keys = [...new Set(rows.map(({ backbone, method }) => `${backbone}\n${method}`))];
  return {
    head: ['backbone', 'method', ...FRACTIONS.map((fraction) => `${100 * fraction} % labels`), 'trained', 'seconds'],
    rows: keys.map((key) => {
      const own = rows.filter(({ backbone, method }) => `${backbone}\n${method}` === key);
      const at = (fraction: number) => own.find(({ labels }) => labels === fraction);
      const shown = FRACTIONS.map((fraction) => {
        const row = at(fraction);
        if (row === undefined) return '–';
        const half = (row.accuracyRange[1] - row.accuracyRange[0]) / 2;
        return half === 0 ? percent(row.accuracy) : `${percent(row.accuracy)} ± ${(100 * half).toFixed(1)}`;
      });
      const { backbone, method, trainedShare } = own[0]!;
      return [backbone, method, ...shown, percent(trainedShare), mean(own.map((row) => row.seconds)).toFixed(1)];
    }),
    notes: [
      `accuracy on the category (of ${ICON_CATEGORIES.length}) of all drawings of ${HELD_OUT}, an artist that nothing learnt from; ± half the range over seeds`,
      `labels: ${FRACTIONS.map((fraction) => `${100 * fraction} % = ${rows.find(({ labels }) => labels === fraction)?.pictures ?? 0} pictures`).join(', ')}`,
      'trained: numbers in backbone and adapter over those of the backbone, without the head; seconds: of learning, mean over the shares',
    ],
  };
}

function chosen({ name, methods }: Subject, only: string | undefined): Method[] {
  if (only === undefined) return [...methods];
  const parts = only.toLowerCase().split(',');
  return methods.filter((method) => parts.some((part) => `${name} ${method.name}`.toLowerCase().includes(part.trim())));
}
