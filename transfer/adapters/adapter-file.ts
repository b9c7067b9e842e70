import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { fromFileError } from '../../common/file-errors.ts';
import { writeWhole } from '../../common/whole-file.ts';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import type { Backbone } from '../backbone.ts';
import { TransferNetwork } from '../network.ts';
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
  const { digest, origin } = network.source;
  return { options: adapter, classes, backbone: { digest, origin }, tensors: network.read(ownNames(network)) };
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
  await writeWhole(path, bytes);
}

/** @throws CoveyError NOT_FOUND, DATA_CORRUPT where the file is no adapter or a broken one */
export async function readAdapterFile(path: string): Promise<AdapterFile> {
  const bytes = await readFile(path).catch((thrown: unknown) => {
    throw fromFileError(thrown, 'read the adapter', path);
  });
  const { tensors, metadata } = readSafetensors(bytes, path);
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
  try {
    return {
      options: adapterOptionsSchema.parse(JSON.parse(options)),
      classes: z.array(z.string()).parse(JSON.parse(classes)),
      backbone: { digest, origin },
      tensors,
    };
  } catch (thrown) {
    throw new CoveyError('DATA_CORRUPT', `Cannot read the adapter ${path}: its description is broken`, {
      cause: thrown,
      fields: { path },
    });
  }
}

/**
 * Gives a network of the file's kind, space and classes the file's values.
 * @throws CoveyError DATA_CORRUPT where the file lacks some of them, or has others
 */
export function putAdapter(network: TransferNetwork, file: AdapterFile): void {
  const wanted = network.read(ownNames(network));
  const problems = [
    ...[...wanted.keys()].filter((name) => !file.tensors.has(name)).map((name) => `${name} is missing`),
    ...[...file.tensors].flatMap(([name, { shape }]) => {
      const expected = wanted.get(name)?.shape;
      if (expected === undefined) return [`${name} is none of its layers`];
      return `${expected}` === `${shape}` ? [] : [`${name} is [${shape}], not [${expected}]`];
    }),
  ];
  if (problems.length > 0) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot use the adapter: it is not what its description says, ${file.options.kind} for ${file.classes.length} classes: ${problems.join('; ')}`,
      { fields: { problems } },
    );
  }
  network.write(file.tensors);
}

/** What is trained with an adapter: it, the head, and the layers of the backbone that it trains too. */
function ownNames({ source, adapter }: TransferNetwork): (name: string) => boolean {
  return (name) => !source.weights.has(name) || adapter?.trainsToo(name) === true;
}

/**
 * The backbone with the adapter and its head in it, as it was trained. The caller disposes it.
 * @param beside a network of the bare backbone, made before and disposed after: what the adapter leaves alone is then in memory once
 * @throws CoveyError INVALID_ARGUMENT where the adapter was trained in another backbone, DATA_CORRUPT where the file is not what it says
 */
export function adaptedNetwork(file: AdapterFile, backbone: Backbone, beside?: TransferNetwork): TransferNetwork {
  expectBackbone(file, backbone);
  const projected = [...(backbone.projection?.tensors.keys() ?? [])].some((name) => file.tensors.has(name));
  const network = new TransferNetwork(backbone, {
    classes: file.classes.length,
    space: projected ? 'embedding' : 'features',
    adapter: file.options,
    seed: 0,
    precision: 'fp32',
    beside: beside?.shared(new Set(file.tensors.keys())),
  });
  try {
    putAdapter(network, file);
  } catch (thrown) {
    network.dispose();
    throw thrown;
  }
  return network;
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
