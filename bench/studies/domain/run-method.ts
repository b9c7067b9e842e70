import type { Engine } from '../../../engine/index.ts';
import type { Backbone } from '../../../transfer/backbone.ts';
import type { LabelledSample } from '../../../transfer/data/labelled-set.ts';
import { adapt, type DomainPictures } from '../../../transfer/domain/adapt.ts';
import { type DomainDistance, domainDistance } from '../../../transfer/domain/diagnostics/domain-distance.ts';
import { DEFAULT_WEIGHTS, type DomainMethod, domainRecipeSchema } from '../../../transfer/domain/domain-recipe.ts';
import { pictureFeatures } from '../../../transfer/features/extract-features.ts';
import { TransferNetwork } from '../../../transfer/network.ts';
import { evaluateNetwork } from '../../../transfer/tune/evaluate.ts';
import type { Styles } from './styles.ts';

/** One way to train for the target. */
export interface Method {
  readonly name: string;
  readonly method: DomainMethod;
  /** The backbone stays as it is. */
  readonly headOnly?: boolean;
  /** Learns from the target's labels in place of the source's: what they would be worth. */
  readonly withTargetLabels?: boolean;
}

export const METHODS: readonly Method[] = [
  { name: 'source only', method: 'none' },
  { name: 'source only, head alone', method: 'none', headOnly: true },
  { name: 'DANN', method: 'dann' },
  { name: 'CORAL', method: 'coral' },
  { name: 'MMD', method: 'mmd' },
  { name: 'target labels', method: 'none', withTargetLabels: true },
];

export interface MethodOutcome {
  /** On target pictures that nothing was trained on or chosen by: of the weights that were kept, and of the last ones. */
  readonly accuracy: number;
  readonly lastAccuracy: number;
  /** On the validation split of what was learnt from. */
  readonly validationAccuracy: number;
  readonly before: DomainDistance;
  readonly after: DomainDistance;
  readonly keptStep: number;
  readonly seconds: number;
}

export interface MethodSettings {
  readonly steps: number;
  readonly batch: number;
  /** How often the weights may be chosen. */
  readonly evaluations: number;
  readonly seed: number;
  readonly augment: object;
}

/** The discriminator is a quarter as wide as the published one, as the backbone's features are. */
const DISCRIMINATOR_WIDTH = 256;
/** Of the pictures that tell how far apart the domains are: the same for all. */
const DISTANCE_SEED = 0;

export async function runMethod(
  { method, headOnly = false, withTargetLabels = false }: Method,
  backbone: Backbone,
  { source, target, judge, classes }: Styles,
  { steps, batch, evaluations, seed, augment }: MethodSettings,
  engine: Engine,
): Promise<MethodOutcome> {
  const recipe = domainRecipeSchema.parse({
    method,
    weight: DEFAULT_WEIGHTS[method],
    reversal: {},
    discriminatorWidth: DISCRIMINATOR_WIDTH,
    tune: {
      method: headOnly ? 'head' : 'full',
      seed,
      steps,
      batch,
      augment,
      lr: 1e-3,
      backboneLrScale: 0.1,
      warmupSteps: Math.floor(steps / 10),
      // Head and discriminator know their tasks before the features move; without, λ outruns the discriminator.
      headSteps: Math.floor(steps / 5),
      labelSmoothing: 0.1,
      precision: 'bf16',
      evaluateEverySteps: Math.max(1, Math.floor(steps / evaluations)),
    },
  });
  const network = new TransferNetwork(backbone, { classes, seed, precision: 'bf16' });
  try {
    const onTarget = { engine, network, pictures: target.pictures };
    const measured = async () => (await evaluateNetwork(judge.test, classes, onTarget)).accuracy;
    const held = [...target.validation, ...judge.test.map(({ located }) => ({ located }))];
    const distance = async () => {
      const own = await pictureFeatures(source.validation, { engine, network, pictures: source.pictures });
      return domainDistance(own, await pictureFeatures(held, onTarget), DISTANCE_SEED)!;
    };
    const before = await distance();
    const labelled: DomainPictures<LabelledSample> = withTargetLabels
      ? { train: judge.train, validation: judge.validation, pictures: target.pictures }
      : source;
    const began = performance.now();
    let lastAccuracy = Number.NaN;
    let judgingMs = 0;
    const onProgress = async ({ tuner }: { readonly tuner: { readonly step: number } }) => {
      if (tuner.step < steps) return;
      const from = performance.now();
      lastAccuracy = await measured();
      judgingMs += performance.now() - from;
    };
    const result = await adapt(recipe, { engine, network, classes, source: labelled, target }, { onProgress });
    const seconds = (performance.now() - began - judgingMs) / 1000;
    return {
      accuracy: await measured(),
      lastAccuracy,
      validationAccuracy: result.best.accuracy,
      before,
      after: await distance(),
      keptStep: result.best.step,
      seconds,
    };
  } finally {
    network.dispose();
  }
}
