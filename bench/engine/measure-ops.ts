import { OP_SPECS } from './op-specs.ts';
import type { OpAnswer, OpSpec, Precision, Timings } from './protocol.ts';
import { type EngineRow, engineRow, sideResult } from './rows.ts';
import { closeAll, type Peer, type Side, startSides } from './sides.ts';

/** How long one side is kept at one op before the next takes its turn. */
const TURN_MS = 100;
const REPETITIONS_MAX = 50;

export interface OpPlan {
  readonly precision: Precision;
  readonly threads: number;
  readonly rounds: number;
  readonly wanted: (label: string) => boolean;
}

/** Each op at ViT-B/32 shapes against PyTorch's: forward and backward apart. */
export async function measureOps(plan: OpPlan, peers: readonly Peer[]): Promise<EngineRow[]> {
  const { precision, threads, rounds } = plan;
  const specs = OP_SPECS.filter(
    (spec) => plan.wanted(`ops/${spec.name}`) && !(spec.op === 'adamW' && precision === 'bf16'),
  );
  if (specs.length === 0) return [];
  const rows: EngineRow[] = [];
  const sides = await startSides({ threads, precision, step: null }, peers);
  try {
    for (const spec of specs) {
      const bySide = await takeTurns(sides, spec, rounds);
      for (const phase of bySide[0]!.keys()) {
        const results = sides.map((side, i) => sideResult(side, bySide[i]!.get(phase)!));
        rows.push(engineRow({ case: `${spec.name}, ${phase}`, precision, threads }, results));
      }
    }
  } finally {
    await closeAll(sides);
  }
  return rows;
}

/** The phases' timings of each side. Who is first changes from round to round. */
async function takeTurns(sides: readonly Side[], spec: OpSpec, rounds: number): Promise<Map<string, Timings>[]> {
  let count = 1;
  for (const side of sides) {
    await side.ask<OpAnswer>({ do: 'op', spec, count: 1 });
    const warm = await side.ask<OpAnswer>({ do: 'op', spec, count: 2 });
    const onceMs = Object.values(warm).reduce((sum, { wallMs }) => sum + Math.min(...wallMs), 0);
    count = Math.max(count, Math.min(REPETITIONS_MAX, Math.round(TURN_MS / onceMs)));
  }
  const collected = sides.map(() => new Map<string, { wallMs: number[]; cpuMs: number[] }>());
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < sides.length; turn++) {
      const i = (round + turn) % sides.length;
      const answer = await sides[i]!.ask<OpAnswer>({ do: 'op', spec, count });
      for (const [phase, timings] of Object.entries(answer)) {
        const all = collected[i]!.get(phase) ?? { wallMs: [], cpuMs: [] };
        all.wallMs.push(...timings.wallMs);
        all.cpuMs.push(...timings.cpuMs);
        collected[i]!.set(phase, all);
      }
    }
  }
  return collected;
}
