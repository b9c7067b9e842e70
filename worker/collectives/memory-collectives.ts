import { CoveyError } from '../../common/errors.ts';
import type { CallOptions, Collectives, Group } from './collectives.ts';
import { checkGather, checkGroup, checkReduce } from './group-checks.ts';
import { PendingOp } from './nats/pending-op.ts';
import { planReduction, TreeReducer } from './reduce-kernel.ts';

/** What one rank brought to an operation. */
interface Contribution {
  readonly shape: string;
  readonly gather: Uint8Array | undefined;
  readonly partials: readonly Float32Array[];
  readonly out: Float32Array | undefined;
  readonly complete: () => void;
}

/** Who came to an operation, and what those brought who still wait. */
interface Meeting {
  readonly came: Set<number>;
  readonly contributions: (Contribution | undefined)[];
}

interface Generation {
  readonly number: number;
  readonly members: (MemoryCollectives | undefined)[];
  readonly ops: Map<number, Meeting>;
}

const TIMEOUT_MS = 60_000;

/** Connects the ranks of one process: the twin of a NATS server, for tests and for a single process. */
export class MemoryHub {
  readonly #generations = new Map<string, Generation>();

  /** A new participant. */
  join(options: { readonly timeoutMs?: number } = {}): MemoryCollectives {
    return new MemoryCollectives(this, options.timeoutMs ?? TIMEOUT_MS);
  }

  /** The meeting place of a generation; made on first use. */
  generation(group: Group): Generation {
    const key = `${group.run} ${group.generation}`;
    let generation = this.#generations.get(key);
    if (!generation) {
      generation = { number: group.generation, members: group.members.map(() => undefined), ops: new Map() };
      this.#generations.set(key, generation);
    }
    return generation;
  }
}

interface Waiting {
  readonly pending: PendingOp;
  readonly release: () => void;
}

export class MemoryCollectives implements Collectives {
  readonly #hub: MemoryHub;
  readonly #timeoutMs: number;
  readonly #pending = new Set<PendingOp>();
  readonly #arrivals = new Set<Waiting>();
  readonly #usedOps = new Set<number>();
  #group: Group | undefined;
  #generation: Generation | undefined;
  #newestGeneration = -1;
  #ready = false;
  #served: Uint8Array | undefined;

  constructor(hub: MemoryHub, timeoutMs: number) {
    this.#hub = hub;
    this.#timeoutMs = timeoutMs;
  }

