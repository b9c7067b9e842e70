import { z } from 'zod';

const positiveInt = z.int().positive();

/** Floats count the queue's rows exactly up to here: its position is state, and all state is float32. */
const QUEUE_MAX = 2 ** 24;

/** No defaults in the schema: they differ between the versions, and are filled in by `mocoOptions`. */
export const mocoSchema = z.strictObject({
  queue: positiveInt
    .max(QUEUE_MAX)
    .optional()
    .describe(
      'moco-v2: keys of earlier batches to tell a picture from; a multiple of train.globalBatch. Default 65536',
    ),
  momentum: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe('Of the key encoder: m in key ← m·key + (1 − m)·query. Default 0.999 for moco-v2, 0.99 for moco-v3'),
  momentumSchedule: z
    .enum(['constant', 'cosine'])
    .optional()
    .describe('cosine: the momentum rises to 1 over train.steps. Default constant for moco-v2, cosine for moco-v3'),
  temperature: z.number().positive().optional().describe('Default 0.2; v1, and v3 with a ResNet: 0.07 and 1'),
  head: z.enum(['mlp', 'linear']).optional().describe('moco-v2: two layers (default), or one as in v1'),
  hidden: positiveInt.optional().describe("Of the heads. Default: the features' width for moco-v2, 4096 for moco-v3"),
  width: positiveInt.optional().describe('Of the keys. Default 128 for moco-v2, 256 for moco-v3'),
  layers: z.int().min(1).max(8).optional().describe('moco-v3: of the projector. Default 3 for a ViT, 2 for a ResNet'),
  batchNorm: z
    .boolean()
    .optional()
    .describe('In the heads; keys are normalised by running statistics. Default false for moco-v2, true for moco-v3'),
});

export type MocoConfig = z.infer<typeof mocoSchema>;
export type MocoObjective = 'moco-v2' | 'moco-v3';

/** `loss.moco` with everything said, but what follows from the backbone. */
export interface MocoOptions {
  readonly queue: number;
  readonly momentum: number;
  readonly momentumSchedule: 'constant' | 'cosine';
  readonly temperature: number;
  readonly head: 'mlp' | 'linear';
  readonly hidden: number | undefined;
  readonly width: number;
  readonly layers: number | undefined;
  readonly batchNorm: boolean;
}

/** facebookresearch/moco: main_moco.py with --mlp --moco-t 0.2; the queue and the momentum are v1's too. */
const V2 = {
  queue: 65_536,
  momentum: 0.999,
  momentumSchedule: 'constant',
  temperature: 0.2,
  head: 'mlp',
  hidden: undefined,
  width: 128,
  layers: undefined,
  batchNorm: false,
} as const;

/** facebookresearch/moco-v3: main_moco.py with --moco-m-cos --moco-t .2, as its ViTs are trained. */
const V3 = { ...V2, momentum: 0.99, momentumSchedule: 'cosine', hidden: 4096, width: 256, batchNorm: true } as const;

export function mocoOptions(objective: MocoObjective, config: MocoConfig = {}): MocoOptions {
  const said = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
  return { ...(objective === 'moco-v2' ? V2 : V3), ...said };
}

export function isMoco(objective: string): objective is MocoObjective {
  return objective === 'moco-v2' || objective === 'moco-v3';
}

const ONLY: Readonly<Record<MocoObjective, readonly (keyof MocoConfig)[]>> = {
  'moco-v2': ['queue', 'head'],
  'moco-v3': ['layers'],
};

interface MocoRun {
  readonly objective: string;
  readonly loss: { readonly moco?: MocoConfig | undefined };
  readonly train: { readonly globalBatch: number; readonly lanes: number };
}

/** What does not fit: path below the config's root, and why. */
export function mocoProblems({ objective, loss, train }: MocoRun): { path: string[]; message: string }[] {
  if (!isMoco(objective)) {
    if (loss.moco === undefined) return [];
    return [{ path: ['loss', 'moco'], message: `is for objectives moco-v2 and moco-v3, objective is ${objective}` }];
  }
  const { globalBatch, lanes } = train;
  const other = objective === 'moco-v2' ? 'moco-v3' : 'moco-v2';
  const problems = ONLY[other]
    .filter((key) => loss.moco?.[key] !== undefined)
    .map((key) => ({ path: ['loss', 'moco', key], message: `is for objective ${other}, objective is ${objective}` }));
  const { queue, batchNorm } = mocoOptions(objective, loss.moco);
  if (objective === 'moco-v2' && queue % globalBatch !== 0) {
    const message = `must be a multiple of train.globalBatch (${globalBatch}), so that a batch of keys replaces a whole older one; is ${queue}`;
    problems.push({ path: ['loss', 'moco', 'queue'], message });
  }
  if (objective === 'moco-v3' && globalBatch < 2) {
    const message = 'must be at least 2 for objective moco-v3, which learns from other pictures, is 1';
    problems.push({ path: ['train', 'globalBatch'], message });
  }
  if (batchNorm && lanes === globalBatch) {
    const message = `leaves one sample per lane, whose batch norm in the head (loss.moco.batchNorm) has no variance; is ${lanes}`;
    problems.push({ path: ['train', 'lanes'], message });
  }
  return problems;
}
