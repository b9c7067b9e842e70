import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { isMoco, mocoProblems, mocoSchema } from './moco-config.ts';

/** What a run learns, and the options of its loss. */

const positiveInt = z.int().positive();

export const objectiveSchema = z
  .enum(['clip', 'siglip', 'simclr', 'supcon', 'moco-v2', 'moco-v3', 'supervised'])
  .default('clip')
  .describe('docs/objectives.md');

export const lossSchema = z
  .strictObject({
    temperature: z.number().positive().default(0.1).describe('simclr, supcon: what similarities are divided by'),
    viewLoss: z
      .enum(['mean', 'sum'])
      .default('mean')
      .describe(
        "simclr, supcon: mean over the 2N views as the papers write it; sum: both directions' means added, twice that, as google-research/simclr",
      ),
    negatives: z
      .enum(['all', 'none'])
      .default('all')
      .describe('simclr: none leaves only the pull between two views of a picture, an ablation that collapses'),
    projection: z
      .strictObject({
        hidden: positiveInt.optional().describe("Default: as wide as the backbone's features, as in SimCLR"),
        width: positiveInt.default(128),
        batchNorm: z.boolean().default(false).describe("After the first layer, over each lane's views"),
      })
      .prefault({})
      .describe('simclr, supcon: the two-layer head whose output is contrasted; transfer drops it'),
    classes: z
      .union([z.int().min(2), z.array(z.string()).min(2)])
      .optional()
      .describe(
        'supcon, supervised: how many classes, where the labels of the dataset are numbers from 0; or their names in order',
      ),
    labelSmoothing: z.number().min(0).lt(1).default(0).describe('supervised'),
    moco: mocoSchema.optional().describe('moco-v2, moco-v3'),
  })
  .prefault({});

export type LossConfig = z.infer<typeof lossSchema>;

/** What an objective needs and lacks, and what is set for one that does not read it; paths from the root of the config. */
export function lossProblems({
  objective,
  loss,
  train,
}: {
  objective: z.infer<typeof objectiveSchema>;
  loss: LossConfig;
  train: { globalBatch: number; lanes: number };
}) {
  const problems: { path: string[]; message: string }[] = [];
  const refuse = (path: string[], message: string) => problems.push({ path, message });
  const labelled = objective === 'supcon' || objective === 'supervised';
  if (labelled && loss.classes === undefined) {
    refuse(['loss', 'classes'], `is needed by objective ${objective}: the number of classes, or their names`);
  }
  if (!labelled && loss.classes !== undefined) {
    refuse(['loss', 'classes'], `is for objectives supcon and supervised, objective is ${objective}`);
  }
  if (loss.labelSmoothing > 0 && objective !== 'supervised') {
    refuse(['loss', 'labelSmoothing'], `is for objective supervised, objective is ${objective}`);
  }
  if (loss.negatives === 'none' && objective !== 'simclr') {
    refuse(['loss', 'negatives'], `is for objective simclr, objective is ${objective}`);
  }
  if (objective === 'simclr' && train.globalBatch < 2) {
    refuse(['train', 'globalBatch'], 'must be at least 2 for objective simclr, which learns from other pictures, is 1');
  }
  if (isMoco(objective)) {
    const { temperature, projection } = lossSchema.parse(undefined);
    for (const [key, value] of Object.entries({ temperature, projection })) {
      if (isDeepStrictEqual(loss[key as 'temperature'], value)) continue;
      refuse(['loss', key], `is for objectives simclr and supcon; objective ${objective} reads loss.moco`);
    }
  }
  problems.push(...mocoProblems({ objective, loss, train }));
  return problems;
}
