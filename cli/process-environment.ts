import { availableParallelism } from 'node:os';

/**
 * Settings that libraries read when a process starts and that can therefore not be options: used by the launcher scripts and for
 * every process covey starts. What the person has set stays.
 *
 * - UV_THREADPOOL_SIZE: sharp decodes on libuv's pool; its default of 4 would be shared by decoding, files and DNS.
 * - MALLOC_ARENA_MAX: glibc keeps up to 8 arenas per core; with many threads the freed memory of each is never given back.
 * - OMP_WAIT_POLICY, GOMP_SPINCOUNT: an idle OpenMP thread that spins takes the core from the other worker on the machine.
 */
export function processEnvironment(base: Readonly<NodeJS.ProcessEnv>): NodeJS.ProcessEnv {
  return { ...recommendedSettings(), ...base };
}

/** The recommended value of each setting on this machine. */
export function recommendedSettings(): Readonly<Record<string, string>> {
  return {
    UV_THREADPOOL_SIZE: String(Math.max(4, Math.min(64, availableParallelism() + 4))),
    MALLOC_ARENA_MAX: '4',
    OMP_WAIT_POLICY: 'PASSIVE',
    GOMP_SPINCOUNT: '0',
  };
}
