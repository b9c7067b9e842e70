import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { weightSpecs } from '../../models/formats/load-pretrained.ts';
import type { ModelDescription } from '../../models/formats/model-description.ts';
import type { Pretrained } from '../../models/formats/pretrained.ts';
import type { HostTensor } from '../../models/formats/safetensors.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { openTokenizer } from '../data/open-tokenizer.ts';
import type { CheckpointManifest, WeightKind } from './checkpoint-format.ts';
import { readWeights } from './read-checkpoint.ts';

export interface CheckpointSource {
  readonly config: Pick<RunConfig, 'model' | 'data'>;
  readonly store: ObjectStore;
  readonly manifest: CheckpointManifest;
  readonly weights: WeightKind;
}

/**
 * What a run has learnt, as loaders give it: a CLIP where it trained both towers, else the image tower alone. Heads and whatever else
 * only training needs are left out.
 * @param openStore opens the store of the tokenizer, where the run has one of its own
 */
export async function readPretrained(
  source: CheckpointSource,
  openStore: (url: string) => Promise<ObjectStore>,
  signal: AbortSignal,
): Promise<Pretrained> {
  const { description, tensors } = await readRunWeights(source, signal);
  const weights = new Map([...tensors].map(([name, { values }]) => [name, values]));
  if (description.kind === 'backbone') return { ...description, weights };
  const { config, preprocess } = description;
  const { tokenizer } = source.config.data;
  const opened = await openTokenizer(tokenizer, config.text.contextLength, openStore, signal);
  return { kind: 'clip', config, preprocess, tokenizer: opened, weights };
}

/** The same without a tokenizer, as a description and what it names. @throws CoveyError UNSUPPORTED where no image tower was trained */
export async function readRunWeights(
  source: CheckpointSource,
  signal: AbortSignal,
): Promise<{ readonly description: ModelDescription; readonly tensors: ReadonlyMap<string, HostTensor> }> {
  const { mean, std, tokenizer } = source.config.data;
  const preprocess = { mean, std };
  const config = resolveModelConfig(source.config.model);
  const stored = await readWeights(source.store, source.manifest, source.weights, signal);
  if (!stored.has('visual.conv1.weight')) {
    const message = `Cannot hand on run ${source.manifest.run}: it trained no image tower`;
    throw new CoveyError('UNSUPPORTED', message);
  }
  const { vision, quickGelu } = config;
  const description: ModelDescription = stored.has('text_projection')
    ? { kind: 'clip', config, preprocess, tokenizer: tokenizer === 'clip' ? 'clip' : 'beside' }
    : { kind: 'backbone', vision, quickGelu, preprocess };
  const names = new Set(weightSpecs(description).map(({ name }) => name));
  return { description, tensors: new Map([...stored].filter(([name]) => names.has(name))) };
}
