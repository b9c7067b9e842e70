import { type Clock, systemClock } from '../../../common/clock.ts';
import { assert, CoveyError } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';
import { type CollectiveKind, type CollectiveStats, newOperationTotals } from '../collective-stats.ts';
import type { CallOptions, Collectives, Group } from '../collectives.ts';
import { checkGather, checkGroup, checkReduce } from '../group-checks.ts';
import { planReduction, type ReductionPlan, TreeReducer } from '../reduce-kernel.ts';
import type { Frame } from './frame.ts';
import { Handshake } from './handshake.ts';
import { type Link, NatsLink } from './link.ts';
import { PendingOp } from './pending-op.ts';
import { SMALL_BYTES } from './receipts.ts';
import { StagingPool } from './staging-pool.ts';
import { StateTransfer } from './state-transfer.ts';
import { TransferPlane } from './transfer-plane.ts';
import { peersOf, startSlicedReduce, startSmallReduce } from './tree-reduce.ts';

export interface NatsCollectivesOptions {
  /** Bytes per message. Default 512 KiB, lowered to what the server takes. The same on all members. */
  readonly chunkBytes?: number;
  /** Bytes each peer may have in flight to this rank. Default 8 MiB, less where that would be over 32 MiB from all peers. */
  readonly windowBytes?: number;
  /** Ask for missing chunks after this long without progress. Default 250. */
  readonly nakDelayMs?: number;
  /** Limit of every call that names none. Default 60 000. */
  readonly timeoutMs?: number;
}

export interface NatsCollectivesModules {
  readonly link: Link;
  readonly logger: Logger;
  readonly clock?: Clock;
}

const CHUNK_BYTES = 512 * 1024;
const WINDOW_BYTES = 8 * 2 ** 20;
/** From all peers together: well under a server's default 64 MiB of pending data per connection. */
const WINDOW_BYTES_TOTAL = 32 * 2 ** 20;
const STAGING_BYTES_MAX = 512 * 2 ** 20;

/** One generation's view: replaced whole by the next `configure`. */
interface Membership {
  readonly group: Group;
  readonly plan: ReductionPlan;
  readonly reducer: TreeReducer;
  readonly handshake: Handshake;
  readonly unsubscribe: readonly (() => void)[];
  /** Everybody is known to listen. */
  ready: boolean;
}

/** The tensor plane over NATS (ARCHITECTURE; docs/decisions/0004). Owns its link: `close` closes it. */
export class NatsCollectives implements Collectives {
  readonly #options: Required<NatsCollectivesOptions>;
  readonly #link: Link;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #plane: TransferPlane;
  readonly #state: StateTransfer;
  readonly #staging = new StagingPool(STAGING_BYTES_MAX);
  readonly #pending = new Set<PendingOp>();
  readonly #operations = newOperationTotals();
  #membership: Membership | undefined;
  /** The newest generation ever entered: nothing older comes back. */
  #newestGeneration = -1;
  readonly #active = new Set<string>();

