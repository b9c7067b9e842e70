import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { ExportFormat } from '../../models/formats/export-formats.ts';
import { loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { type Pretrained, shapesOf, visionOf } from '../../models/formats/pretrained.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { computedTower } from '../../models/vision/vit-layout.ts';
import { type Comparison, maxAbsDifference } from './comparison.ts';

/** Reads an export of weights back as any loader does, and compares settings and every value: bits must be equal. */
export async function compareWeights(folder: string, format: ExportFormat, model: Pretrained): Promise<Comparison[]> {
  const loaded = await loadPretrainedPath(folder);
  const differs = JSON.stringify(settingsOf(loaded)) !== JSON.stringify(settingsOf(model));
  let largest = 0;
  for (const { name } of shapesOf(model)) {
    const difference = maxAbsDifference(loaded.weights.get(name) ?? [], model.weights.get(name) ?? []);
    largest = Math.max(largest, difference);
  }
  const row = (output: string, difference: number) => ({
    format,
    file: output === 'settings' ? 'config' : 'weights',
    output,
    maxAbsDifference: difference,
    tolerance: 0,
  });
  return [row('settings', differs ? Number.POSITIVE_INFINITY : 0), row('every value', largest)];
}

function settingsOf(model: Pretrained) {
  const { preprocess } = model;
  const tower = computedTower(visionOf(model));
  if (model.kind === 'backbone') return { preprocess, tower, quickGelu: model.quickGelu };
  return { preprocess, config: { ...model.config, vision: tower } };
}

/** Whether the tokenizer of an export gives the ids that covey's gives. Undefined where there is none to compare. */
export async function compareTokenizer(
  folder: string,
  format: ExportFormat,
  model: Pretrained,
  captions: readonly string[],
): Promise<Comparison | undefined> {
  if (model.kind !== 'clip') return undefined;
  const file = 'tokenizer.json';
  const exported = await loadTokenizer(
    await readFile(path.join(folder, file), 'utf8'),
    model.config.text.contextLength,
  );
  const differences = captions.map((caption) =>
    maxAbsDifference(exported.encode(caption), model.tokenizer.encode(caption)),
  );
  return { format, file, output: 'ids', maxAbsDifference: Math.max(0, ...differences), tolerance: 0 };
}
