/** What a label becomes when its value is not on the list: one series more, never one per stranger. */
export const OTHER = 'other';

/** `value` where it is one of `allowed`, else `other`. Labels from outside (error codes, RPC names) go through this. */
export function boundedLabel<T extends string>(value: string, allowed: readonly T[]): T | typeof OTHER {
  return (allowed as readonly string[]).includes(value) ? (value as T) : OTHER;
}

/** Slots beyond this share one series; a run's lanes bound its workers long before. */
export const WORKER_SLOTS_MAX = 256;

/** Label of a worker: its stable slot (0, 1, …), never a host name or an id. */
export function workerLabel(slot: number): string {
  return Number.isInteger(slot) && slot >= 0 && slot < WORKER_SLOTS_MAX ? String(slot) : OTHER;
}

/** What a name that becomes a label may look like: open_clip's have `@`, `-` and `/`. */
const NAME = /^[A-Za-z][A-Za-z0-9_@./-]{0,79}$/;

/** Names that others choose, as labels: the first `max` well-formed ones are themselves, whatever comes later is `other`. */
export class BoundedNames {
  readonly #max: number;
  readonly #known = new Set<string>();

  constructor(max: number) {
    this.#max = max;
  }

  label(name: string): string {
    if (this.#known.has(name)) return name;
    if (!NAME.test(name) || this.#known.size >= this.#max) return OTHER;
    this.#known.add(name);
    return name;
  }
}
