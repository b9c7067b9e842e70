import type { Row } from '../filter/where.ts';
import type { IndexedSample } from '../manifest.ts';

/** A picture with its captions, before its bytes are read and checked. */
export interface Candidate {
  readonly kind: 'candidate';
  /** What a report calls it: the path, or set and name. */
  readonly name: string;
  readonly captions: readonly string[];
  /** Where each caption is from. */
  readonly captionSources?: readonly string[];
  readonly label?: IndexedSample['label'];
  readonly meta?: IndexedSample['meta'];
  /** What a filter may ask for besides. */
  readonly columns?: Row;
  /** Rendered here, so not decoded again to see whether it is whole. */
  readonly trusted?: boolean;
  readonly load: (signal?: AbortSignal) => Promise<Uint8Array>;
}

/** Something a source found and leaves out. */
export interface Skip {
  readonly kind: 'skip';
  readonly name: string;
  readonly reason: string;
}

export type SourceItem = Candidate | Skip;

export const skip = (name: string, reason: string): Skip => ({ kind: 'skip', name, reason });

/** By code point: the same on every machine, whatever its locale. */
export function byCodePoint(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
