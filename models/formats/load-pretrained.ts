import { stat } from 'node:fs/promises';
import path from 'node:path';
import type { ModelConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { weightShapes } from '../clip/parameter-shapes.ts';
import { resolveModelConfig } from '../model-config.ts';
import { clipVocabularySize } from '../tokenizer/clip-vocabulary.ts';
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts';
import { backboneSpecs } from '../vision/backbone.ts';
import { type PositionGrid, positionGrid } from '../vision/position-grid.ts';
import { folderFiles, type ModelFiles } from './byte-source.ts';
import { COVEY_CONFIG, COVEY_WEIGHTS, readCoveyConfig } from './covey-format.ts';
import { HF_CONFIG, HF_PREPROCESSOR, HF_WEIGHTS, readHfConfig } from './hugging-face.ts';
import { fromHuggingFace } from './hugging-face-keys.ts';
import { inferDescription } from './infer-config.ts';
import { checkedVision, type ModelDescription } from './model-description.ts';
import { readText } from './model-files.ts';
import { OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, readOpenClipConfig } from './open-clip.ts';
import { resizePositions } from './position-resize.ts';
import type { Pretrained } from './pretrained.ts';
import type { HostTensor } from './safetensors.ts';
import { readStateDict, type StateDict } from './state-dict.ts';
import { CLIP_PREPROCESS, type ParameterShape, plainWeights } from './weights.ts';

export interface LoadOptions {
  /** The weights' file. Default: by the name of its format. */
  readonly weightsFile?: string;
  /** The model, for weights without a config beside them. */
  readonly model?: ModelConfig;
  /** The activation, where neither a config nor `model` says it. */
  readonly quickGelu?: boolean;
  /** Side of the pictures; where it is not the weights' own, their positions are resized. */
  readonly imageSize?: number;
  /** Text of a tokenizer.json, for a model with a vocabulary of its own and none beside it. */
  readonly tokenizerJson?: string;
}

/**
 * Loads a model that open_clip, transformers, OpenAI or covey wrote: `open_clip_config.json` or `config.json` with its weights, or a
 * bare file of weights. Every key must be the model's and in its shape; positions alone may be resized.
 * @throws CoveyError NOT_FOUND, UNSUPPORTED for another architecture, DATA_CORRUPT where weights and config disagree
 */
export async function loadPretrained(files: ModelFiles, options: LoadOptions = {}): Promise<Pretrained> {
  const { description, weights } = await loadWeights(files, options);
  const { preprocess } = description;
  if (description.kind === 'backbone') {
    return { kind: 'backbone', vision: description.vision, quickGelu: description.quickGelu, weights, preprocess };
  }
  const tokenizer = await readTokenizer(files, description, options);
  return { kind: 'clip', config: description.config, weights, preprocess, tokenizer };
}

export interface DescribedWeights {
  readonly description: ModelDescription;
  readonly weights: Map<string, Float32Array>;
}

/** The same without a tokenizer: what a run begins with needs none. */
export async function loadWeights(files: ModelFiles, options: LoadOptions = {}): Promise<DescribedWeights> {
  const { file, stateDict } = await readWeightsFile(files, options);
  const isHf = [...stateDict.tensors.keys()].some((key) => /^(vision_model|text_model)\./.test(key));
  const described = await describe(files, { file, stateDict, isHf }, options);
  const named = isHf
    ? fromHuggingFace(
        stateDict.tensors,
        weightSpecs(described).map(({ name }) => name),
      )
    : stateDict.tensors;
  // Only where another size is asked for: a config that disagrees with its weights is an error.
  const mayResize = options.imageSize !== undefined || options.model !== undefined;
  return describedWeights(described, named, { file, mayResize, imageSize: options.imageSize });
}

/**
 * What a description asks for of the tensors that were read, and the description itself, for pictures of `imageSize` where that is given.
 * @throws CoveyError DATA_CORRUPT naming every key that is missing, superfluous or of another shape, CONFIG_INVALID for a size it cannot have
 */
export function describedWeights(
  described: ModelDescription,
  tensors: ReadonlyMap<string, HostTensor>,
  {
    file,
    mayResize,
    imageSize,
  }: { readonly file: string; readonly mayResize: boolean; readonly imageSize?: number | undefined },
): DescribedWeights {
  const description = withImageSize(described, imageSize);
  const vision = description.kind === 'clip' ? description.config.vision : description.vision;
  const grid = mayResize ? positionGrid(vision) : undefined;
  const weights = plainWeights(weightSpecs(description), grid === undefined ? tensors : resized(tensors, grid), file);
  return { description, weights };
}

/** Names and shapes of all weights that a description asks for. */
export function weightSpecs(description: ModelDescription): readonly ParameterShape[] {
  return description.kind === 'clip' ? weightShapes(description.config) : backboneSpecs(description.vision);
}

/** The same from a folder or a file of this machine. */
export async function loadPretrainedPath(place: string, options: LoadOptions = {}): Promise<Pretrained> {
  const found = await stat(place).catch(() => undefined);
  if (!found) {
    throw new CoveyError('NOT_FOUND', `Cannot load the model: there is no file or folder ${place}`, {
      fields: { place },
    });
  }
  if (found.isDirectory()) return loadPretrained(folderFiles(place), options);
  return loadPretrained(folderFiles(path.dirname(place)), { ...options, weightsFile: path.basename(place) });
}

async function readWeightsFile(
  files: ModelFiles,
  { weightsFile }: LoadOptions,
): Promise<{ file: string; stateDict: StateDict }> {
  const names = weightsFile === undefined ? [COVEY_WEIGHTS, ...OPEN_CLIP_WEIGHTS, ...HF_WEIGHTS] : [weightsFile];
  for (const name of names) {
    const source = await files.open(name);
    if (!source) continue;
    try {
      return { file: name, stateDict: await readStateDict(source) };
    } finally {
      await source.close();
    }
  }
  throw new CoveyError('NOT_FOUND', `Cannot load the model: ${files.url} has none of ${names.join(', ')}`, {
    fields: { url: files.url, names },
  });
}

/** What was said, or what the config beside the weights says, or without one what their shapes say. */
async function describe(
  files: ModelFiles,
  {
    file: weightsFile,
    stateDict,
    isHf,
  }: { readonly file: string; readonly stateDict: StateDict; readonly isHf: boolean },
  { quickGelu, model }: LoadOptions,
): Promise<ModelDescription> {
  const { tensors, fromOpenAi } = stateDict;
  if (model) {
    const { vision } = model;
    const isBackbone = ![...tensors.keys()].some((key) => /token_embedding\.weight$/.test(key));
    return isBackbone
      ? { kind: 'backbone', vision, quickGelu: model.quickGelu, preprocess: CLIP_PREPROCESS }
      : { kind: 'clip', config: model, preprocess: CLIP_PREPROCESS, tokenizer: 'clip' };
  }
  const own = weightsFile === COVEY_WEIGHTS ? await readText(files, COVEY_CONFIG) : undefined;
  if (own !== undefined) return readCoveyConfig(own, `${files.url}/${COVEY_CONFIG}`);
  const name = isHf ? HF_CONFIG : OPEN_CLIP_CONFIG;
  const text = await readText(files, name);
  if (text !== undefined) {
    const file = `${files.url}/${name}`;
    return isHf ? readHfConfig(text, file, await readText(files, HF_PREPROCESSOR)) : readOpenClipConfig(text, file);
  }
  const known = quickGelu ?? (fromOpenAi ? true : undefined);
  if (isHf || known === undefined) {
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot load the model: ${files.url} has no ${name}, and the weights do not show all of it; put the config beside them${isHf ? '' : ', or name the model or its activation (--model, --quick-gelu)'}`,
      { fields: { url: files.url, name } },
    );
  }
  return inferDescription(tensors, known);
}

function withImageSize(description: ModelDescription, imageSize: number | undefined): ModelDescription {
  if (imageSize === undefined) return description;
  if (description.kind === 'backbone') {
    return { ...description, vision: checkedVision({ ...description.vision, imageSize }) };
  }
  const { config } = description;
  return { ...description, config: resolveModelConfig({ ...config, vision: { ...config.vision, imageSize } }) };
}

function resized(tensors: ReadonlyMap<string, HostTensor>, grid: PositionGrid): ReadonlyMap<string, HostTensor> {
  const positions = tensors.get(grid.name);
  return positions ? new Map(tensors).set(grid.name, resizePositions(positions, grid)) : tensors;
}

/** The tokenizer that was given, the one beside the weights, or CLIP's own. */
async function readTokenizer(
  files: ModelFiles,
  { config, tokenizer }: ModelDescription & { readonly kind: 'clip' },
  { tokenizerJson }: LoadOptions,
): Promise<Tokenizer> {
  const { contextLength, vocabSize } = config.text;
  const beside = tokenizer === 'beside' || vocabSize !== clipVocabularySize;
  const json = tokenizerJson ?? (beside ? await readText(files, 'tokenizer.json') : undefined);
  const isClips = vocabSize === clipVocabularySize;
  if (json === undefined && isClips) return loadTokenizer('clip', contextLength);
  if (json === undefined) {
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot load the model: ${files.url} has no tokenizer.json, and its ${vocabSize} tokens are not CLIP's; put it there, or name it with --tokenizer`,
      { fields: { url: files.url, vocabSize } },
    );
  }
  const loaded = await loadTokenizer(json, contextLength);
  if (loaded.vocabSize > vocabSize) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot load the model: its tokenizer has ${loaded.vocabSize} tokens, its embedding ${vocabSize}`,
      { fields: { tokens: loaded.vocabSize, vocabSize } },
    );
  }
  // CLIP's own under another name stays CLIP's, so that what is exported need not carry it.
  if (isClips && tokenizerJson === undefined) {
    const own = await loadTokenizer('clip', contextLength);
    if (own.files()['merges.txt'] === loaded.files()['merges.txt']) return own;
  }
  return loaded;
}
