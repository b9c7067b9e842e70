import { z } from 'zod';

const positiveInt = z.int().positive();

/** Floats count the queue's rows exactly up to here: its position is state, and all state is float32. */
const QUEUE_MAX = 2 ** 24;

/** No defaults in the schema: they are of the objective, and filled in by `mocoOptions`. */
export const mocoSchema = z.strictObject({
  queue: positiveInt
    .max(QUEUE_MAX)
    .optional()
    .describe('Keys of earlier batches to tell a picture from; a multiple of train.globalBatch. Default 65536'),
  momentum: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe('Of the key encoder: m in key ← m·key + (1 − m)·query. Default 0.999'),
  momentumSchedule: z
    .enum(['constant', 'cosine'])
    .optional()
    .describe('cosine: the momentum rises to 1 over train.steps. Default constant'),
  temperature: z.number().positive().optional().describe('What similarities are divided by. Default 0.2; v1: 0.07'),
  hidden: positiveInt.optional().describe("Of the head. Default: the features' width"),
  width: positiveInt.optional().describe('Of the keys. Default 128'),
});

export type MocoConfig = z.infer<typeof mocoSchema>;
export type MocoObjective = 'moco-v2';

/** `loss.moco` with everything said, but what follows from the backbone. */
export interface MocoOptions {
  readonly queue: number;
  readonly momentum: number;
  readonly momentumSchedule: 'constant' | 'cosine';
  readonly temperature: number;
  readonly hidden: number | undefined;
  readonly width: number;
}

/** facebookresearch/moco: main_moco.py with --mlp --moco-t 0.2; the queue and the momentum are v1's too. */
const V2: MocoOptions = {
  queue: 65_536,
  momentum: 0.999,
  momentumSchedule: 'constant',
  temperature: 0.2,
  hidden: undefined,
  width: 128,
};

export function mocoOptions(_objective: MocoObjective, config: MocoConfig = {}): MocoOptions {
  const said = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
  return { ...V2, ...said };
}

export function isMoco(objective: string): objective is MocoObjective {
  return objective === 'moco-v2';
}

interface MocoRun {
  readonly objective: string;
  readonly loss: { readonly moco?: MocoConfig | undefined };
  readonly train: { readonly globalBatch: number };
}

/** What does not fit; paths from the root of the config. */
export function mocoProblems({ objective, loss, train }: MocoRun): { path: string[]; message: string }[] {
  if (!isMoco(objective)) {
    if (loss.moco === undefined) return [];
    return [{ path: ['loss', 'moco'], message: `is for objective moco-v2, objective is ${objective}` }];
  }
  const { globalBatch } = train;
  const { queue } = mocoOptions(objective, loss.moco);
  if (queue % globalBatch === 0) return [];
  const message = `must be a multiple of train.globalBatch (${globalBatch}), so that a batch of keys replaces a whole older one; is ${queue}`;
  return [{ path: ['loss', 'moco', 'queue'], message }];
}
