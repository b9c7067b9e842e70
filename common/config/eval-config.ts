import { z } from 'zod';

const positiveInt = z.int().positive();

/** What can be asked of held-out data; docs/evaluation.md. */
export const EVAL_TASKS = ['zeroshot', 'retrieval', 'loss', 'knn', 'probe', 'health'] as const;

const datasetSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$/, 'letters, digits, dashes and underscores, at most 31')
    .default('val')
    .describe('Stands before the names of its metrics'),
  manifest: z.string().describe('URL of the manifest of the held-out data'),
  tasks: z
    .array(z.enum(EVAL_TASKS))
    .min(1)
    .describe('What to measure. zeroshot, retrieval: image-text objectives; knn, probe: labelled data'),
  samplesMax: positiveInt.optional().describe('Only the first n samples. Default: all'),
  classes: z
    .array(z.string())
    .min(2)
    .optional()
    .describe(
      'zeroshot, knn, probe: names of the classes. Default: the labels that occur (of a sample without one, its first caption)',
    ),
  templates: z
    .array(z.string())
    .min(1)
    .default(['{}'])
    .describe('zeroshot: {} stands for the class; several are averaged'),
  fit: z
    .string()
    .optional()
    .describe(
      'knn, probe: URL of a manifest of labelled pictures to fit to. Default: every other sample of this dataset',
    ),
});

/** What is measured while a run trains, besides its loss. */
export const evalSchema = z
  .strictObject({
    everySteps: z
      .int()
      .min(0)
      .default(0)
      .describe('Held-out data are evaluated after every n-th step and after the last one; 0: never'),
    datasets: z.array(datasetSchema).max(8).default([]),
    knn: z
      .strictObject({
        neighbours: positiveInt.default(20),
        temperature: z.number().positive().default(0.07).describe('A neighbour of cosine s votes with exp(s/this)'),
      })
      .prefault({}),
    probe: z
      .strictObject({ l2: z.number().positive().default(1e-3).describe('λ of mean cross-entropy + λ/2·‖W‖²') })
      .prefault({}),
    health: z
      .strictObject({
        everySteps: z
          .int()
          .min(0)
          .default(50)
          .describe('Steps whose gathered embeddings are measured: spread, effective rank, alignment; 0: none'),
      })
      .prefault({}),
  })
  .prefault({});

export type EvalConfig = z.infer<typeof evalSchema>;
export type EvalDatasetConfig = EvalConfig['datasets'][number];

/** What is wrong with an `eval` section beyond its keys; paths from the root of the config. */
export function evalProblems({ everySteps, datasets }: EvalConfig): { path: (string | number)[]; message: string }[] {
  const problems: { path: (string | number)[]; message: string }[] = [];
  if (everySteps > 0 && datasets.length === 0)
    problems.push({
      path: ['eval', 'datasets'],
      message: `is empty, eval.everySteps is ${everySteps}; name held-out data`,
    });
  if (everySteps === 0 && datasets.length > 0)
    problems.push({ path: ['eval', 'everySteps'], message: 'is 0: eval.datasets would never be looked at' });
  for (const [i, { name, templates }] of datasets.entries()) {
    if (datasets.findIndex((other) => other.name === name) < i)
      problems.push({ path: ['eval', 'datasets', i, 'name'], message: `is the name of another dataset: ${name}` });
    for (const template of templates) {
      if (template.includes('{}')) continue;
      problems.push({
        path: ['eval', 'datasets', i, 'templates'],
        message: `has one without {}: ${JSON.stringify(template)}`,
      });
    }
  }
  return problems;
}

/** Whether the weights after `step` updates are evaluated. */
export function evaluationDue({ everySteps }: EvalConfig, step: number, totalSteps: number): boolean {
  return everySteps > 0 && step > 0 && (step % everySteps === 0 || step === totalSteps);
}
