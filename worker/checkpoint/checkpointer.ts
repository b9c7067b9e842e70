import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import type { ComputeHandle } from '../train/compute-handle.ts';
import { type StateLayout, StateView } from '../train/state-layout.ts';
import { pruneCheckpoints } from './checkpoint-registry.ts';
import { type CheckpointFacts, type WrittenCheckpoint, writeCheckpoint } from './write-checkpoint.ts';

/** Unreferenced blobs younger than this may belong to another writer's checkpoint in the making. */
const BLOB_GRACE_MS = 10 * 60_000;

export interface CheckpointerOptions {
  readonly run: string;
  readonly keepLast: number;
  readonly layout: StateLayout;
}

export interface CheckpointerModules {
  readonly compute: ComputeHandle;
  readonly store: ObjectStore;
  /** Tells the coordinator, which moves HEAD. */
  readonly commit: (written: WrittenCheckpoint, generation: number) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onDone?: (outcome: {
    readonly ok: boolean;
    readonly seconds: Readonly<Record<string, number>>;
    readonly bytes: number;
    readonly step: number;
  }) => void;
}

/**
 * Takes snapshots without stopping training: the compute thread copies the state between two steps, then hashing and uploading
 * run beside the next ones. One at a time: a checkpoint that falls due while the last is still on its way is skipped, aloud.
 */
export class Checkpointer {
  readonly #options: CheckpointerOptions;
  readonly #modules: CheckpointerModules;
  readonly #view: StateView;
  #running: Promise<void> | undefined;

  constructor(options: CheckpointerOptions, modules: CheckpointerModules, buffer: SharedArrayBuffer) {
    this.#options = options;
    this.#modules = modules;
    this.#view = new StateView(buffer, options.layout);
  }

  /** Queues a snapshot of the state before step `step`; must be called right after step `step − 1` was queued. */
  begin(step: number, facts: CheckpointFacts): void {
    if (this.#running) {
      this.#modules.logger.warn({ step }, 'checkpoint skipped: the previous one is still being stored');
      return;
    }
    this.#running = this.#take(step, facts)
      .catch((thrown) => {
        const error = CoveyError.from(thrown);
        if (CoveyError.is(error, 'ABORTED', 'CANCELLED', 'STALE_GENERATION')) return;
        this.#modules.logger.error(
          { step, code: error.code, reason: error.message },
          'checkpoint failed; training goes on',
        );
        this.#modules.onDone?.({ ok: false, seconds: {}, bytes: 0, step });
      })
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** Takes a snapshot now, while nothing steps, and waits until it is committed. Throws what went wrong. */
  async takeNow(step: number, facts: CheckpointFacts): Promise<void> {
    await this.#running;
    await this.#take(step, facts);
  }

  /** Waits for the one under way. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #take(step: number, facts: CheckpointFacts): Promise<void> {
    const { compute, store, clock, logger } = this.#modules;
    const started = clock.now();
    await compute.request({ kind: 'exportState', buffer: this.#view.buffer, step });
    const snapshotDone = clock.now();
    const written = await writeCheckpoint(this.#view, facts, { store, clock });
    const uploadDone = clock.now();
    await this.#modules.commit(written, facts.generation);
    const seconds = {
      snapshot: (snapshotDone - started) / 1000,
      upload: (uploadDone - snapshotDone) / 1000,
      commit: (clock.now() - uploadDone) / 1000,
    };
    logger.info({ step, bytes: written.bytes, ...seconds }, 'checkpoint committed');
    this.#modules.onDone?.({ ok: true, seconds, bytes: written.bytes, step });
    await pruneCheckpoints({ store, clock }, this.#options.run, {
      keepLast: this.#options.keepLast,
      protectedKeys: [written.manifestKey],
      blobGraceMs: BLOB_GRACE_MS,
    });
  }
}
