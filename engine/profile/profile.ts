import { CoveyError } from '../../common/errors.ts';
import { torchBackend } from '../backend/torch-backend.ts';
import type { Engine } from '../engine.ts';
import type { Addon } from '../native/load.ts';
import { getBackend } from '../tf.ts';
import { recordTfjsKernels } from './js-kernels.ts';
import { activeRecorder, setActiveRecorder } from './module-scope.ts';
import { nativeEvents } from './native-events.ts';
import type { ProfileRecord } from './record.ts';
import { Recorder } from './recorder.ts';

export interface ProfileOptions {
  /** Also record the ATen operators inside covey's own kernels (engine `torch`). Costs about a microsecond each. Default false. */
  readonly innerOperators?: boolean;
}

/** A running profile. Ends with `stop`; until then every kernel of this thread is recorded. */
export interface RunningProfile {
  /** Runs one step as such; what is outside steps is recorded but not counted. */
  step<T>(number: number, f: () => T): T;
  /** Ends the profile and hands over what it recorded. Once. */
  stop(): ProfileRecord;
}

/**
 * Starts recording kernels, modules and memory in this thread.
 * @throws CoveyError INVALID_ARGUMENT where a profile is running
 */
export function startProfile(engine: Engine, options: ProfileOptions = {}): RunningProfile {
  if (activeRecorder() !== undefined)
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot start a profile: one is running in this thread; stop it first');
  return engine.name === 'torch'
    ? profileAddon(torchBackend().addon, options.innerOperators ?? false)
    : profileTfjs(engine);
}

function profileAddon(addon: Addon, inner: boolean): RunningProfile {
  addon.profileStart(inner);
  const out = new Float64Array(3);
  const recorder = new Recorder(() => {
    addon.profileMark(out);
    return { timeNs: out[0]!, bytes: out[1]!, peakBytes: out[2]! };
  });
  setActiveRecorder(recorder);
  return running(recorder, () => {
    const native = addon.profileStop();
    return { kernels: [...nativeEvents(native), ...recorder.kernels], memoryIsExact: true, dropped: native.dropped };
  });
}

function profileTfjs(engine: Engine): RunningProfile {
  const began = performance.now();
  const recorder = new Recorder(() => ({
    timeNs: (performance.now() - began) * 1e6,
    bytes: engine.memory().bytes,
    peakBytes: undefined,
  }));
  const restore = recordTfjsKernels(getBackend(), recorder);
  setActiveRecorder(recorder);
  return running(recorder, () => {
    restore();
    return { kernels: recorder.kernels, memoryIsExact: false, dropped: 0 };
  });
}

function running(
  recorder: Recorder,
  finish: () => Pick<ProfileRecord, 'kernels' | 'memoryIsExact' | 'dropped'>,
): RunningProfile {
  return {
    step: (number, f) => recorder.step(number, f),
    stop: () => {
      if (activeRecorder() !== recorder)
        throw new CoveyError('INVALID_ARGUMENT', 'Cannot stop the profile: it was stopped before');
      setActiveRecorder(undefined);
      return { ...finish(), scopes: recorder.scopes, memory: recorder.memory };
    },
  };
}
