import type { ModulePath } from './module-path.ts';
import type { Recorder } from './recorder.ts';

/** The running profile of this thread, if there is one. Everything here is one comparison when there is none. */
let recorder: Recorder | undefined;

export function activeRecorder(): Recorder | undefined {
  return recorder;
}

/** Makes a recorder the running one, or none. Returns the former. */
export function setActiveRecorder(next: Recorder | undefined): Recorder | undefined {
  const former = recorder;
  recorder = next;
  return former;
}

/**
 * Runs `f` as a part called `name` of the module it is called in. A running profile gives it the time, the memory, and the backward
 * of every op recorded inside.
 */
export function moduleScope<T>(name: string, f: () => T): T {
  return recorder === undefined ? f() : recorder.within(recorder.module.child(name), f);
}

/** As `moduleScope`, but a module of its own wherever it is called, e.g. the copying out of gradients in the midst of a backward. */
export function rootScope<T>(name: string, f: () => T): T {
  return recorder === undefined ? f() : recorder.apart(name, f);
}

/** Runs a forward that is being recorded for backward. */
export function recordedScope<T>(f: () => T): T {
  return recorder === undefined ? f() : recorder.recording(f);
}

/** Follows a sweep through the modules of its nodes; undefined without a profile. The caller closes it. */
export function backwardScopes(): { to(module: ModulePath | undefined): void; close(): void } | undefined {
  return recorder?.sweep();
}
