/** What the tensor plane counts; the worker turns it into metrics. All values only grow, within one connection. */
export interface PlaneCounters {
  /** Payload bytes handed to the network, resends included. */
  bytesSent: number;
  bytesReceived: number;
  /** Times the sender had data but no credit. */
  creditWaits: number;
  /** Requests for missing chunks. */
  gaps: number;
  /** Chunks sent again. */
  retransmits: number;
  duplicates: number;
  /** Messages dropped for a wrong checksum or header. */
  corrupt: number;
  /** Messages dropped because they belong to another generation. */
  stale: number;
}

export type CollectiveKind = 'allGather' | 'treeAllReduce' | 'fetchState';

/** One kind of operation: how many ended, how many of those failed, and their wall time together. */
export interface OperationTotals {
  count: number;
  failed: number;
  seconds: number;
  /** Bytes of the results. */
  bytes: number;
}

export interface CollectiveStats extends PlaneCounters {
  disconnects: number;
  readonly operations: Readonly<Record<CollectiveKind, OperationTotals>>;
}

export function newOperationTotals(): Record<CollectiveKind, OperationTotals> {
  const zero = (): OperationTotals => ({ count: 0, failed: 0, seconds: 0, bytes: 0 });
  return { allGather: zero(), treeAllReduce: zero(), fetchState: zero() };
}
