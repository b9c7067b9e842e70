import type { EvaluationAnswer, EvaluationPart, LaneSlot } from '../train/compute-protocol.ts';
import type { SimilarityHistogram } from './embedding-health.ts';
import type { HeldOutData } from './held-out-data.ts';

/** What held-out data say of the weights after `step` updates: the same on every worker, but for the seconds. */
export interface Evaluation {
  readonly step: number;
  /** `<dataset>/<metric>` → value. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly similarities: readonly SimilarityHistogram[];
  readonly weightsDigest: string;
  readonly seconds: number;
}

/** A held-out dataset and where its global batches come from, if a task wants them. */
export interface EvaluatedDataset {
  readonly data: HeldOutData;
  readonly loss: LossBatches | undefined;
}

export interface LossBatches {
  readonly count: number;
  load(batch: number, lanes: readonly number[], signal: AbortSignal): Promise<readonly LaneSlot[]>;
}

export interface EvaluationOptions {
  readonly step: number;
  /** Held lanes, [begin, end). */
  readonly lanes: { readonly begin: number; readonly end: number };
}

/**
 * Evaluates every dataset, this worker's lanes of it: a round is loaded while the one before is computed. Rejects with what loading or
 * computing threw; nothing is left behind then, and the same evaluation can be made again.
 */
export async function evaluate(
  { step, lanes }: EvaluationOptions,
  datasets: readonly EvaluatedDataset[],
  send: (part: EvaluationPart) => Promise<EvaluationAnswer>,
  signal: AbortSignal,
): Promise<Evaluation> {
  const began = performance.now();
  const held = Array.from({ length: lanes.end - lanes.begin }, (_, i) => lanes.begin + i);
  const metrics: Record<string, number> = {};
  const similarities: SimilarityHistogram[] = [];
  let weightsDigest = '';
  for (const [index, { data, loss }] of datasets.entries()) {
    const { facts } = data;
    await send({ do: 'begin', facts, isFirst: index === 0 });
    for (const part of ['test', 'fit'] as const) {
      const load = (round: number) => data.pictures(part, round, held, signal);
      await inTurn(data.rounds(part), load, (blocks) => send({ do: 'pictures', part, blocks }));
    }
    const texts = async (round: number) => data.classTexts(round, held);
    await inTurn(data.rounds('classes'), texts, (blocks) => send({ do: 'classTexts', blocks }));
    const batches = (batch: number) => loss!.load(batch, held, signal);
    await inTurn(loss?.count ?? 0, batches, (slots) => send({ do: 'lossBatch', lanes: slots }));
    const answer = await send({ do: 'figures', lanes });
    for (const [name, value] of Object.entries(answer?.metrics ?? {})) metrics[`${facts.name}/${name}`] = value;
    similarities.push(...(answer?.similarities ?? []).map((one) => ({ ...one, name: `${facts.name}/${one.name}` })));
    weightsDigest = answer?.weightsDigest ?? '';
  }
  return { step, metrics, similarities, weightsDigest, seconds: (performance.now() - began) / 1000 };
}

/** Rounds one behind another, the next one loading while the current one is used. */
async function inTurn<T>(rounds: number, load: (round: number) => Promise<T>, use: (loaded: T) => Promise<unknown>) {
  let next = rounds > 0 ? load(0) : undefined;
  for (let round = 0; round < rounds; round++) {
    const loaded = await next!;
    next = round + 1 < rounds ? load(round + 1) : undefined;
    // Awaited in the next turn, unless this round fails.
    next?.catch(() => undefined);
    await use(loaded);
  }
}
