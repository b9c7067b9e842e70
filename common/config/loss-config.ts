import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { isMoco, mocoProblems, mocoSchema } from './moco-config.ts';

/** What a run learns, and the options of its loss. */

const positiveInt = z.int().positive();

/** Objectives that stand alone, and can be parts of a joint one. */
const SINGLE_OBJECTIVES = [
  'clip',
  'siglip',
  'simclr',
  'supcon',
  'moco-v2',
  'moco-v3',
  'supervised',
  'rotation',
  'rotation-pairs',
  'cloze',
  'mae',
] as const;

export type SingleObjective = (typeof SINGLE_OBJECTIVES)[number];

export const objectiveSchema = z
  .enum([...SINGLE_OBJECTIVES, 'joint'])
  .default('clip')
  .describe('docs/objectives.md');

// What only one objective reads is filled in when it is read, so that the config of other runs stays as it was.
const jointPart = z.strictObject({
  objective: z.enum(SINGLE_OBJECTIVES).exclude(['moco-v2', 'moco-v3']),
  weight: z.number().positive().default(1).describe("Of this part's loss in the sum"),
});

const rotationPairs = z.strictObject({
  combine: z
    .enum(['concat', 'subtract'])
    .default('concat')
    .describe('How the features of the two views become one: side by side, or the second less the first'),
  hidden: positiveInt.optional().describe('Of the classifier. Default: as wide as the features'),
});

const cloze = z.strictObject({
  maskRatio: z
    .number()
    .gt(0)
    .lt(1)
    .default(0.15)
    .describe('Share of the tokens to be guessed: 80 % hidden, 10 % replaced, 10 % as they are'),
  tied: z.boolean().default(true).describe("Whether the output's weights are the token embedding, as in BERT"),
});

const mae = z.strictObject({
  maskRatio: z
    .number()
    .gt(0, 'must be above 0: nothing would be left to predict')
    .lt(1, 'must be below 1: the encoder would see no patch')
    .default(0.75)
    .describe('Share of the patches that the encoder does not see'),
  normTarget: z
    .boolean()
    .default(true)
    .describe("Predict pixels less their patch's mean, over its deviation (He et al. 2022, section 4.1)"),
  decoder: z
    .strictObject({
      width: positiveInt.default(512).describe('A multiple of headWidth and of 4'),
      layers: positiveInt.default(8),
      headWidth: positiveInt.default(32).describe('Heads = width / headWidth: 16 in the paper'),
    })
    .prefault({})
    .describe('Transfer drops it'),
});

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
    mixup: z
      .number()
      .positive()
      .optional()
      .describe(
        'supervised: α of Beta(α, α), from which the share of a second picture is drawn (Zhang et al. 2018); e.g. 0.2',
      ),
    rotationPairs: rotationPairs.optional().describe('rotation-pairs'),
    cloze: cloze.optional().describe('cloze'),
    mae: mae.optional().describe('mae'),
    joint: z
      .array(jointPart)
      .min(2)
      .optional()
      .describe(
        'joint: {objective, weight} of each part (weight 1); the loss is the weighted sum over one batch, on shared towers',
      ),
  })
  .prefault({});

export type LossConfig = z.infer<typeof lossSchema>;

/** Each with its defaults, whether or not the config has it. */
export const rotationPairsOf = (loss: LossConfig) => rotationPairs.parse(loss.rotationPairs ?? {});
export const clozeOf = (loss: LossConfig) => cloze.parse(loss.cloze ?? {});
export const maeOf = (loss: LossConfig) => mae.parse(loss.mae ?? {});

export type RotationPairsConfig = z.infer<typeof rotationPairs>;
export type ClozeConfig = z.infer<typeof cloze>;
export type MaeConfig = z.infer<typeof mae>;

interface ObjectiveChoice {
  readonly objective: z.infer<typeof objectiveSchema>;
  readonly loss: LossConfig;
}

export interface ObjectivePart {
  readonly objective: SingleObjective;
  readonly weight: number;
}

/** The parts of a joint objective, or the one there is. */
export function objectiveParts({ objective, loss }: ObjectiveChoice): readonly ObjectivePart[] {
  return objective === 'joint' ? (loss.joint ?? []) : [{ objective, weight: 1 }];
}

interface Problem {
  readonly path: (string | number)[];
  readonly message: string;
}

