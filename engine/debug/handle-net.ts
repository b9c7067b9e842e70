import { type Origin, originHere } from './origin.ts';

/** What an object in JavaScript holds in the addon. */
export interface HeldHandles {
  handle: number;
  /** A second one that goes with it. */
  half: number | undefined;
}

/** Handles whose owner was collected without having been disposed, by where it was made. */
export interface ReclaimedHandles extends Origin {
  readonly count: number;
}

interface Catch extends Origin {
  readonly held: HeldHandles;
  readonly release: (held: HeldHandles) => void;
}

/** Catches native handles whose owner in JavaScript was collected undisposed: releases them and remembers where the owner was made. */
export class HandleNet {
  readonly #reclaimed = new Map<string, { origin: Origin; count: number }>();
  readonly #registry = new FinalizationRegistry<Catch>(({ held, release, op, stack }) => {
    const key = JSON.stringify([op, stack]);
    const known = this.#reclaimed.get(key);
    if (known === undefined) this.#reclaimed.set(key, { origin: { op, stack }, count: 1 });
    else known.count++;
    release(held);
  });

  /** Until `settle`. `release` must not hold the owner. */
  watch(owner: object, held: HeldHandles, release: (held: HeldHandles) => void): void {
    this.#registry.register(owner, { ...originHere(this.watch), held, release }, owner);
  }

  /** The owner has released them itself. */
  settle(owner: object): void {
    this.#registry.unregister(owner);
  }

  /** So far; most first. */
  reclaimed(): ReclaimedHandles[] {
    return [...this.#reclaimed.values()]
      .map(({ origin, count }) => ({ ...origin, count }))
      .sort((a, b) => b.count - a.count);
  }
}