  async configure(group: Group, options: CallOptions = {}): Promise<void> {
    checkGroup(group);
    if (group.generation < this.#newestGeneration || (group.generation === this.#newestGeneration && this.#ready)) {
      throw new CoveyError(
        'STALE_GENERATION',
        `Cannot enter generation ${group.generation}: ${this.#newestGeneration} was entered`,
        {
          fields: { generation: group.generation, newest: this.#newestGeneration },
        },
      );
    }
    this.abort(`generation ${group.generation} begins`);
    this.#newestGeneration = group.generation;
    const generation = this.#hub.generation(group);
    this.#group = group;
    this.#generation = generation;
    generation.members[group.rank] = this;
    const absent = () => group.members.filter((_, rank) => !generation.members[rank]).map(({ memberId }) => memberId);
    const pending = this.#begin(`Entering generation ${group.generation}`, options, absent);
    const arrival = { pending, release: pending.hold() };
    this.#arrivals.add(arrival);
    if (absent().length === 0) for (const member of generation.members) member!.#everybodyIsHere();
    pending.seal();
    await pending.done;
    this.#ready = true;
  }

  async allGather(op: number, laneBytes: number, out: Uint8Array, options: CallOptions = {}): Promise<void> {
    const group = this.#entered('all-gather');
    checkGather(group, laneBytes, out);
    await this.#contribute(op, options, `gather ${laneBytes}`, { gather: out, partials: [], out: undefined });
  }

  async treeAllReduce(
    op: number,
    partials: readonly Float32Array[],
    out: Float32Array,
    options: CallOptions = {},
  ): Promise<void> {
    const group = this.#entered('reduce');
    checkReduce(group, partials, out);
    await this.#contribute(op, options, `reduce ${out.length}`, { gather: undefined, partials, out });
  }

  serveState(state: Uint8Array): void {
    this.#entered('serve state');
    this.#served = state;
  }

  async fetchState(fromMemberId: string, into: Uint8Array, options: CallOptions = {}): Promise<void> {
    const group = this.#entered('fetch state');
    const source = group.members.findIndex(({ memberId }) => memberId === fromMemberId);
    if (source < 0 || source === group.rank || into.byteLength === 0) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot fetch state: ${fromMemberId} is not a peer of generation ${group.generation}, or 0 bytes are asked for`,
      );
    }
    const pending = this.#begin(`Fetching the state of ${fromMemberId}`, options, () => [fromMemberId]);
    const fetched = pending.hold();
    const look = () => {
      if (pending.ended) return;
      const state = this.#generation?.members[source]?.served;
      if (!state) setTimeout(look, 5);
      else if (state.byteLength !== into.byteLength) {
        pending.reject(
          new CoveyError(
            'INVALID_ARGUMENT',
            `Cannot fetch the state of ${fromMemberId}: it has ${state.byteLength} bytes, asked for ${into.byteLength}`,
          ),
        );
      } else {
        into.set(state);
        fetched();
      }
    };
    look();
    pending.seal();
    await pending.done;
  }

  abort(reason: string): void {
    for (const pending of [...this.#pending])
      pending.reject(new CoveyError('ABORTED', `the operation was abandoned: ${reason}`, { fields: { reason } }));
    if (this.#generation && this.#group && this.#generation.members[this.#group.rank] === this) {
      this.#generation.members[this.#group.rank] = undefined;
    }
    this.#usedOps.clear();
    this.#group = undefined;
    this.#generation = undefined;
    this.#served = undefined;
    this.#ready = false;
  }

  async close(): Promise<void> {
    this.abort('closed');
  }

  /** The state peers may copy. */
  get served(): Uint8Array | undefined {
    return this.#served;
  }

  #everybodyIsHere(): void {
    for (const { release } of this.#arrivals) release();
    this.#arrivals.clear();
  }

  async #contribute(
    op: number,
    options: CallOptions,
    shape: string,
    data: Pick<Contribution, 'gather' | 'partials' | 'out'>,
  ): Promise<void> {
    const group = this.#group!;
    const generation = this.#generation!;
    if (this.#usedOps.has(op)) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot start operation ${op}: its number was used in generation ${group.generation}`,
        { fields: { op } },
      );
    }
    this.#usedOps.add(op);
    const meeting = generation.ops.get(op) ?? {
      came: new Set<number>(),
      contributions: group.members.map(() => undefined),
    };
    generation.ops.set(op, meeting);
    const { came, contributions } = meeting;
    came.add(group.rank);
    const missing = () => [...group.members.keys()].filter((rank) => !contributions[rank]);
    // Who never came; if all did, those who gave up.
    const waitingFor = () => {
      const never = missing().filter((rank) => !came.has(rank));
      return (never.length > 0 ? never : missing()).map((rank) => group.members[rank]!.memberId);
    };
    const pending = this.#begin(`Operation ${op} (${shape})`, options, waitingFor, (outcome) => {
      if (outcome === 'failed' && generation.ops.get(op) === meeting) contributions[group.rank] = undefined;
    });
    contributions[group.rank] = { shape, complete: pending.hold(), ...data };
    const other = contributions.find((contribution) => contribution && contribution.shape !== shape);
    if (other)
      pending.reject(
        new CoveyError(
          'DATA_CORRUPT',
          `Cannot run operation ${op}: ranks disagree: ${shape} here, ${other.shape} elsewhere`,
        ),
      );
    else if (missing().length === 0) {
      generation.ops.delete(op);
      carryOut(group, contributions as Contribution[]);
    }
    pending.seal();
    await pending.done;
  }

  #entered(doing: string): Group {
    if (!this.#group || !this.#ready) {
      throw new CoveyError('ABORTED', `Cannot ${doing}: no generation is entered; configure first`, {
        fields: { newest: this.#newestGeneration },
      });
    }
    return this.#group;
  }

  #begin(
    doing: string,
    options: CallOptions,
    waitingFor: () => readonly string[],
    onEnd: (outcome: 'complete' | 'failed') => void = () => {},
  ): PendingOp {
    const pending: PendingOp = new PendingOp({
      doing,
      timeoutMs: options.timeoutMs ?? this.#timeoutMs,
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
}

function carryOut(group: Group, contributions: readonly Contribution[]): void {
  const gathers = contributions.map(({ gather }) => gather);
  for (const [rank, source] of gathers.entries()) {
    if (!source) continue;
    const laneBytes = source.byteLength / group.laneCount;
    const { laneBegin, laneEnd } = group.members[rank]!;
    const block = source.subarray(laneBegin * laneBytes, laneEnd * laneBytes);
    for (const [other, target] of gathers.entries()) if (other !== rank) target!.set(block, laneBegin * laneBytes);
  }
  const first = contributions[0]!.out;
  if (first) {
    const leaves = contributions.flatMap(({ partials }) => [...partials]);
    // A vector apart: an output may be one of the inputs.
    const sum = new Float32Array(first.length);
    new TreeReducer(planReduction(group)).sum(
      leaves,
      leaves.map(() => 0),
      sum,
      0,
      sum.length,
    );
    for (const { out } of contributions) out!.set(sum);
  }
  for (const { complete } of contributions) complete();
}
