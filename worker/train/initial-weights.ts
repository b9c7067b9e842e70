import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { weightShapes } from '../../models/clip/parameter-shapes.ts';
import type { ModelDescription } from '../../models/formats/model-description.ts';
import type { PreprocessConfig } from '../../models/formats/weights.ts';
import { assignAll } from '../../models/named-variables.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { computedTower } from '../../models/vision/vit-layout.ts';
import type { TrainedModel } from '../objectives/objective.ts';
import { objectiveInputs, trainsBothTowers } from '../objectives/objective-inputs.ts';
import { type InitialModel, readInitialModel } from './initial-model.ts';

/** By the names of parameters and buffers; what is not there keeps the values of the seed. */
export type InitialWeights = ReadonlyMap<string, Float32Array>;

/** What a run begins with where `train.initFrom` names a model. */
export interface InitialChoice {
  readonly weights: InitialWeights;
  /** The model that they are of, and its URL: of a run, that of the checkpoint that was read. */
  readonly model: InitialModel;
}

type OpenStore = (url: string) => Promise<ObjectStore>;

/**
 * The weights that a run begins with where `train.initFrom` names some: all of the image tower, and of the text tower where the run trains
 * one and they have it. The positions are resized to the run's pictures.
 * @throws CoveyError CONFIG_INVALID naming in what the model differs from the run's; whatever the reading of weights throws
 */
export async function chooseInitialWeights(
  config: Pick<RunConfig, 'objective' | 'loss' | 'train'>,
  model: ModelConfig,
  openStore: OpenStore,
  signal: AbortSignal,
): Promise<InitialChoice | undefined> {
  const { initFrom } = config.train;
  if (initFrom === undefined) return undefined;
  if (objectiveInputs(config).views === 0) {
    const message = `objective ${config.objective} trains no image tower`;
    throw new CoveyError('UNSUPPORTED', `Cannot begin with the weights of train.initFrom: ${message}`);
  }
  const initial = await readInitialModel(initFrom, model, openStore, signal);
  const captions = trainsBothTowers(config);
  checkAgreement(initial.description, model, { captions, initFrom });
  return { weights: chosen(initial.weights, namesOf(initial.description, model, captions)), model: initial };
}

/** The same without where they are from: what a worker needs. */
export async function loadInitialWeights(
  ...given: Parameters<typeof chooseInitialWeights>
): Promise<InitialWeights | undefined> {
  return (await chooseInitialWeights(...given))?.weights;
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

/** Says where the run shows its pictures otherwise than the weights have learnt to see them: it trains, but begins worse. */
export function unlikePreprocess(
  data: Pick<RunConfig['data'], 'mean' | 'std'>,
  theirs: PreprocessConfig,
): string | undefined {
  const unlike = (['mean', 'std'] as const).filter((key) =>
    data[key].some((value, i) => Math.abs(value - theirs[key][i]!) > 1e-4),
  );
  if (unlike.length === 0) return undefined;
  const settings = unlike.map((key) => `data.${key}: [${theirs[key].join(', ')}]`);
  return `the weights of train.initFrom were trained on pictures normalised otherwise; set ${settings.join(' and ')}`;
}

/** Puts them into a model that has just been made; a momentum encoder begins as the encoder that it follows. */
export function assignInitialWeights({ parameters, buffers = [] }: TrainedModel, weights: InitialWeights): void {
  const sourceOf = (name: string) => weights.get(name.replace(/^key\./, ''));
  const given = [...parameters, ...buffers].filter(({ name }) => sourceOf(name) !== undefined);
  assignAll(given, new Map(given.map(({ name }) => [name, sourceOf(name)!])));
}
