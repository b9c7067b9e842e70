import { type ModelConfig, type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';

/**
 * The demo's training recipe: a small CLIP that learns the names of emoji from several artists' drawings in minutes on two cores.
 * Found by trials at equal floating-point budget; docs/demo.md has them.
 */

/** Every icon set the demo knows: five artists who drew the same concepts. */
export const ICON_SETS = ['noto', 'twemoji', 'openmoji', 'emojione', 'fluent-emoji-flat'] as const;
export type IconSetName = (typeof ICON_SETS)[number];

/** Side at which drawings are rendered and kept, pixels: a little above the model's input, so that zoom has something to show. */
export const RENDER_SIDE = 64;
export const VOCABULARY_MAX = 4096;

export const DEMO_MODEL: ModelConfig = {
  embedDim: 128,
  quickGelu: false,
  vision: { imageSize: 48, patchSize: 24, width: 192, layers: 4, headWidth: 64, mlpRatio: 4 },
  // Names have one to eight words, nearly all of which are one token: a small tower is enough, and leaves the time to the pictures.
  text: { contextLength: 12, vocabSize: VOCABULARY_MAX, width: 128, heads: 2, layers: 1, mlpRatio: 4 },
};

/** Without the native addon: a quarter of the width, a third of the depth. It learns, but little in minutes. */
export const DEMO_MODEL_WITHOUT_ADDON: ModelConfig = {
  embedDim: 64,
  quickGelu: false,
  vision: { imageSize: 32, patchSize: 16, width: 64, layers: 2, headWidth: 32, mlpRatio: 2 },
  text: { contextLength: 12, vocabSize: VOCABULARY_MAX, width: 64, heads: 2, layers: 1, mlpRatio: 2 },
};

/** Drawings of one thing by several artists differ in colour, place and turn. */
export const DEMO_AUGMENT = {
  scale: [1, 1],
  ratio: [1, 1],
  shift: 0.08,
  zoom: [0.8, 1.15],
  rotateDegrees: 12,
  colorJitter: 0.4,
  hueJitter: 0.05,
  grayscale: 0.15,
};

/** What `auto` can turn out to be. */
export type DemoEngine = 'torch' | 'wasm';

export interface DemoRunOptions {
  readonly run: string;
  readonly seed: number;
  readonly steps: number;
  readonly workers: number;
  /** URLs. */
  readonly store: string;
  readonly manifest: string;
  readonly tokenizer: string;
  readonly vocabSize: number;
  readonly cacheDir: string;
  readonly engine: DemoEngine;
}

const GLOBAL_BATCH = 256;
const GLOBAL_BATCH_WITHOUT_ADDON = 64;
const WARMUP_STEPS_MAX = 80;

/** Lanes are fixed micro-batches: a power of two that divides the batch and lets every worker have one. */
export function lanesFor(workers: number): number {
  let lanes = 2;
  while (lanes < workers) lanes *= 2;
  return lanes;
}

/** Largest number of workers whose lanes still hold a picture each. */
export const WORKERS_MAX = 16;

/** The complete config of a demo run, checked. */
export function demoRunConfig(options: DemoRunOptions): RunConfig {
  const fast = options.engine === 'torch';
  const model = fast ? DEMO_MODEL : DEMO_MODEL_WITHOUT_ADDON;
  return runConfigSchema.parse({
    run: options.run,
    seed: options.seed,
    store: options.store,
    model: { ...model, text: { ...model.text, vocabSize: options.vocabSize } },
    data: {
      manifest: options.manifest,
      tokenizer: options.tokenizer,
      cacheDir: options.cacheDir,
      mean: [0.5, 0.5, 0.5],
      std: [0.5, 0.5, 0.5],
      augment: DEMO_AUGMENT,
      decoded: { side: RENDER_SIDE },
      // All shards: any drawing may meet any other in a batch.
      shuffleBlockShards: 64,
    },
    train: {
      steps: options.steps,
      globalBatch: fast ? GLOBAL_BATCH : GLOBAL_BATCH_WITHOUT_ADDON,
      lanes: lanesFor(options.workers),
      precision: fast ? 'bf16' : 'fp32',
      optimizer: {
        lr: 1e-3,
        weightDecay: 0.1,
        warmupSteps: Math.min(WARMUP_STEPS_MAX, Math.floor(options.steps / 10)),
      },
    },
    // One checkpoint in mid-run and the last one: enough to resume from, little to write.
    checkpoint: { everySteps: Math.max(50, Math.ceil(options.steps / 3)), keepLast: 2 },
    workers: { min: 1, expected: options.workers, engine: options.engine },
  });
}
