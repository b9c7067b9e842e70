import { z } from 'zod';
import { isMoco, type MocoConfig, mocoOptions } from './moco-config.ts';

/** Large batches on little memory (docs/large-batches.md). */

const positiveInt = z.int().positive();

/** Keys of `train`. */
export const memoryShape = {
  recompute: z
    .union([z.enum(['none', 'blocks']), positiveInt])
    .default('none')
    .describe(
      'Memory for time: backward computes transformer blocks again instead of holding what they saved; the same bits. `blocks`: all; n: the first n of each tower',
    ),
  gradCache: z
    .boolean()
    .default(false)
    .describe(
      'Memory for time: lanes are encoded twice, so that a worker holds the activations of one lane instead of all of its; the same bits',
    ),
  microBatch: z
    .union([positiveInt, z.literal('auto')])
    .optional()
    .describe(
      'Samples of a lane that go through the model at once; must divide globalBatch / lanes. Fewer than a lane has implies gradCache. The loss stays that of the whole batch; gradients change by rounding (1e-5). `auto`: each worker halves the lane until it fits; needs deterministic: false. Default: the whole lane',
    ),
  memoryBytesMax: positiveInt
    .optional()
    .describe(
      'With microBatch auto: what tensors may hold at once on a worker, weights included. Default: until an allocation fails',
    ),
  patchDropout: z
    .number()
    .min(0)
    .lt(1, 'must be below 1: a tower that sees no patch learns nothing')
    .default(0)
    .describe(
      'Share of the patches that a ViT does not see in training (FLIP, Li et al. 2023; open_clip’s patch_dropout), drawn per sample; less work and memory. Evaluation and export see all',
    ),
} as const;

const memorySchema = z.strictObject(memoryShape);

interface Checked {
  readonly objective: string;
  readonly loss: {
    readonly projection: { readonly batchNorm: boolean };
    readonly moco?: MocoConfig | undefined;
    readonly mixup?: number | undefined;
  };
  readonly train: z.infer<typeof memorySchema> & {
    readonly globalBatch: number;
    readonly lanes: number;
    readonly deterministic: boolean;
  };
}

interface Problem {
  readonly path: string[];
  readonly message: string;
}

/** What is wrong with the keys above, given the rest. */
export function memoryProblems({ objective, loss, train }: Checked): Problem[] {
  const { globalBatch, lanes, microBatch, deterministic, memoryBytesMax } = train;
  const laneBatch = globalBatch / lanes;
  const problems: Problem[] = [];
  const refuse = (key: string, message: string) => problems.push({ path: ['train', key], message });
  if (memoryBytesMax !== undefined && microBatch !== 'auto')
    refuse('memoryBytesMax', `is for train.microBatch auto, which is ${microBatch ?? 'not set'}`);
  if (microBatch === 'auto' && deterministic) {
    refuse(
      'microBatch',
      'must be a number with train.deterministic: auto would have the last bits of the gradient depend on how much memory a worker had free',
    );
  }
  // That the lanes divide the batch is somebody else's complaint.
  if (microBatch === undefined || microBatch === laneBatch || !Number.isInteger(laneBatch)) return problems;
  if (microBatch !== 'auto' && laneBatch % microBatch !== 0) {
    refuse(
      'microBatch',
      `must divide a lane's samples (train.globalBatch / train.lanes = ${laneBatch}), is ${microBatch}`,
    );
  } else if (isMoco(objective) ? mocoOptions(objective, loss.moco).batchNorm : loss.projection.batchNorm) {
    const key = isMoco(objective) ? 'loss.moco.batchNorm' : 'loss.projection.batchNorm';
    refuse(
      'microBatch',
      `must be a whole lane (${laneBatch}) with ${key}, whose statistics are a lane's, is ${microBatch}; use more lanes instead`,
    );
  } else if (loss.mixup !== undefined) {
    refuse(
      'microBatch',
      `must be a whole lane (${laneBatch}) with loss.mixup, which mixes a lane's pictures, is ${microBatch}; use more lanes instead`,
    );
  }
  return problems;
}
