import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { loadEngine } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { evalTransform } from '../../models/preprocess/eval-transform.ts';
import type { Checkpoint } from '../../proto/gen/covey/v1/Checkpoint.ts';
import { readManifest, readWeights } from '../../worker/checkpoint/read-checkpoint.ts';
import { type Dataset, openDataset, splitManifestUrl } from '../../worker/data/dataset.ts';
import { openTokenizer } from '../../worker/data/open-tokenizer.ts';
import { readImageBytes } from '../../worker/data/sample-source.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import { type EvalImage, evaluateZeroShot, type ZeroShotResult } from '../../worker/eval/zeroshot.ts';

export interface JudgeOptions {
  readonly config: RunConfig;
  readonly checkpoint: Checkpoint;
  /** URL of the pictures never seen in training. */
  readonly testManifest: string;
  readonly classNames: readonly string[];
}

export interface JudgeModules {
  readonly logger: Logger;
  readonly signal: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

export interface Judgement {
  /** In the order of `zeroShot.classEmbeddings`. */
  readonly classNames: readonly string[];
  readonly zeroShot: ZeroShotResult;
  /** PNG files of the test pictures, in the order of the predictions. */
  readonly pictures: readonly Uint8Array[];
}

/** Reads the checkpoint back, verified, and classifies the unseen pictures among all names: zero-shot, as CLIP does. */
export async function judgeCheckpoint(options: JudgeOptions, modules: JudgeModules): Promise<Judgement> {
  const { config } = options;
  const { logger, signal } = modules;
  const openStore = async (url: string) => openObjectStore(url, { logger });
  const weights = await weightsOf(options, modules);
  const modelConfig = resolveModelConfig(config.model);
  const engine = await loadEngine({ engine: config.workers.engine, threads: availableParallelism() });
  const model = new ClipModel(modelConfig, { seed: config.seed, precision: config.train.precision, init: 'zeros' });
  const manifest = splitManifestUrl(options.testManifest);
  const store = await openStore(manifest.storeUrl);
  try {
    model.setWeights(weights);
    const tokenizer = await openTokenizer(config.data.tokenizer, modelConfig.text.contextLength, openStore, signal);
    const dataset = await openDataset(store, manifest.key, { signal });
    const pictures: Uint8Array[] = [];
    const images = testImages(
      dataset,
      pictures,
      { ...options, side: modelConfig.vision.imageSize },
      { ...modules, store },
    );
    const zeroShot = await evaluateZeroShot(
      images,
      { classNames: options.classNames, mean: config.data.mean, std: config.data.std },
      { engine, model, tokenizer },
      signal,
    );
    return { classNames: options.classNames, zeroShot, pictures };
  } finally {
    model.dispose();
    engine.close();
    await store.close();
  }
}

async function weightsOf(
  { config, checkpoint }: JudgeOptions,
  { logger, signal }: JudgeModules,
): Promise<Map<string, Float32Array>> {
  const store = openObjectStore(config.store, { logger });
  try {
    const manifest = await readManifest(store, checkpoint.manifestKey, { sha256: checkpoint.manifestSha256, signal });
    const tensors = await readWeights(store, manifest, 'last', signal);
    return new Map([...tensors].map(([name, { values }]) => [name, Float32Array.from(values)]));
  } finally {
    await store.close();
  }
}

async function* testImages(
  dataset: Dataset,
  pictures: Uint8Array[],
  options: JudgeOptions & { readonly side: number },
  modules: JudgeModules & { readonly store: Dataset['store'] },
): AsyncGenerator<EvalImage> {
  const { data } = options.config;
  const dir = data.cacheDir ?? path.join('.covey', 'cache');
  const cache = new ShardCache({ dir, bytesMax: data.cacheBytesMax }, modules);
  try {
    for await (const located of dataset.samples(modules.signal)) {
      const bytes = await readImageBytes(cache, located, modules.signal);
      const label = located.record.captions[0];
      if (label === undefined) throw new CoveyError('DATA_CORRUPT', `Cannot judge: ${located.sampleId} has no caption`);
      pictures.push(bytes);
      yield { sampleId: located.sampleId, label, pixels: await evalTransform(bytes, options.side, data) };
      modules.onProgress?.(pictures.length, dataset.sampleCount);
    }
  } finally {
    await cache.close();
  }
}