  constructor(options: NatsCollectivesOptions, modules: NatsCollectivesModules) {
    const chunkLimit = Math.min(options.chunkBytes ?? CHUNK_BYTES, modules.link.payloadBytesMax);
    this.#options = {
      // Whole 16-byte groups, so that every chunk but the last holds whole floats.
      chunkBytes: Math.max(16, chunkLimit & ~15),
      windowBytes: options.windowBytes ?? WINDOW_BYTES,
      nakDelayMs: options.nakDelayMs ?? 250,
      timeoutMs: options.timeoutMs ?? 60_000,
    };
    this.#link = modules.link;
    this.#logger = modules.logger;
    this.#clock = modules.clock ?? systemClock;
    this.#plane = new TransferPlane(this.#options, {
      link: modules.link,
      clock: this.#clock,
      logger: modules.logger,
      onControl: (frame, payload) => this.#onControl(frame, payload),
    });
    this.#state = new StateTransfer(this.#plane);
  }

  /** Connects with the official client. Throws UNAVAILABLE. */
  static async connect(
    options: NatsCollectivesOptions & { url: string; name?: string },
    modules: { logger: Logger },
  ): Promise<NatsCollectives> {
    const link = await NatsLink.open({ url: options.url, name: options.name ?? 'covey-tensors' }, modules.logger);
    return new NatsCollectives(options, { ...modules, link });
  }

  async configure(group: Group, options: CallOptions = {}): Promise<void> {
    checkGroup(group);
    const current = this.#membership;
    if (group.generation < this.#newestGeneration || (group.generation === this.#newestGeneration && current?.ready)) {
      throw new CoveyError(
        'STALE_GENERATION',
        `Cannot enter generation ${group.generation}: ${this.#newestGeneration} was entered`,
        {
          fields: { generation: group.generation, newest: this.#newestGeneration },
        },
      );
    }
    this.#newestGeneration = group.generation;
    this.#leave(`generation ${group.generation} begins`);
    const membership = this.#enter(group);
    const pending = this.#begin(`Entering generation ${group.generation}`, options, () =>
      membership.handshake.unanswered(),
    );
    const answered = pending.hold();
    // Subscribed before the first hello; a flush that fails means a lost connection, after which hellos go on.
    await Promise.race([this.#link.flush().catch(() => undefined), pending.done]);
    if (!pending.ended) membership.handshake.start(answered, (error) => pending.reject(error));
    pending.seal();
    try {
      await pending.done;
    } catch (thrown) {
      membership.handshake.stop();
      throw thrown;
    }
    membership.ready = true;
    this.#logger.debug(
      { generation: group.generation, rank: group.rank, world: group.members.length },
      'tensor plane ready',
    );
  }

  async allGather(op: number, laneBytes: number, out: Uint8Array, options: CallOptions = {}): Promise<void> {
    const { group } = this.#ready('all-gather');
    checkGather(group, laneBytes, out);
    if (group.members.length === 1) return;
    await this.#run('allGather', op, out.byteLength, options, (name, pending) => {
      const held = (rank: number) => {
        const { laneBegin, laneEnd } = group.members[rank]!;
        return out.subarray(laneBegin * laneBytes, laneEnd * laneBytes);
      };
      for (const source of peersOf(group)) {
        const target = held(source);
        if (target.byteLength === 0) continue;
        this.#plane.expect({
          op: name,
          part: 0,
          source,
          target,
          onComplete: pending.hold(),
          onMisfit: (error) => pending.reject(error),
        });
      }
      const bytes = held(group.rank);
      if (bytes.byteLength === 0) return undefined;
      const onReceipts = bytes.byteLength <= SMALL_BYTES ? () => {} : pending.hold();
      this.#plane.send({ op: name, part: 0, destinations: peersOf(group), bytes, ready: true, onReceipts });
      return undefined;
    });
  }

  async treeAllReduce(
    op: number,
    partials: readonly Float32Array[],
    out: Float32Array,
    options: CallOptions = {},
  ): Promise<void> {
    const { group, plan, reducer } = this.#ready('reduce');
    checkReduce(group, partials, out);
    if (out.length === 0) return;
    if (group.members.length === 1) {
      reducer.sum(
        partials,
        partials.map(() => 0),
        out,
        0,
        out.length,
      );
      return;
    }
    const modules = {
      group,
      plan,
      reducer,
      plane: this.#plane,
      staging: this.#staging,
      chunkBytes: this.#options.chunkBytes,
    };
    let buffers: ArrayBuffer[] = [];
    try {
      await this.#run('treeAllReduce', op, out.byteLength, options, (name, pending) => {
        const call = { op: name, partials, out, pending };
        if (out.byteLength > SMALL_BYTES) {
          buffers = startSlicedReduce(call, modules).buffers;
          return undefined;
        }
        const small = startSmallReduce(call, modules);
        buffers = small.buffers;
        return small.finish;
      });
    } finally {
      this.#staging.give(buffers);
    }
  }

  serveState(state: Uint8Array): void {
    this.#ready('serve state');
    this.#state.serve(state);
  }

  async fetchState(fromMemberId: string, into: Uint8Array, options: CallOptions = {}): Promise<void> {
    const { group } = this.#ready('fetch state');
    const source = group.members.findIndex(({ memberId }) => memberId === fromMemberId);
    if (source < 0 || source === group.rank || into.byteLength === 0) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot fetch state: ${fromMemberId} is not a peer of generation ${group.generation}, or 0 bytes are asked for`,
        {
          fields: { fromMemberId, bytes: into.byteLength, members: group.members.map(({ memberId }) => memberId) },
        },
      );
    }
    const name = this.#state.nextOp(group.rank);
    await this.#run('fetchState', name, into.byteLength, options, (op, pending) => {
      this.#state.fetch(op, source, into, pending);
      return undefined;
    });
  }

  abort(reason: string): void {
    this.#leave(reason);
  }

  async close(): Promise<void> {
    this.#leave('the tensor plane was closed');
    this.#plane.close();
    await this.#link.close();
  }

  stats(): CollectiveStats {
    return {
      ...this.#plane.counters,
      disconnects: this.#link.disconnects,
      operations: structuredClone(this.#operations),
    };
  }

  #enter(group: Group): Membership {
    const world = group.members.length;
    const prefix = `covey.${group.run}.g${group.generation}`;
    const minimum = 2 * this.#options.chunkBytes;
    const grantBytes = Math.max(
      minimum,
      Math.min(this.#options.windowBytes, Math.floor(WINDOW_BYTES_TOTAL / Math.max(1, world - 1))),
    );
    const grants = new Array<number>(world).fill(minimum);
    this.#plane.enter({
      generation: group.generation,
      rank: group.rank,
      world,
      subjectOf: (rank) => `${prefix}.${rank}`,
      broadcastSubject: `${prefix}.all`,
      grants,
      ownGrant: grantBytes,
    });
    const receive = this.#plane.receive.bind(this.#plane);
    const subjects = world === 1 ? [] : [`${prefix}.${group.rank}`, ...(world > 2 ? [`${prefix}.all`] : [])];
    const plan = planReduction(group);
    this.#membership = {
      group,
      plan,
      reducer: new TreeReducer(plan),
      handshake: new Handshake(
        { group, chunkBytes: this.#options.chunkBytes, grantBytes },
        { plane: this.#plane, grants },
      ),
      unsubscribe: subjects.map((subject) => this.#link.subscribe(subject, receive)),
      ready: false,
    };
    return this.#membership;
  }

  #leave(reason: string): void {
    const left = this.#membership;
    this.#membership = undefined;
    this.#state.stop();
    for (const pending of [...this.#pending])
      pending.reject(new CoveyError('ABORTED', `the operation was abandoned: ${reason}`, { fields: { reason } }));
    left?.handshake.stop();
    for (const unsubscribe of left?.unsubscribe ?? []) unsubscribe();
    this.#plane.enter(undefined);
  }

  #ready(doing: string): Membership {
    const membership = this.#membership;
    if (!membership?.ready) {
      throw new CoveyError('ABORTED', `Cannot ${doing}: no generation is entered; configure first`, {
        fields: { newest: this.#newestGeneration },
      });
    }
    return membership;
  }

  #begin(
    doing: string,
    options: CallOptions,
    waitingFor: () => readonly string[],
    onEnd: (outcome: 'complete' | 'failed') => void = () => {},
  ): PendingOp {
    const pending: PendingOp = new PendingOp({
      doing,
      timeoutMs: options.timeoutMs ?? this.#options.timeoutMs,
      signal: options.signal,
      waitingFor,
      onEnd: (outcome) => {
        this.#pending.delete(pending);
        onEnd(outcome);
      },
    });
    this.#pending.add(pending);
    return pending;
  }

  /** Runs one operation: `start` registers transfers and may return what to do once they are complete. */
  async #run(
    kind: CollectiveKind,
    op: number | string,
    bytes: number,
    options: CallOptions,
    start: (name: string, pending: PendingOp) => (() => void) | undefined,
  ): Promise<void> {
    const name = String(op);
    const { group } = this.#membership!;
    if (this.#active.has(name) || this.#plane.hasEnded(name)) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot start operation ${name}: its number was used in generation ${group.generation}`,
        { fields: { op } },
      );
    }
    const startedMs = performance.now();
    const totals = this.#operations[kind];
    let finish: (() => void) | undefined;
    const waitingFor = () => this.#plane.waitingFor(name).map((rank) => group.members[rank]!.memberId);
    const pending = this.#begin(`Operation ${name} (${kind})`, options, waitingFor, (outcome) => {
      this.#active.delete(name);
      this.#state.forget(name);
      this.#plane.release(name, outcome);
      totals.count++;
      totals.seconds += (performance.now() - startedMs) / 1000;
      if (outcome === 'failed') totals.failed++;
      else {
        totals.bytes += bytes;
        finish?.();
      }
    });
    this.#active.add(name);
    finish = start(name, pending);
    pending.seal();
    await pending.done;
  }

  #onControl(frame: Frame, payload: Uint8Array): void {
    const membership = this.#membership;
    assert(membership !== undefined, 'control frames pass only within a generation');
    if (frame.kind === 'h' || frame.kind === 'w') membership.handshake.receive(frame, payload);
    else this.#state.receive(frame, payload);
  }
}
