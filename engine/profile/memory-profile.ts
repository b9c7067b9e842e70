import type { Phase, ProfileRecord } from './record.ts';

/** Memory over one step. */
export interface MemoryProfile {
  /** See `ProfileRecord.memoryIsExact`. */
  readonly isExact: boolean;
  readonly startBytes: number;
  readonly endBytes: number;
  readonly peakBytes: number;
  /** Where the peak was. */
  readonly peakModule: string;
  readonly peakPhase: Phase;
  /** At each boundary of a module, times from the start of the step. */
  readonly samples: readonly {
    readonly ms: number;
    readonly bytes: number;
    /** Largest value since the sample before. */
    readonly peakBytes: number;
    /** What ran until this sample. */
    readonly module: string;
    readonly phase: Phase;
  }[];
}

/** Of the last step: the one farthest from the warming up. */
export function memoryProfile({ scopes, memory, memoryIsExact }: ProfileRecord): MemoryProfile {
  const step = scopes.findLast((scope) => scope.step !== undefined);
  const { startedNs = 0, endedNs = 0, bytesBefore = 0, bytesAfter = 0 } = step ?? {};
  // The sample before the step's start closes the time before it; the one after its end closes the step.
  const within = memory.filter((_, i) => memory[i]!.timeNs > startedNs && (memory[i - 1]?.timeNs ?? 0) < endedNs);
  const samples = within.map(({ timeNs, bytes, peakBytes, module, phase }) => ({
    ms: Math.min(timeNs, endedNs) / 1e6 - startedNs / 1e6,
    bytes,
    peakBytes,
    module: module.toString(),
    phase,
  }));
  const peak = samples.reduce<(typeof samples)[number] | undefined>(
    (highest, sample) => (highest === undefined || sample.peakBytes > highest.peakBytes ? sample : highest),
    undefined,
  );
  return {
    isExact: memoryIsExact,
    startBytes: bytesBefore,
    endBytes: bytesAfter,
    peakBytes: peak?.peakBytes ?? bytesBefore,
    peakModule: peak?.module ?? '',
    peakPhase: peak?.phase ?? 'other',
    samples,
  };
}
