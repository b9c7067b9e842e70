import { z } from 'zod';

/** Bounds the label of the samples' counter. */
const DATASETS_MAX = 64;

/** `data.mixture` of run.yaml. */
export const mixtureSchema = z
  .array(
    z.strictObject({
      manifest: z.string().describe('URL of its manifest'),
      weight: z
        .number()
        .positive()
        .describe('Share of the samples of every batch, relative to the other weights; not of the datasets’ sizes'),
      name: z
        .string()
        .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'letters, digits, dots, dashes and underscores, at most 63')
        .optional()
        .describe('In logs, metrics and sample ids. Default: the name in the manifest'),
    }),
  )
  .min(1)
  .max(DATASETS_MAX)
  .describe('Several datasets in fixed proportions, instead of data.manifest (docs/data.md)');

/** `data.captions` of run.yaml. */
export const captionsSchema = z
  .strictObject({
    choose: z
      .enum(['random', 'first', 'longest'])
      .default('random')
      .describe('Which of a sample’s captions a showing takes. random: another one each epoch'),
    weights: z
      .record(z.string(), z.number().min(0))
      .optional()
      .describe(
        'Of random, by caption source (`covey pack --caption-keys`): relative odds; a source that is not listed has none. A sample without a listed one takes any of its captions',
      ),
  })
  .prefault({});

/** What is wrong with a `data` section beyond its keys. */
export function dataProblems(data: {
  readonly manifest?: string | undefined;
  readonly mixture?: readonly { readonly name?: string | undefined }[] | undefined;
  readonly captions: z.infer<typeof captionsSchema>;
}): { path: (string | number)[]; message: string }[] {
  const problems: { path: (string | number)[]; message: string }[] = [];
  if (data.mixture === undefined && data.manifest === undefined) {
    problems.push({ path: ['data', 'manifest'], message: 'is missing; give it or data.mixture' });
  }
  if (data.mixture !== undefined && data.manifest !== undefined) {
    problems.push({ path: ['data', 'mixture'], message: 'cannot stand beside data.manifest; leave one of them out' });
  }
  const names = data.mixture?.map(({ name }) => name) ?? [];
  for (const [i, name] of names.entries()) {
    if (name !== undefined && names.indexOf(name) < i)
      problems.push({ path: ['data', 'mixture', i, 'name'], message: 'is the name of another dataset' });
  }
  const { choose, weights } = data.captions;
  if (weights !== undefined && choose !== 'random')
    problems.push({ path: ['data', 'captions', 'weights'], message: `is for choose: random, choose is ${choose}` });
  if (weights !== undefined && Object.values(weights).every((weight) => weight === 0))
    problems.push({ path: ['data', 'captions', 'weights'], message: 'must give one source odds above 0' });
  return problems;
}
