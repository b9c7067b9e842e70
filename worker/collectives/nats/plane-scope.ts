import type { Frame } from './frame.ts';

export interface PlaneOptions {
  readonly chunkBytes: number;
  /** A receiver asks for what is missing after this long without progress, milliseconds. */
  readonly nakDelayMs: number;
}

/** Where a plane sends and what it may send, for one generation. */
export interface PlaneScope {
  readonly generation: number;
  readonly rank: number;
  readonly world: number;
  /** A peer's own subject. */
  subjectOf(rank: number): string;
  readonly broadcastSubject: string;
  /** Bytes each receiver lets this rank have in flight, by rank; known once it said hello. */
  readonly grants: number[];
  /** Bytes this rank lets each sender have in flight. */
  readonly ownGrant: number;
}

export type ControlListener = (frame: Frame, payload: Uint8Array) => void;
