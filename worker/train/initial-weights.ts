import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { weightShapes } from '../../models/clip/parameter-shapes.ts';
import { storeFiles } from '../../models/formats/byte-source.ts';
import { loadWeights } from '../../models/formats/load-pretrained.ts';
import type { ModelDescription } from '../../models/formats/model-description.ts';
import { assignAll } from '../../models/named-variables.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { computedTower } from '../../models/vision/vit-layout.ts';
import type { TrainedModel } from '../objectives/objective.ts';
import { objectiveInputs, trainsBothTowers } from '../objectives/objective-inputs.ts';

/** By the names of parameters and buffers; what is not there keeps the values of the seed. */
export type InitialWeights = ReadonlyMap<string, Float32Array>;

const WEIGHT_FILE = /\.(safetensors|pt|pth|bin)$/;

/**
 * The weights that a run begins with where `train.initFrom` names some: all of the image tower, and of the text tower where the run trains
 * one and they have it. The positions are resized to the run's pictures.
 * @throws CoveyError CONFIG_INVALID naming in what the model differs from the run's; whatever the reading of weights throws
 */
export async function loadInitialWeights(
  config: Pick<RunConfig, 'objective' | 'loss' | 'train'>,
  model: ModelConfig,
  openStore: (url: string) => Promise<ObjectStore>,
  signal: AbortSignal,
): Promise<InitialWeights | undefined> {
  const { initFrom } = config.train;
  if (initFrom === undefined) return undefined;
  if (objectiveInputs(config).views === 0) {
    const message = `objective ${config.objective} trains no image tower`;
    throw new CoveyError('UNSUPPORTED', `Cannot begin with the weights of train.initFrom: ${message}`);
  }
  const { folder, weightsFile } = splitUrl(initFrom);
  const store = await openStore(folder);
  try {
    const { imageSize } = model.vision;
    const options = { imageSize, quickGelu: model.quickGelu, ...(weightsFile === undefined ? {} : { weightsFile }) };
    const { description, weights } = await loadWeights(storeFiles(store, '', signal), options);
    const captions = trainsBothTowers(config);
    checkAgreement(description, model, { captions, initFrom });
    return chosen(weights, namesOf(description, model, captions));
  } finally {
    await store.close();
  }
}

function splitUrl(url: string): { folder: string; weightsFile: string | undefined } {
  const slash = url.lastIndexOf('/');
  if (!WEIGHT_FILE.test(url)) return { folder: url, weightsFile: undefined };
  return { folder: url.slice(0, slash), weightsFile: url.slice(slash + 1) };
}

/** A bias and a scale belong together: those of SigLIP start elsewhere than CLIP's. */
function namesOf(description: ModelDescription, model: ModelConfig, captions: boolean): readonly string[] {
  if (!captions || description.kind === 'backbone') return backboneSpecs(model.vision).map(({ name }) => name);
  const sameScale = (description.config.initLogitBias === undefined) === (model.initLogitBias === undefined);
  const names = weightShapes(model).map(({ name }) => name);
  return sameScale ? names : names.filter((name) => !name.startsWith('logit_'));
}

function chosen(weights: InitialWeights, names: readonly string[]): InitialWeights {
  return new Map(names.map((name) => [name, weights.get(name)!]));
}

/** Sizes and settings that must be the run's: what a weight's shape shows, and what it does not (heads, activation). */
function checkAgreement(
  description: ModelDescription,
  model: ModelConfig,
  { captions, initFrom }: { readonly captions: boolean; readonly initFrom: string },
): void {
  const facts = (settings: object, prefix: string) =>
    Object.entries(settings).map(([key, value]) => [`model.${prefix}${key}`, JSON.stringify(value)] as const);
  const theirs = description.kind === 'clip' ? description.config : description;
  const both = captions && description.kind === 'clip';
  const found = new Map([
    ...facts({ quickGelu: theirs.quickGelu }, ''),
    ...facts(computedTower(theirs.vision), 'vision.'),
    ...(both ? facts({ embedDim: description.config.embedDim }, '') : []),
    ...(both ? facts(description.config.text, 'text.') : []),
  ]);
  const wanted = new Map([
    ...facts({ quickGelu: model.quickGelu }, ''),
    ...facts(computedTower(model.vision), 'vision.'),
    ...(both ? facts({ embedDim: model.embedDim }, '') : []),
    ...(both ? facts(model.text, 'text.') : []),
  ]);
  const paths = [...new Set([...found.keys(), ...wanted.keys()])].filter((key) => found.get(key) !== wanted.get(key));
  if (paths.length === 0) return;
  const problems = paths.map((key) => ({
    path: key,
    message: `must be ${found.get(key) ?? 'left out'} for train.initFrom, is ${wanted.get(key) ?? 'not set'}`,
  }));
  const list = problems.map(({ path, message }) => `${path} ${message}`).join('; ');
  throw new CoveyError('CONFIG_INVALID', `Cannot begin with the weights of ${initFrom}: ${list}`, {
    fields: { problems },
  });
}

/** Puts them into a model that has just been made; a momentum encoder begins as the encoder that it follows. */
export function assignInitialWeights({ parameters, buffers = [] }: TrainedModel, weights: InitialWeights): void {
  const sourceOf = (name: string) => weights.get(name.replace(/^key\./, ''));
  const given = [...parameters, ...buffers].filter(({ name }) => sourceOf(name) !== undefined);
  assignAll(given, new Map(given.map(({ name }) => [name, sourceOf(name)!])));
}
