/**
 * The seam of the tensor plane. Implementations: NATS (production) and memory (tests); one contract test runs on both.
 *
 * All ranks of a generation call the same operations with the same `op` numbers in the same order (operations may overlap
 * in time: several reductions are in flight while backward still runs). An operation either completes with the same bytes
 * on every rank or rejects; there is no partial result. Rejections are CoveyErrors: TIMEOUT (`fields.waitingFor`: member
 * ids of the absent peers), ABORTED (`abort` was called or a newer generation configured), UNAVAILABLE, DATA_CORRUPT.
 */
export interface Collectives {
  /** Enters a generation: anything of an older one is aborted, and its messages are refused from now on. Resolves once every
   * peer is known to listen. */
  configure(group: Group, options?: CallOptions): Promise<void>;

  /** Every rank contributes its lanes' blocks; every rank gets all blocks in lane order.
   * `out.byteLength` = lanes × `laneBytes`; the caller has already written its own lanes' blocks into `out`. */
  allGather(op: number, laneBytes: number, out: Uint8Array, options?: CallOptions): Promise<void>;

  /** Sums per-lane vectors over all lanes in the fixed binary tree of `lane-tree.ts`, so that the bits do not depend on who
   * holds which lane. `partials` has one vector per maximal subtree of this rank's lane range, in order
   * (`maximalSubtrees`). The sum is written to `out` on every rank. Inputs must stay unchanged until it resolves. */
  treeAllReduce(op: number, partials: readonly Float32Array[], out: Float32Array, options?: CallOptions): Promise<void>;

  /** Serves `state` to peers that ask for it with `fetchState`, until the next `configure` or `abort`. */
  serveState(state: Uint8Array): void;
  /** Copies a peer's served state (healing), verified by hash, into `into`. */
  fetchState(fromMemberId: string, into: Uint8Array, options?: CallOptions): Promise<void>;

  /** Rejects everything in flight with ABORTED. Usable again after `configure`. */
  abort(reason: string): void;
  close(): Promise<void>;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** Who takes part in a generation. */
export interface Group {
  readonly run: string;
  readonly generation: number;
  /** This process's index into `members`. */
  readonly rank: number;
  readonly members: readonly GroupMember[];
  readonly laneCount: number;
}

/** Members are in rank order; their lane ranges are contiguous, ascending and cover [0, laneCount). */
export interface GroupMember {
  readonly memberId: string;
  readonly laneBegin: number;
  /** Exclusive. */
  readonly laneEnd: number;
}
