import { DEMO_AUGMENT } from '../../../cli/demo/recipe.ts';
import type { Engine } from '../../../engine/index.ts';
import { sweepL2 } from '../../../models/linear/l2-sweep.ts';
import { fitLogistic } from '../../../models/linear/logistic-regression.ts';
import type { AdapterOptions } from '../../../transfer/adapters/adapter.ts';
import { type Backbone, scratchBackbone } from '../../../transfer/backbone.ts';
import { type LabelledSample, splitByClass } from '../../../transfer/data/labelled-set.ts';
import type { PictureSource } from '../../../transfer/data/picture-source.ts';
import { labelledFeatures } from '../../../transfer/features/extract-features.ts';
import { TransferNetwork } from '../../../transfer/network.ts';
import { evaluateNetwork } from '../../../transfer/tune/evaluate.ts';
import { tune } from '../../../transfer/tune/tune.ts';
import { type TuneRecipe, tuneRecipeSchema } from '../../../transfer/tune/tune-recipe.ts';

/**
 * One way to hand a backbone on. Without a recipe: a linear probe. With one, what is pretrained is tuned from the probe's head on (LP-FT, Kumar et al.
 * 2022): a head of random numbers would first spoil the features.
 */
export interface Method {
  readonly name: string;
  readonly fromScratch?: boolean;
  /** Of the study's. Default 1. */
  readonly stepsScale?: number;
  readonly recipe?: {
    readonly method: TuneRecipe['method'];
    readonly lr: number;
    readonly backboneLrScale?: number;
    readonly adapter?: AdapterOptions;
    readonly batchNorm?: TuneRecipe['batchNorm'];
  };
}

const common = (rates: { readonly full: number; readonly head: number }): readonly Method[] => [
  // What is new learns fast, and longer.
  { name: 'from scratch', fromScratch: true, stepsScale: 2, recipe: { method: 'full', lr: 1e-3, batchNorm: 'batch' } },
  { name: 'linear probe' },
  { name: 'full fine-tune', recipe: { method: 'full', lr: rates.full, batchNorm: 'batch' } },
  {
    name: 'full, backbone ×0.1',
    recipe: { method: 'full', lr: rates.head, backboneLrScale: 0.1, batchNorm: 'batch' },
  },
];

/** Adapters, which start from nothing and move little, take several times the rate of full fine-tuning. */
export const VIT_METHODS: readonly Method[] = [
  ...common({ full: 1e-4, head: 3e-4 }),
  { name: 'bottleneck adapters', recipe: { method: 'adapter', lr: 5e-4, adapter: { kind: 'bottleneck', width: 16 } } },
  {
    name: 'LoRA',
    recipe: { method: 'adapter', lr: 5e-4, adapter: { kind: 'lora', rank: 4, alpha: 8, targets: 'all' } },
  },
];

const conv = (placement: 'series' | 'parallel'): Method => ({
  name: `conv adapters, ${placement}`,
  recipe: { method: 'adapter', lr: 2e-3, adapter: { kind: 'conv', placement }, batchNorm: 'batch' },
});

export const RESNET_METHODS: readonly Method[] = [
  ...common({ full: 3e-4, head: 1e-3 }),
  conv('series'),
  conv('parallel'),
];

/** Some pictures with their labels. */
export interface LabelledPictures {
  readonly samples: readonly LabelledSample[];
  readonly pictures: PictureSource;
}

/** A target: what there is to learn from, and pictures to judge by. */
export interface StudyTask {
  readonly labelled: LabelledPictures;
  readonly test: LabelledPictures;
  readonly classes: number;
}

export interface MethodOutcome {
  readonly accuracy: number;
  /** Numbers trained in backbone and adapter over those of the backbone. */
  readonly trainedShare: number;
  readonly seconds: number;
}

export interface MethodSettings {
  readonly steps: number;
  readonly batch: number;
  readonly seed: number;
}

/** Nothing but the labelled pictures is used to learn and to choose: with a handful of labels there is no validation split to spare. */
export async function runMethod(
  method: Method,
  backbone: Backbone,
  task: StudyTask,
  settings: MethodSettings,
  engine: Engine,
): Promise<MethodOutcome> {
  const { classes, labelled, test } = task;
  const { batch, seed } = settings;
  const steps = settings.steps * (method.stepsScale ?? 1);
  const source = method.fromScratch === true ? scratchBackbone(backbone, seed) : backbone;
  const { adapter } = method.recipe ?? {};
  const network = new TransferNetwork(source, {
    classes,
    seed,
    precision: 'bf16',
    ...(adapter === undefined ? {} : { adapter }),
  });
  try {
    const began = performance.now();
    let trainedShare = 0;
    if (method.fromScratch !== true) await fitProbe(network, task, seed, engine);
    if (method.recipe !== undefined) {
      const recipe = tuneRecipeSchema.parse({
        ...method.recipe,
        seed,
        steps,
        batch,
        warmupSteps: Math.floor(steps / 10),
        evaluateEverySteps: steps,
        labelSmoothing: 0.1,
        precision: 'bf16',
        augment: DEMO_AUGMENT,
      });
      const { pictures, samples: train } = labelled;
      const modules = { engine, network, pictures, train, validation: [], classes };
      const { trained, backbone: all } = await tune(recipe, modules);
      trainedShare = trained / all;
    }
    const seconds = (performance.now() - began) / 1000;
    const { accuracy } = await evaluateNetwork(test.samples, classes, { engine, network, pictures: test.pictures });
    return { accuracy, trainedShare, seconds };
  } finally {
    network.dispose();
  }
}

const VALIDATION_SHARE = 0.3;
/** Where there are too few labels to choose by. */
const L2_DEFAULT = 1e-2;
const L2S = [1, 1e-1, 1e-2, 1e-3, 1e-4];

/** The penalty by a part of the labels, then all of them. */
async function fitProbe(network: TransferNetwork, task: StudyTask, seed: number, engine: Engine): Promise<void> {
  const { classes, labelled } = task;
  const { samples, pictures } = labelled;
  const { chosen, rest } = splitByClass(samples, VALIDATION_SHARE, seed);
  const modules = { engine, network, pictures };
  const isEnough = chosen.length >= classes && new Set(rest.map(({ label }) => label)).size > 1;
  let l2 = L2_DEFAULT;
  if (isEnough) {
    const [train, validation] = [await labelledFeatures(rest, modules), await labelledFeatures(chosen, modules)];
    l2 = sweepL2(train, validation, { classes, l2s: L2S }).best.l2;
  }
  network.setHead(fitLogistic(await labelledFeatures(samples, modules), { classes, l2 }).classifier);
}
