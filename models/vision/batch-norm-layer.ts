import { batchNorm, type Tensor, type Tensor1D, type Variable } from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';

export interface BatchNormLayerOptions {
  /** Applied to the result, after the residual. */
  readonly activation?: 'relu';
  /** Added to the normalised values, one for each tensor. */
  readonly residuals?: readonly Tensor[];
}

/**
 * A batch normalisation by its key (`visual.bn1`), over a list of tensors: one tensor per lane that is computed at the same time. Where lanes
 * are normalised by themselves the list has one.
 */
export type BatchNormLayer = <T extends Tensor>(xs: readonly T[], name: string, options?: BatchNormLayerOptions) => T[];

/** Where a forward in training leaves the statistics that it met, and what share they have there. */
export interface StatisticsSink {
  readonly mean: Variable;
  readonly variance: Variable;
  readonly momentum: number;
}

/**
 * Each tensor by its own statistics in training, by the running ones of `parameter` otherwise.
 * @param sink where training leaves what it met; undefined: evaluation
 */
export function batchNormLayer(parameter: ParameterLookup, sink?: (name: string) => StatisticsSink): BatchNormLayer {
  return (xs, name, { activation, residuals } = {}) =>
    xs.map((x, index) => {
      const into = sink?.(name);
      const state = {
        weight: parameter<Tensor1D>(`${name}.weight`),
        bias: parameter<Tensor1D>(`${name}.bias`),
        runningMean: into?.mean ?? parameter<Variable>(`${name}.running_mean`),
        runningVariance: into?.variance ?? parameter<Variable>(`${name}.running_var`),
      };
      const residual = residuals?.[index];
      return batchNorm(x, state, {
        training: into !== undefined,
        ...(into ? { momentum: into.momentum } : {}),
        ...(activation ? { activation } : {}),
        ...(residual ? { residual } : {}),
      });
    });
}
