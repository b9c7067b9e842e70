import { readFile, stat } from 'node:fs/promises';
import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { writeWhole } from '../../common/whole-file.ts';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import type { TuneProgress } from './tune.ts';

/** JSON has no NaN: what was not measured is null there. */
const measured = z
  .number()
  .nullable()
  .transform((value) => value ?? Number.NaN);
const recordSchema = z
  .object({
    step: z.int(),
    trainLoss: z.number(),
    accuracy: measured,
    crossEntropy: measured,
    score: measured.optional(),
    measures: z.record(z.string(), measured).optional(),
  })
  .transform(({ score, measures, ...rest }) => ({
    ...rest,
    ...(score === undefined ? {} : { score }),
    ...(measures === undefined ? {} : { measures }),
  }));
const factsSchema = z.object({
  step: z.int(),
  optimizerStep: z.int(),
  history: z.array(recordSchema),
  best: recordSchema,
});

const TUNER = 'tuner:';
const BEST = 'best:';

/** Whole or not at all: killed while it is written, the one before stays. */
export async function writeProgress(file: string, { tuner, history, best }: TuneProgress): Promise<void> {
  const tensors = new Map<string, HostTensor>();
  for (const [name, tensor] of tuner.tensors) tensors.set(TUNER + name, tensor);
  for (const [name, tensor] of best.tensors) tensors.set(BEST + name, tensor);
  const { step, optimizerStep } = tuner;
  const facts = JSON.stringify({ step, optimizerStep, history, best: best.record });
  await writeWhole(file, writeSafetensors(tensors, { covey: 'tune-progress', facts }));
}

/** What was written last, or undefined where nothing was. @throws CoveyError DATA_CORRUPT */
export async function readProgress(file: string): Promise<TuneProgress | undefined> {
  const isThere = await stat(file).then(
    () => true,
    () => false,
  );
  if (!isThere) return undefined;
  const { tensors, metadata } = readSafetensors(await readFile(file), file);
  if (metadata['covey'] !== 'tune-progress') {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot go on from ${file}: it is not the progress of a fine-tuning; delete it`,
    );
  }
  const { best, history, ...tuner } = factsSchema.parse(JSON.parse(metadata['facts'] ?? '{}'));
  const under = (prefix: string) =>
    new Map([...tensors].flatMap(([name, one]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), one]] : [])));
  return { tuner: { ...tuner, tensors: under(TUNER) }, history, best: { record: best, tensors: under(BEST) } };
}
