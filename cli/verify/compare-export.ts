import { CoveyError } from '../../common/errors.ts';
import type { Pretrained } from '../../models/formats/pretrained.ts';
import { compareOnnx } from './compare-onnx.ts';
import { compareTfjs, hasTfjsConverter } from './compare-tfjs.ts';
import { compareTokenizer, compareWeights } from './compare-weights.ts';
import type { Comparison } from './comparison.ts';
import type { FoundExport } from './find-exports.ts';
import type { ReferenceEmbeddings } from './reference-embeddings.ts';
import type { VerifySamples } from './verify-samples.ts';

export interface ExportChecks {
  readonly model: Pretrained;
  readonly reference: ReferenceEmbeddings;
  readonly samples: VerifySamples;
  readonly tolerance: number;
}

/**
 * All that can be compared of one export.
 * @throws CoveyError UNSUPPORTED where the package that runs it is not installed: then nothing would be verified
 */
export async function compareExport(
  { format, folder }: FoundExport,
  { model, reference, samples, tolerance }: ExportChecks,
): Promise<Comparison[]> {
  const tokenizer = await compareTokenizer(folder, format, model, samples.captions);
  const ids = tokenizer === undefined ? [] : [tokenizer];
  switch (format) {
    case 'covey':
    case 'open_clip':
    case 'hf':
      return [...(await compareWeights(folder, format, model)), ...ids];
    case 'onnx':
      return [...(await compareOnnx(folder, model, reference, tolerance)), ...ids];
    case 'tfjs':
      if (hasTfjsConverter()) {
        return [...(await compareTfjs(folder, model, reference, tolerance)), ...ids];
      }
      throw new CoveyError(
        'UNSUPPORTED',
        `Cannot run ${folder}: @tensorflow/tfjs-converter is not installed; npm install --ignore-scripts @tensorflow/tfjs-converter`,
      );
  }
}
