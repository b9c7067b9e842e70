import { type NativeProfile, SCALAR_TYPES } from '../native/load.ts';
import type { KernelEvent, TensorShape } from './record.ts';

const TYPE_NAMES = new Map<number, string>(Object.entries(SCALAR_TYPES).map(([name, number]) => [number, name]));

/** As in native/profile.h. */
const INPUT = 0;
const OUTPUT = 1;
const ALIAS_OUTPUT = 2;
const FLAG = 3;
const HOST_ARRAY = 4;
const HEADER_WORDS = 4;

/** Calls that only ask about a tensor: they would fill the table and say nothing. */
const QUERIES = new Set(['scalarType', 'shape', 'live', 'memoryStats', 'resetPeakMemory', 'describe']);

/** The addon's record as events. */
export function nativeEvents(profile: NativeProfile): KernelEvent[] {
  const events: KernelEvent[] = [];
  for (let i = 0; i < profile.name.length; i++) {
    const name = profile.names[profile.name[i]!]!;
    if (QUERIES.has(name)) continue;
    const details = profile.details.subarray(i === 0 ? 0 : profile.detailsEnd[i - 1]!, profile.detailsEnd[i]!);
    events.push({ name, startedNs: profile.started[i]!, endedNs: profile.ended[i]!, ...argumentsOf(details) });
  }
  return events;
}

function argumentsOf(details: Float64Array): Omit<KernelEvent, 'name' | 'startedNs' | 'endedNs'> {
  const inputs: TensorShape[] = [];
  const outputs: TensorShape[] = [];
  const aliases: TensorShape[] = [];
  const flags: boolean[] = [];
  let hostBytes = 0;
  for (let at = 0; at < details.length; ) {
    const [kind, typeOrIndex, bytesOrFlag, rank] = details.subarray(at, at + HEADER_WORDS) as unknown as [
      number,
      number,
      number,
      number,
    ];
    const shape = [...details.subarray(at + HEADER_WORDS, at + HEADER_WORDS + rank)];
    at += HEADER_WORDS + rank;
    if (kind === FLAG) flags.push(bytesOrFlag !== 0);
    else if (kind === HOST_ARRAY) hostBytes += bytesOrFlag * shape[0]!;
    else {
      const type = TYPE_NAMES.get(typeOrIndex) ?? `type ${typeOrIndex}`;
      const list = { [INPUT]: inputs, [OUTPUT]: outputs, [ALIAS_OUTPUT]: aliases }[kind];
      list?.push({ type, elementBytes: bytesOrFlag, shape });
    }
  }
  return { inputs, outputs, aliases, flags, hostBytes };
}
