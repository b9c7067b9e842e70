import { readFile, rename, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import type { Backbone } from '../backbone.ts';
import type { TransferNetwork } from '../network.ts';
import { type AdapterOptions, adapterOptionsSchema } from './adapter.ts';

/** What a task adds to a backbone, small enough to keep one for every task. */
export interface AdapterFile {
  readonly options: AdapterOptions;
  readonly classes: readonly string[];
  /** Digest and origin of the backbone it belongs to. */
  readonly backbone: { readonly digest: string; readonly origin: string };
  /** `adapter.…`, the layers of the backbone that were trained with it, `head.…`. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

const metadataSchema = z.object({
  covey: z.literal('adapter'),
  options: z.string(),
  classes: z.string(),
  backboneDigest: z.string(),
  backboneOrigin: z.string(),
});

/** Of everything that was trained; the rest is the backbone's. */
export function adapterFileOf(
  network: TransferNetwork,
  adapter: AdapterOptions,
  classes: readonly string[],
): AdapterFile {
  const own = (name: string) => !network.source.weights.has(name) || network.adapter?.trainsToo(name) === true;
  const { digest, origin } = network.source;
  return { options: adapter, classes, backbone: { digest, origin }, tensors: network.read(own) };
}

/** Whole or not at all. */
export async function writeAdapterFile(path: string, file: AdapterFile): Promise<void> {
  const bytes = writeSafetensors(file.tensors, {
    covey: 'adapter',
    options: JSON.stringify(file.options),
    classes: JSON.stringify(file.classes),
    backboneDigest: file.backbone.digest,
    backboneOrigin: file.backbone.origin,
  });
  await writeFile(`${path}.part`, bytes);
  await rename(`${path}.part`, path);
}

/** @throws CoveyError DATA_CORRUPT where the file is no adapter */
export async function readAdapterFile(path: string): Promise<AdapterFile> {
  const { tensors, metadata } = readSafetensors(await readFile(path));
  const parsed = metadataSchema.safeParse(metadata);
  if (!parsed.success) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot read the adapter ${path}: it is a safetensors file of something else`,
      {
        fields: { path },
      },
    );
  }
  const { options, classes, backboneDigest: digest, backboneOrigin: origin } = parsed.data;
  return {
    options: adapterOptionsSchema.parse(JSON.parse(options)),
    classes: z.array(z.string()).parse(JSON.parse(classes)),
    backbone: { digest, origin },
    tensors,
  };
}

/** @throws CoveyError INVALID_ARGUMENT where the adapter was trained in another backbone */
export function expectBackbone(file: AdapterFile, backbone: Backbone): void {
  if (file.backbone.digest === backbone.digest) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot use the adapter: it was trained in ${file.backbone.origin} (${file.backbone.digest}), this backbone is ${backbone.origin} (${backbone.digest}); choose that checkpoint with --step`,
    { fields: { expected: file.backbone.digest, found: backbone.digest } },
  );
}
