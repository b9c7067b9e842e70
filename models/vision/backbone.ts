import type { VisionConfig } from '../../common/config/vision-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Precision, Tensor, Tensor2D, Tensor4D } from '../../engine/index.ts';
import type { BlockInsert, ParameterLookup } from '../clip/transformer.ts';
import type { ParameterSpec } from '../parameter-spec.ts';
import type { BatchNormLayer } from './batch-norm-layer.ts';
import { modifiedResnetBackbone } from './modified-resnet.ts';
import type { PatchDropout } from './patch-dropout.ts';
import { resnetBackbone } from './resnet-backbone.ts';
import { vitBackbone } from './vit-backbone.ts';

/** What a tower's forward works with. */
export interface TowerContext {
  /** Parameters and buffers by key. */
  readonly parameter: ParameterLookup;
  /** Of activations between the tower's ends; weights and features are float32 always. */
  readonly precision: Precision;
  /** Transformers only. */
  readonly quickGelu: boolean;
  /** Transformers only: see transformer.ts. */
  readonly recomputedBlocks: number;
  /** Transformers only: see transformer.ts. */
  readonly insert?: BlockInsert | undefined;
  /** Transformers only; training only. */
  readonly patchDropout?: PatchDropout | undefined;
  /** ResNets only: how batch norms normalise in this forward. */
  readonly normalise: BatchNormLayer;
}

/** A tower of several lanes. */
export interface TowersContext extends Omit<TowerContext, 'parameter'> {
  readonly lookups: readonly ParameterLookup[];
}

/** What one picture costs, to within a factor of two. */
export interface BackboneCost {
  /** Floating-point operations of the matrix products, a multiply and an add counted as two. Nobody needs the gradient of the pixels. */
  readonly forwardFlops: number;
  readonly backwardFlops: number;
  /** fp32 activations that wait for the backward, in plain (unfused) ops. */
  readonly activationFloats: number;
}

/**
 * An image tower: pixels to one feature per picture, under keys `visual.*`. Shapes and costs without allocating anything; parameters belong to
 * the model around it (CLIP, SimCLR, a classifier), which also says in what order they are trained.
 */
export interface Backbone {
  readonly imageSize: number;
  /** Floats of a feature: what transfer starts from. */
  readonly featureWidth: number;
  /** Places of a picture that the last batch norms see; undefined where there are none. */
  readonly batchNormPlaces: number | undefined;
  /** In the one stable order; with `embedDim` also the projection to a space shared with texts, which transfer drops. */
  parameterSpecs(embedDim?: number): ParameterSpec[];
  /** What no gradient changes: running statistics, fixed positions. */
  bufferSpecs(): ParameterSpec[];
  /** float32 [B, featureWidth]. @param x_BHWC normalised pixels of the tower's size */
  features(x_BHWC: Tensor4D, tower: TowerContext): Tensor2D;
  /** The same of lanes side by side, which meet in `normalise`: one tensor and one lookup per lane. */
  featuresTogether(xs: readonly Tensor4D[], tower: TowersContext): Tensor2D[];
  /** Features in the shared space, not normalised: float32 [B, embedDim]. */
  project(features_BF: Tensor2D, parameter: ParameterLookup): Tensor2D;
  /** @param patchDropout share of the patches that a forward in training does not see */
  cost(patchDropout?: number): BackboneCost;
}

/** The tower that a config describes; what does not fit was refused by `resolveModelConfig`. */
export function newBackbone(vision: VisionConfig): Backbone {
  switch (vision.kind) {
    case 'resnet':
      return resnetBackbone(vision);
    case 'modified-resnet':
      return modifiedResnetBackbone(vision);
    default:
      return vitBackbone(vision);
  }
}

/** All that a feature is computed from: parameters, then buffers. */
export function backboneSpecs(vision: VisionConfig): ParameterSpec[] {
  const backbone = newBackbone(vision);
  return [...backbone.parameterSpecs(), ...backbone.bufferSpecs()];
}

/** The pixels, where they are in the tower's shape. @throws CoveyError INVALID_ARGUMENT */
export function checkedPixels(x_BHWC: Tensor, { imageSize }: Pick<VisionConfig, 'imageSize'>): Tensor4D {
  const [, height, width, channels] = x_BHWC.shape;
  if (x_BHWC.rank !== 4 || height !== imageSize || width !== imageSize || channels !== 3) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot encode images: the model takes [batch, ${imageSize}, ${imageSize}, 3]: got [${x_BHWC.shape}]`,
      { fields: { shape: x_BHWC.shape } },
    );
  }
  return x_BHWC as Tensor4D;
}
