import { writeWhole } from '../common/whole-file.ts';
import { type HostTensor, writeSafetensors } from '../models/formats/safetensors.ts';
import type { LinearClassifier } from '../models/linear/logistic-regression.ts';
import type { Backbone } from './backbone.ts';

export interface HeadFile {
  readonly classes: readonly string[];
  /** What it reads; see NetworkOptions. */
  readonly space: 'features' | 'embedding';
  readonly backbone: Backbone;
  /** `head.weight` [K,F], `head.bias` [K]; of the space `embedding` also the projection. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/** Whole or not at all. */
export async function writeHeadFile(file: string, { classes, space, backbone, tensors }: HeadFile): Promise<void> {
  const metadata = {
    covey: 'head',
    classes: JSON.stringify(classes),
    space,
    backboneDigest: backbone.digest,
    backboneOrigin: backbone.origin,
  };
  await writeWhole(file, writeSafetensors(tensors, metadata));
}

/** In PyTorch's layout: weights are [out, in]. */
export function headTensors({ weights_DK, bias_K, dimensions, classes }: LinearClassifier): Map<string, HostTensor> {
  const weight_KD = new Float32Array(classes * dimensions);
  for (let k = 0; k < classes; k++) {
    for (let d = 0; d < dimensions; d++) weight_KD[k * dimensions + d] = weights_DK[d * classes + k]!;
  }
  return new Map([
    ['head.weight', { shape: [classes, dimensions], values: weight_KD }],
    ['head.bias', { shape: [classes], values: new Float32Array(bias_K) }],
  ]);
}
