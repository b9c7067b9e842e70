import { pickedRows } from '../../common/picked-rows.ts';
import type { Objective, OutputSpec } from '../objectives/objective.ts';
import { type EmbeddingHealth, type EmbeddingSet, embeddingHealth } from './embedding-health.ts';

/** Samples that are looked at, spread over the global batch: more change the numbers little and cost their square. */
const SAMPLES_MAX = 256;

export interface GatheredRows {
  readonly globalBatch: number;
  readonly laneBatch: number;
  /** All lanes' rows of the k-th gathered output, in lane order. */
  readonly rows: (kind: number) => Float32Array;
}

/**
 * Health of what a step gathered. Two rows per sample are two views of it and so are partners; an output that names a `partner` among
 * the others is paired with that one.
 */
export function gatheredHealth(objective: Objective, gathered: GatheredRows): EmbeddingHealth {
  const specs = objective.outputs.filter((output) => output.gathered);
  const sets = specs.flatMap((spec, kind): EmbeddingSet[] => {
    // One float per row is a number, not an embedding.
    if (spec.width < 2) return [];
    const { name, width } = spec;
    const rows_ND = sampled(gathered, spec, kind, 0);
    if (spec.perSample === 2) return [{ name, width, rows_ND, partners_ND: sampled(gathered, spec, kind, 1) }];
    const partner = specs.findIndex((other) => other.name === spec.partner);
    if (partner < 0) return [{ name, width, rows_ND }];
    return [{ name, width, rows_ND, partners_ND: sampled(gathered, specs[partner]!, partner, 0) }];
  });
  return embeddingHealth(sets);
}

/** One row of each looked-at sample: its `view`-th. A lane's block holds the first views of its samples, then the second. */
function sampled({ globalBatch, laneBatch, rows }: GatheredRows, spec: OutputSpec, kind: number, view: number) {
  const all = rows(kind);
  const count = Math.min(globalBatch, SAMPLES_MAX);
  const { width, perSample } = spec;
  const places = Array.from({ length: count }, (_, i) => {
    const sample = Math.floor((i * globalBatch) / count);
    const lane = Math.floor(sample / laneBatch);
    return (lane * perSample + view) * laneBatch + (sample % laneBatch);
  });
  return pickedRows(all, width, places);
}
