import { DEMO_AUGMENT } from '../../../cli/demo/recipe.ts';
import { type RunConfig, runConfigSchema } from '../../../common/config/run-config.ts';

/** One way to pretrain the same backbone. */
export interface Method {
  readonly name: string;
  readonly objective: string;
  /** Merged over the common config: `loss`, `model`, `augment`, and of `train` the batch and the optimiser. */
  readonly loss?: object;
  readonly model?: object;
  readonly augment?: object;
  readonly optimizer?: object;
  readonly globalBatch?: number;
  /** A class per picture is part of its data. */
  readonly labels?: boolean;
}

/**
 * The backbone of every method, the demo's: four large patches, so that a quarter of an hour on two cores is a study. In seconds on a CPU
 * training is starved of updates, not of capacity (docs/demo.md).
 */
export const BACKBONE = { imageSize: 48, patchSize: 24, width: 192, layers: 4, headWidth: 64, mlpRatio: 4 };
const TEXT = { contextLength: 12, width: 128, heads: 2, layers: 1, mlpRatio: 4 };
const EMBED_DIM = 128;

/** What CLIP's and the classifier's pictures are varied by. */
const LIGHT = DEMO_AUGMENT;
/** Two views must differ in more than that, or colours and outlines alone tell pictures apart. Flat icons survive no smaller crops. */
const STRONG = {
  scale: [0.35, 1],
  ratio: [0.75, 1.33],
  rotateDegrees: 15,
  colorJitter: 0.6,
  hueJitter: 0.15,
  grayscale: 0.2,
  flip: 0.5,
};
/** Of what is to be imputed or turned, the picture itself is the target: crops only. */
const CROPS = { scale: [0.6, 1], ratio: [0.75, 1.33], flip: 0.5 };

export const METHODS: readonly Method[] = [
  { name: 'SimCLR', objective: 'simclr', loss: { temperature: 0.2 }, augment: STRONG },
  {
    name: 'MoCo v2',
    objective: 'moco-v2',
    // Few updates: a shorter queue and a quicker average than the paper's.
    loss: { moco: { queue: 1024, momentum: 0.98, temperature: 0.2 } },
    augment: STRONG,
  },
  {
    name: 'MoCo v3',
    objective: 'moco-v3',
    loss: { moco: { momentum: 0.98, temperature: 0.2, hidden: 512, width: 128 } },
    augment: STRONG,
  },
  {
    name: 'MAE',
    objective: 'mae',
    // Of four patches two are seen.
    loss: { mae: { maskRatio: 0.5, decoder: { width: 128, layers: 2, headWidth: 32 } } },
    augment: CROPS,
    optimizer: { weightDecay: 0.05, beta2: 0.95 },
  },
  { name: 'rotation', objective: 'rotation', augment: CROPS },
  {
    name: 'SigLIP',
    objective: 'siglip',
    // −ln 255: pairs begin at the odds of the batch. From the paper's −10 Adam needs thousands of steps, more than there are, and until then
    // all embeddings are drawn together.
    model: { initLogitBias: -5.5 },
    augment: LIGHT,
    globalBatch: 256,
  },
  { name: 'CLIP', objective: 'clip', augment: LIGHT, globalBatch: 256 },
  { name: 'supervised', objective: 'supervised', labels: true, augment: LIGHT },
];

export interface StudyContext {
  readonly seed: number;
  readonly manifest: string;
  readonly tokenizer: string;
  readonly vocabSize: number;
  readonly classes: readonly string[];
  readonly steps: number;
}

/** The config of a method, or why there is none: an objective or an option that this covey does not have. */
export function methodConfig(method: Method, context: StudyContext): RunConfig | string {
  const { manifest, tokenizer, vocabSize, classes, steps, seed } = context;
  const parsed = runConfigSchema.safeParse({
    run: 'study',
    seed,
    store: 'memory://study',
    objective: method.objective,
    loss: { ...method.loss, ...(method.labels ? { classes } : {}) },
    model: { embedDim: EMBED_DIM, vision: BACKBONE, text: { ...TEXT, vocabSize }, ...method.model },
    data: {
      manifest,
      tokenizer,
      mean: [0.5, 0.5, 0.5],
      std: [0.5, 0.5, 0.5],
      augment: method.augment ?? LIGHT,
      decoded: { side: 64 },
      shuffleBlockShards: 64,
    },
    train: {
      steps,
      globalBatch: method.globalBatch ?? 128,
      lanes: 1,
      precision: 'bf16',
      optimizer: {
        lr: 1e-3,
        weightDecay: 0.1,
        warmupSteps: Math.min(80, Math.floor(steps / 10)),
        ...method.optimizer,
      },
    },
    eval: { health: { everySteps: 0 } },
  });
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  return `${issue?.path.join('.') ?? 'config'}: ${issue?.message ?? 'invalid'}`;
}
