import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { weightShapes } from '../../models/clip/parameter-shapes.ts';
import { backboneWeights, type Pretrained } from '../../models/formats/pretrained.ts';
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
  const { mean, std, tokenizer } = source.config.data;
  const preprocess = { mean, std };
  const config = resolveModelConfig(source.config.model);
  const stored = await readWeights(source.store, source.manifest, source.weights, signal);
  const all = new Map([...stored].map(([name, { values }]) => [name, values]));
  if (!all.has('text_projection')) {
    if (!all.has('visual.conv1.weight')) {
      throw new CoveyError('UNSUPPORTED', 'Cannot export the run: it trained no image tower');
    }
    const { vision, quickGelu } = config;
    return { kind: 'backbone', vision, quickGelu, preprocess, weights: backboneWeights(vision, all) };
  }
  const names = new Set(weightShapes(config).map(({ name }) => name));
  const weights = new Map([...all].filter(([name]) => names.has(name)));
  const opened = await openTokenizer(tokenizer, config.text.contextLength, openStore, signal);
  return { kind: 'clip', config, preprocess, tokenizer: opened, weights };
}
