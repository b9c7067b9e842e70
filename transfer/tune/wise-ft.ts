import type { HostTensor } from '../../models/formats/safetensors.ts';
import type { LabelledSample } from '../data/labelled-set.ts';
import { type EvaluateModules, type Evaluation, evaluateNetwork } from './evaluate.ts';

export interface WisePoint {
  /** 0: before fine-tuning, 1: after. */
  readonly alpha: number;
  readonly evaluation: Evaluation;
}

/** Eleven points from one end to the other. */
export const WISE_ALPHAS: readonly number[] = Array.from({ length: 11 }, (_, i) => i / 10);

/** (1 − α)·from + α·to, tensor by tensor (Wortsman et al. 2022, eq. 1); at the ends the tensors themselves. */
export function interpolated(
  from: ReadonlyMap<string, HostTensor>,
  to: ReadonlyMap<string, HostTensor>,
  alpha: number,
): ReadonlyMap<string, HostTensor> {
  if (alpha === 0) return from;
  if (alpha === 1) return to;
  return new Map(
    [...to].map(([name, { shape, values }]) => {
      const start = from.get(name)!.values;
      return [name, { shape, values: values.map((value, i) => (1 - alpha) * start[i]! + alpha * value) }];
    }),
  );
}

/**
 * WiSE-FT's curve: how the weights between those before and after fine-tuning do on some pictures. The head must mean the same at both ends: from
 * zero-shot texts or a linear probe. Leaves the network with the weights of `to`.
 */
export async function wiseCurve(
  ends: { readonly from: ReadonlyMap<string, HostTensor>; readonly to: ReadonlyMap<string, HostTensor> },
  samples: readonly LabelledSample[],
  classes: number,
  modules: EvaluateModules,
): Promise<WisePoint[]> {
  const points: WisePoint[] = [];
  try {
    for (const alpha of WISE_ALPHAS) {
      modules.network.write(interpolated(ends.from, ends.to, alpha));
      points.push({ alpha, evaluation: await evaluateNetwork(samples, classes, modules) });
    }
  } finally {
    modules.network.write(ends.to);
  }
  return points;
}
