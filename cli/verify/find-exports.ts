import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { COVEY_WEIGHTS } from '../../models/formats/covey-format.ts';
import type { ExportFormat } from '../../models/formats/export-formats.ts';
import { HF_WEIGHTS } from '../../models/formats/hugging-face.ts';
import { ONNX_FILES } from '../../models/formats/onnx/export-onnx.ts';
import { OPEN_CLIP_WEIGHTS } from '../../models/formats/open-clip.ts';
import { TFJS_FILES } from '../../models/formats/tfjs/export-tfjs.ts';

export interface FoundExport {
  readonly format: ExportFormat;
  readonly folder: string;
}

/** The file by which each format is known. */
const MARKS: Readonly<Record<ExportFormat, string>> = {
  covey: COVEY_WEIGHTS,
  open_clip: OPEN_CLIP_WEIGHTS[0],
  hf: HF_WEIGHTS[0],
  onnx: ONNX_FILES.vision,
  tfjs: TFJS_FILES.vision,
};

/** The exports in a folder and in those right below it. @throws CoveyError NOT_FOUND where there are none */
export async function findExports(folder: string): Promise<FoundExport[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((thrown: unknown) => {
    throw new CoveyError('NOT_FOUND', `Cannot verify: ${folder} is no folder that can be read`, { cause: thrown });
  });
  const below = entries.filter((entry) => entry.isDirectory()).map(({ name }) => path.join(folder, name));
  const found = [folder, ...below.sort()].flatMap((place) =>
    (Object.keys(MARKS) as ExportFormat[])
      .filter((format) => existsSync(path.join(place, MARKS[format])))
      .map((format) => ({ format, folder: place })),
  );
  if (found.length > 0) return found;
  throw new CoveyError('NOT_FOUND', `Cannot verify: ${folder} holds no export (${Object.values(MARKS).join(', ')})`, {
    fields: { folder },
  });
}
