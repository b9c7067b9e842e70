import type { Tensor } from '../tf.ts';

/**
 * What an engine does for optimisers: one pass over memory per rule, in place, g = gradientScale · gradient read once. The optimisers beside this
 * file compute the constants; `native/optimizer.cc`, `host-rules.ts` and `tensor-rules.ts` are the same rules on three kinds of storage.
 */
export interface UpdateTarget {
  readonly parameters: readonly Tensor[];
  /** The optimiser's tensors: per slot one of each parameter's shape, in parameter order. */
  readonly slots: readonly (readonly Tensor[])[];
  /** Gradient sums, flat; parameter i's begin at `offsets[i]`. On a GPU also one tensor a parameter, which then need not pass through the host. */
  readonly gradient: Float32Array | readonly Tensor[];
  readonly offsets: readonly number[];
  /** 1/globalBatch × clip factor. */
  readonly gradientScale: number;
}

/** Per parameter: learning rate (with its own scale) and weight decay λ. */
interface PerParameter {
  readonly rates: readonly number[];
  readonly weightDecays: readonly number[];
}

/** m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p·(1 − rate·λ) − rate·m̂/(√v̂ + ε). Slots m, v. */
export interface AdamWRule extends PerParameter {
  readonly kind: 'adamW';
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** 1 for the first update (bias correction). */
  readonly step: number;
}

/** d = trust·(g + λp); m ← μm + d; p ← p − rate·(m, or with Nesterov d + μm). Slot m. */
export interface MomentumRule extends PerParameter {
  readonly kind: 'momentum';
  readonly momentum: number;
  readonly nesterov: boolean;
  readonly trusts: readonly number[];
}

/** c = β₁m + (1−β₁)g; p ← p·(1 − rate·λ) − rate·sign(c); m ← β₂m + (1−β₂)g. Slot m. */
export interface LionRule extends PerParameter {
  readonly kind: 'lion';
  readonly beta1: number;
  readonly beta2: number;
}

/** Constants of u = r + λp with r = m̂/(√v̂ + ε). Slots m, v. */
export interface LambMoments {
  readonly weightDecays: readonly number[];
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly step: number;
  /** false: m and v as they are, as in some published code. */
  readonly biasCorrection: boolean;
}

/** p ← p − rate·u, from moments that `lambMoments` has advanced. */
export interface LambRule extends LambMoments {
  readonly kind: 'lamb';
  readonly rates: readonly number[];
}

export type UpdateRule = AdamWRule | MomentumRule | LionRule | LambRule;

/** Euclidean norms, per parameter, summed in fp64. */
export interface GradientNorms {
  readonly parameter: number;
  readonly gradient: number;
  /** ‖g + λp‖ */
  readonly decayed: number;
}

export interface LambNorms {
  readonly parameter: number;
  /** ‖u‖ */
  readonly update: number;
}

/** The corrections of Adam's moments at an update: m̂ = m·first, √v̂ = √v·second. */
export function biasCorrections({ beta1, beta2, step, biasCorrection }: Omit<LambMoments, 'eps' | 'weightDecays'>): {
  readonly first: number;
  readonly second: number;
} {
  if (!biasCorrection) return { first: 1, second: 1 };
  return { first: 1 / (1 - beta1 ** step), second: 1 / Math.sqrt(1 - beta2 ** step) };
}
