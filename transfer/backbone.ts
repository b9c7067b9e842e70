import { createHash } from 'node:crypto';
import type { RunConfig } from '../common/config/run-config.ts';
import type { VisionConfig } from '../common/config/vision-config.ts';
import { CoveyError } from '../common/errors.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import { initialValues } from '../models/clip/initial-values.ts';
import { checkedVision } from '../models/formats/model-description.ts';
import { resizePositions } from '../models/formats/position-resize.ts';
import { type Pretrained, shapesOf, backboneOf as towerOf } from '../models/formats/pretrained.ts';
import type { HostTensor } from '../models/formats/safetensors.ts';
import { shapedWeights } from '../models/formats/weights.ts';
import { resolveModelConfig } from '../models/model-config.ts';
import { elementCount } from '../models/parameter-spec.ts';
import { backboneSpecs, newBackbone } from '../models/vision/backbone.ts';
import { positionGrid } from '../models/vision/position-grid.ts';
import type { CheckpointManifest, WeightKind } from '../worker/checkpoint/checkpoint-format.ts';
import { readBuffers, readWeights } from '../worker/checkpoint/read-checkpoint.ts';

/** An image tower with its weights: what transfer starts from. Holds no tensors of an engine. */
export interface Backbone {
  readonly vision: VisionConfig;
  readonly quickGelu: boolean;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
  /** By open_clip's keys (`visual.…`), without the projection to a space shared with texts. */
  readonly weights: ReadonlyMap<string, HostTensor>;
  /** Where the backbone was trained with texts: the way to the space it shares with them. */
  readonly projection?: Projection | undefined;
  /** Where it is from, in words for reports: run, step, objective. */
  readonly origin: string;
  /** 16 hex digits over names, shapes and bits: an adapter fits one backbone alone. */
  readonly digest: string;
}

/** `visual.proj`, or of CLIP's ResNet `visual.attnpool.c_proj.*`. */
export interface Projection {
  /** Width of the shared space. */
  readonly embedDim: number;
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

export interface CheckpointSource {
  readonly config: RunConfig;
  readonly store: ObjectStore;
  readonly manifest: CheckpointManifest;
  readonly weights: WeightKind;
}

/** The image tower of a checkpoint, whatever the objective that trained it; heads and text towers are left behind. */
export async function checkpointBackbone(source: CheckpointSource, signal?: AbortSignal): Promise<Backbone> {
  const { config, store, manifest } = source;
  const { vision, quickGelu } = resolveModelConfig(config.model);
  const stored = await readWeights(store, manifest, source.weights, signal);
  const origin = `run ${manifest.run}, step ${manifest.step}, objective ${config.objective}`;
  const all = new Map([...(await readBuffers(store, manifest, signal)), ...stored]);
  return backboneOf(all, { vision, quickGelu, mean: config.data.mean, std: config.data.std, origin });
}

/**
 * A backbone of the tensors that belong to one; others are ignored.
 * @throws CoveyError INVALID_ARGUMENT naming each that is missing or of another shape
 */
export function backboneOf(
  tensors: ReadonlyMap<string, HostTensor>,
  facts: Omit<Backbone, 'weights' | 'projection' | 'digest'>,
): Backbone {
  const weights = new Map<string, HostTensor>();
  const problems: string[] = [];
  for (const { name, shape } of backboneSpecs(facts.vision)) {
    const found = tensors.get(name);
    if (found === undefined) problems.push(`${name} is missing`);
    else if (found.values.length !== elementCount(shape)) {
      problems.push(`${name} is [${found.shape}], not [${shape}]`);
    } else weights.set(name, { shape, values: found.values });
  }
  if (problems.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot take the backbone of ${facts.origin}: it is not the image tower that its config describes: ${problems.join('; ')}`,
      { fields: { problems } },
    );
  }
  const projection = projectionAmong(tensors, facts.vision);
  return { ...facts, weights, digest: digestOf(weights), ...(projection === undefined ? {} : { projection }) };
}

/** Keys of the projection, in the order of parameters. */
function projectionNames(vision: VisionConfig): string[] {
  const tower = newBackbone(vision);
  const own = new Set(tower.parameterSpecs().map(({ name }) => name));
  return tower
    .parameterSpecs(1)
    .map(({ name }) => name)
    .filter((name) => !own.has(name));
}

function projectionAmong(tensors: ReadonlyMap<string, HostTensor>, vision: VisionConfig): Projection | undefined {
  const found = projectionNames(vision).map((name) => [name, tensors.get(name)] as const);
  const present = found.flatMap(([name, tensor]) => (tensor === undefined ? [] : [[name, tensor] as const]));
  const matrix = present[0]?.[1];
  if (matrix === undefined || present.length < found.length) return undefined;
  return { embedDim: matrix.values.length / newBackbone(vision).featureWidth, tensors: new Map(present) };
}

/** The image tower of a model that was loaded from files. */
export function pretrainedBackbone(model: Pretrained, origin: string): Backbone {
  const { vision, quickGelu, preprocess } = towerOf(model);
  return backboneOf(shapedWeights(shapesOf(model), model.weights), {
    vision,
    quickGelu,
    mean: preprocess.mean,
    std: preprocess.std,
    origin,
  });
}

/**
 * The same for pictures of another side: positions are resized as open_clip does; a plain ResNet has none.
 * @throws CoveyError CONFIG_INVALID where the tower cannot have that size
 */
export function atImageSize(backbone: Backbone, imageSize: number): Backbone {
  if (imageSize === backbone.vision.imageSize) return backbone;
  const vision = checkedVision({ ...backbone.vision, imageSize });
  const weights = new Map(backbone.weights);
  const grid = positionGrid(vision);
  if (grid !== undefined) weights.set(grid.name, resizePositions(weights.get(grid.name)!, grid));
  for (const [name, tensor] of backbone.projection?.tensors ?? []) weights.set(name, tensor);
  const origin = `${backbone.origin}, for pictures of ${imageSize} pixels`;
  return backboneOf(weights, { ...backbone, vision, origin });
}

/** A tower of the same shape with random weights: what pretraining is compared with. */
export function scratchBackbone({ projection: _trained, ...like }: Backbone, seed: number): Backbone {
  const tensors = new Map(
    backboneSpecs(like.vision).map((spec) => [spec.name, { shape: spec.shape, values: initialValues(spec, seed) }]),
  );
  return backboneOf(tensors, { ...like, origin: `random weights, seed ${seed}` });
}

/** A backbone with weights that were trained or merged: the same tower, another identity. */
export function withWeights(backbone: Backbone, weights: ReadonlyMap<string, HostTensor>, origin: string): Backbone {
  return backboneOf(weights, { ...backbone, origin });
}

function digestOf(weights: ReadonlyMap<string, HostTensor>): string {
  const hash = createHash('sha256');
  for (const [name, { shape, values }] of weights) {
    hash.update(`${name} ${shape.join(',')};`);
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return hash.digest('hex').slice(0, 16);
}
