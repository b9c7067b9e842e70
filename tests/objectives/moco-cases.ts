import type { ModelConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import type { LaneInput } from '../../worker/train/lane-encoder.ts';
import type { MocoSettings } from './plain-moco.ts';

/** What the momentum methods are tested with: a small model, their settings, and pictures that can be told apart. */

export const GLOBAL_BATCH = 48;
export const LANES = 6;
export const SIDE = 8;
export const SEED = 5;
export const STEPS = 4;
export const LR = 0.005;
export const MEAN = [0.5, 0.4, 0.3] as const;
export const STD = [0.2, 0.25, 0.3] as const;
export const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: SIDE, patchSize: 4, width: 16, layers: 1, headWidth: 8, mlpRatio: 2 },
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 4 },
};

export const RESNET = { kind: 'resnet', imageSize: SIDE, depth: 18, stem: 'cifar', width: 4 } as const;

export interface Case {
  readonly title: string;
  readonly objective: 'moco-v2' | 'moco-v3';
  readonly moco: object;
  readonly vision?: ModelConfig['vision'];
  readonly train?: object;
  /** Undefined where only bits are compared. */
  readonly plain?: MocoSettings;
}

/** main_moco.py of facebookresearch/moco-v3: adjust_moco_momentum. */
const rising = (step: number) => 1 - 0.5 * (1 + Math.cos((Math.PI * step) / STEPS)) * (1 - 0.8);

export const CASES: readonly Case[] = [
  {
    title: 'moco-v2, its queue filled more than once',
    objective: 'moco-v2',
    moco: { queue: 96, momentum: 0.9, width: 16 },
    plain: { kind: 'queue', queue: 96, momentum: () => 0.9, temperature: 0.2 },
  },
  {
    title: "moco-v2 at v1's temperature, its queue one batch long",
    objective: 'moco-v2',
    moco: { queue: 48, momentum: 0.9, temperature: 0.07, width: 8 },
    plain: { kind: 'queue', queue: 48, momentum: () => 0.9, temperature: 0.07 },
  },
  {
    title: 'moco-v2 with a momentum that rises',
    objective: 'moco-v2',
    moco: { queue: 96, momentum: 0.8, momentumSchedule: 'cosine', width: 8 },
    plain: {
      kind: 'queue',
      queue: 96,
      momentum: rising,
      temperature: 0.2,
    },
  },
  {
    title: "moco-v2 with v1's linear head",
    objective: 'moco-v2',
    moco: { queue: 96, momentum: 0.9, head: 'linear', width: 16 },
    plain: { kind: 'queue', queue: 96, momentum: () => 0.9, temperature: 0.2 },
  },
  {
    title: 'moco-v2 with batch norm in the head',
    objective: 'moco-v2',
    moco: { queue: 96, momentum: 0.9, hidden: 24, width: 16, batchNorm: true },
    plain: { kind: 'queue', queue: 96, momentum: () => 0.9, temperature: 0.2 },
  },
  {
    title: 'moco-v3',
    objective: 'moco-v3',
    moco: { momentum: 0.8, hidden: 24, width: 16 },
    plain: { kind: 'symmetric', momentum: rising, temperature: 0.2 },
  },
  {
    title: 'moco-v3 with two layers and without batch norm',
    objective: 'moco-v3',
    moco: { momentum: 0.8, hidden: 64, width: 16, layers: 2, batchNorm: false },
    plain: { kind: 'symmetric', momentum: rising, temperature: 0.2 },
  },
  {
    title: 'moco-v2 on a ResNet',
    objective: 'moco-v2',
    moco: { queue: 96, momentum: 0.9, width: 16 },
    vision: RESNET,
  },
  {
    title: 'moco-v3 with its patch projection frozen at random',
    objective: 'moco-v3',
    moco: { hidden: 24, width: 16 },
    train: { groups: [{ match: '^visual\\.conv1\\.', frozen: true }] },
  },
  {
    title: 'moco-v3 with patches dropped from its queries',
    objective: 'moco-v3',
    moco: { hidden: 24, width: 16 },
    train: { patchDropout: 0.5 },
  },
];

/** Pictures of a colour of their own under noise: uint8 of both views, [2, N, side, side, 3]. */
export function picturesOf(step: number): Uint8Array {
  const random = new RandomStream('moco', step);
  const colours = new Uint8Array(3 * GLOBAL_BATCH).map(() => random.integer(224));
  const floats = SIDE * SIDE * 3;
  return new Uint8Array(2 * GLOBAL_BATCH * floats).map((_, at) => {
    const sample = Math.floor(at / floats) % GLOBAL_BATCH;
    return colours[3 * sample + (at % 3)]! + random.integer(32);
  });
}

export function laneOf(step: number, lane: number): LaneInput {
  const pictures = picturesOf(step);
  const floats = pictures.length / (2 * LANES);
  const pixels = new Uint8Array(2 * floats);
  for (const view of [0, 1]) {
    const begin = (view * LANES + lane) * floats;
    pixels.set(pictures.subarray(begin, begin + floats), view * floats);
  }
  return { lane, pixels, tokens: new Int32Array(0) };
}
