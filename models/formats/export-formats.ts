import { CoveyError } from '../../common/errors.ts';
import { writeTogether } from '../../common/whole-file.ts';
import { clipVitMisfit } from '../vision/vit-layout.ts';
import { exportCovey } from './covey-format.ts';
import { exportHf, hfMisfit } from './hugging-face.ts';
import { type ModelCardFacts, modelCard } from './model-card.ts';
import { writeFiles } from './model-files.ts';
import { exportOnnx } from './onnx/export-onnx.ts';
import { exportOpenClip } from './open-clip.ts';
import { type Pretrained, visionOf } from './pretrained.ts';
import { exportTfjs } from './tfjs/export-tfjs.ts';

/** Every format that a model is written in, in the order of --help. */
export const EXPORT_FORMATS = ['open_clip', 'hf', 'onnx', 'tfjs', 'covey'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

const WRITERS: Readonly<Record<ExportFormat, (dir: string, model: Pretrained, version: string) => Promise<string[]>>> =
  {
    open_clip: exportOpenClip,
    hf: exportHf,
    onnx: exportOnnx,
    tfjs: exportTfjs,
    covey: exportCovey,
  };

/** Why a model cannot be written in a format, or undefined where it can. */
export function misfit(format: ExportFormat, model: Pretrained): string | undefined {
  const vision = visionOf(model);
  if (format === 'covey' || format === 'onnx' || format === 'tfjs') return undefined;
  if (format === 'hf') return hfMisfit(model);
  return vision.kind === 'modified-resnet' ? undefined : clipVitMisfit(vision);
}

/** The formats that a model can be written in. */
export function fittingFormats(model: Pretrained): ExportFormat[] {
  return EXPORT_FORMATS.filter((format) => misfit(format, model) === undefined);
}

/**
 * Writes a model with its card, all files or none. Nothing is written where it does not fit.
 * @param version of covey, kept in the files
 * @returns the paths written
 * @throws CoveyError UNSUPPORTED saying which formats fit
 */
export async function exportModel(
  dir: string,
  format: ExportFormat,
  model: Pretrained,
  { card, version }: { readonly card: ModelCardFacts; readonly version: string },
): Promise<string[]> {
  const reason = misfit(format, model);
  if (reason !== undefined) {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot export to ${format}: ${reason}; formats that fit: ${fittingFormats(model).join(', ')}`,
      { fields: { format, fitting: fittingFormats(model) } },
    );
  }
  return writeTogether(dir, async (staging) => [
    ...(await WRITERS[format](staging, model, version)),
    ...(await writeFiles(staging, { 'README.md': modelCard(format, model, card) })),
  ]);
}