/** Options that only some objectives read. */
const READERS: readonly { readonly key: keyof LossConfig; readonly by: readonly SingleObjective[] }[] = [
  { key: 'classes', by: ['supcon', 'supervised'] },
  { key: 'labelSmoothing', by: ['supervised'] },
  { key: 'mixup', by: ['supervised'] },
  { key: 'rotationPairs', by: ['rotation-pairs'] },
  { key: 'cloze', by: ['cloze'] },
  { key: 'mae', by: ['mae'] },
];

/** What an objective needs and lacks, and what is set for one that does not read it; paths from the root of the config. */
export function lossProblems(
  config: ObjectiveChoice & {
    readonly train: { readonly globalBatch: number; readonly lanes: number; readonly patchDropout: number };
  },
): Problem[] {
  const { objective, loss, train } = config;
  const problems: Problem[] = [];
  const refuse = (path: Problem['path'], message: string) => problems.push({ path, message });
  const parts = objectiveParts(config).map((part) => part.objective);
  const labelled = parts.find((part) => part === 'supcon' || part === 'supervised');
  if (labelled !== undefined && loss.classes === undefined) {
    refuse(['loss', 'classes'], `is needed by objective ${labelled}: the number of classes, or their names`);
  }
  for (const { key, by } of READERS) {
    if (loss[key] === undefined || loss[key] === 0 || by.some((reader) => parts.includes(reader))) continue;
    const readers = by.length > 1 ? `objectives ${by.join(' and ')}` : `objective ${by[0]}`;
    refuse(['loss', key], `is for ${readers}, objective is ${objective}`);
  }
  if (loss.negatives === 'none' && !parts.includes('simclr')) {
    refuse(['loss', 'negatives'], `is for objective simclr, objective is ${objective}`);
  }
  if (parts.includes('simclr') && train.globalBatch < 2) {
    refuse(['train', 'globalBatch'], 'must be at least 2 for objective simclr, which learns from other pictures, is 1');
  }
  const moco = parts.find(isMoco);
  if (moco !== undefined && !parts.includes('simclr') && !parts.includes('supcon')) {
    const { temperature, projection } = lossSchema.parse(undefined);
    for (const [key, value] of Object.entries({ temperature, projection })) {
      if (isDeepStrictEqual(loss[key as 'temperature'], value)) continue;
      refuse(['loss', key], `is for objectives simclr and supcon; objective ${moco} reads loss.moco`);
    }
  }
  problems.push(...mocoProblems({ objective: moco ?? objective, loss, train }));
  if (parts.includes('mae')) problems.push(...maeProblems(loss.mae, train.patchDropout));
  return [...problems, ...jointProblems(config)];
}

/** @param options with their defaults; none are theirs, which fit */
function maeProblems(options: MaeConfig | undefined, patchDropout: number): Problem[] {
  const problems: Problem[] = [];
  if (options !== undefined) {
    const { width, headWidth } = options.decoder;
    const message = `must be a multiple of headWidth (${headWidth}) and of 4, for its fixed positions; is ${width}`;
    const path = ['loss', 'mae', 'decoder', 'width'];
    if (width % headWidth !== 0 || width % 4 !== 0) problems.push({ path, message });
  }
  if (patchDropout > 0) {
    const message = `must be 0 with objective mae, which hides loss.mae.maskRatio of the patches itself; is ${patchDropout}`;
    problems.push({ path: ['train', 'patchDropout'], message });
  }
  return problems;
}

function jointProblems({ objective, loss: { joint } }: ObjectiveChoice): Problem[] {
  const path = ['loss', 'joint'];
  if (objective !== 'joint') {
    return joint === undefined ? [] : [{ path, message: `is for objective joint, objective is ${objective}` }];
  }
  if (joint === undefined) return [{ path, message: 'is needed by objective joint: a list of {objective, weight}' }];
  const names = joint.map((part) => part.objective);
  const problems: Problem[] = [];
  names.forEach((name, index) => {
    const message = `${name} is there twice; give it one weight`;
    if (names.indexOf(name) < index) problems.push({ path: [...path, index, 'objective'], message });
  });
  if (names.includes('clip') && names.includes('siglip')) {
    problems.push({ path, message: 'clip and siglip would pull one logit scale two ways; choose one' });
  }
  return problems;
}
