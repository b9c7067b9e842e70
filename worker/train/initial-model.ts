import type { ModelConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { storeFiles } from '../../models/formats/byte-source.ts';
import { type DescribedWeights, describedWeights, loadWeights } from '../../models/formats/load-pretrained.ts';
import { manifestKeyOf } from '../checkpoint/checkpoint-format.ts';
import { newestVerified } from '../checkpoint/checkpoint-registry.ts';
import { readManifest } from '../checkpoint/read-checkpoint.ts';
import { readRunWeights } from '../checkpoint/read-pretrained.ts';
import { readRunConfig } from '../checkpoint/run-config-file.ts';

/** A model to begin with: what `train.initFrom` names. */
export interface InitialModel extends DescribedWeights {
  /** The same for good: of a run, the checkpoint that was read. */
  readonly url: string;
}

const WEIGHT_FILE = /\.(safetensors|pt|pth|bin)$/;
/** Of a run in its store, or one of its checkpoints. */
const RUN_URL = /^(?<storeUrl>.+)\/runs\/(?<run>[a-z0-9][a-z0-9-]{0,62})(?:\/ckpt\/(?<checkpoint>step-\d+-g\d+))?\/?$/;

/**
 * Reads the model that a URL names: a folder or file of weights, or a run in its store (`…/runs/NAME`: the newest checkpoint that verifies;
 * `…/runs/NAME/ckpt/step-…`: that one). Positions are resized to the pictures of `model`.
 * @throws CoveyError NOT_FOUND saying what can be given; whatever the reading of weights throws
 */
export async function readInitialModel(
  url: string,
  model: Pick<ModelConfig, 'vision' | 'quickGelu'>,
  openStore: (url: string) => Promise<ObjectStore>,
  signal: AbortSignal,
): Promise<InitialModel> {
  try {
    return (await fromRun(url, model, openStore, signal)) ?? (await fromFiles(url, model, openStore, signal));
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'NOT_FOUND')) throw thrown;
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot begin with the weights of ${url} (train.initFrom): ${thrown.message}. Give a folder or a file of weights, or a run in its store: STORE/runs/NAME`,
      { cause: thrown, fields: thrown.fields },
    );
  }
}

/** Undefined where no run lies there. */
async function fromRun(
  url: string,
  { vision: { imageSize } }: Pick<ModelConfig, 'vision'>,
  openStore: (url: string) => Promise<ObjectStore>,
  signal: AbortSignal,
): Promise<InitialModel | undefined> {
  const { storeUrl, run, checkpoint } = RUN_URL.exec(url)?.groups ?? {};
  if (storeUrl === undefined || run === undefined) return undefined;
  const store = await openStore(storeUrl);
  try {
    const key =
      checkpoint === undefined
        ? (await newestVerified(store, run, signal))?.manifestKey
        : manifestKeyOf(run, checkpoint);
    if (key === undefined) return undefined;
    const source = {
      config: await readRunConfig(store, run, signal),
      store,
      manifest: await readManifest(store, key, { signal }),
      weights: 'last' as const,
    };
    const { description, tensors } = await readRunWeights(source, signal);
    const file = `${store.url}/${key}`;
    const loaded = describedWeights(description, tensors, { file, mayResize: true, imageSize });
    return { ...loaded, url: file.slice(0, file.lastIndexOf('/')) };
  } finally {
    await store.close();
  }
}

async function fromFiles(
  url: string,
  { vision: { imageSize }, quickGelu }: Pick<ModelConfig, 'vision' | 'quickGelu'>,
  openStore: (url: string) => Promise<ObjectStore>,
  signal: AbortSignal,
): Promise<InitialModel> {
  const { folder, weightsFile } = splitUrl(url);
  const store = await openStore(folder);
  try {
    const options = { imageSize, quickGelu, ...(weightsFile === undefined ? {} : { weightsFile }) };
    return { ...(await loadWeights(storeFiles(store, '', signal), options)), url };
  } finally {
    await store.close();
  }
}

function splitUrl(url: string): { folder: string; weightsFile: string | undefined } {
  const slash = url.lastIndexOf('/');
  if (!WEIGHT_FILE.test(url)) return { folder: url, weightsFile: undefined };
  return { folder: url.slice(0, slash), weightsFile: url.slice(slash + 1) };
}
