import { createHash } from 'node:crypto';
import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import { paddedSize, parseLongName, parsePax, parseTarHeader, TAR_BLOCK, type TarHeader } from './tar-headers.ts';

/** Small text members are kept for captions; a longer one is not a caption. */
const TEXT_BYTES_MAX = 2 ** 20;
const TEXT_EXTENSIONS = new Set(['txt', 'json', 'cls', 'caption']);

export interface TarMember {
  readonly name: string;
  readonly offset: number;
  readonly sizeBytes: number;
  /** Contents, for small members with a text extension. */
  readonly text?: Uint8Array;
}

/** Why a member is left out. */
export type TarProblemReason =
  | 'truncated'
  | 'corrupt-header'
  | 'traversal-name'
  | 'not-a-file'
  | 'zero-byte'
  | 'no-extension'
  | 'over-large';

export interface TarProblem {
  readonly name: string;
  readonly reason: TarProblemReason;
}

export interface TarListing {
  readonly members: readonly TarMember[];
  readonly problems: readonly TarProblem[];
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * Lists a tar in one pass over its bytes, holding one chunk and the small text members. Whatever is wrong with a member is
 * reported and the rest goes on; after a corrupt header or a truncated member nothing can be found any more, so the listing
 * ends there (the hash still covers every byte).
 */
export async function listTar(chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<TarListing> {
  const reader = new TarReader();
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of chunks) {
    throwIfAborted(signal);
    hash.update(chunk);
    bytes += chunk.byteLength;
    reader.push(chunk);
  }
  reader.end();
  return { members: reader.members, problems: reader.problems, bytes, sha256: hash.digest('hex') };
}

/** WebDataset's split: the key ends at the first dot of the last path part; the extension is lower-cased. */
export function splitMemberName(name: string): { readonly key: string; readonly extension: string } | undefined {
  const slash = name.lastIndexOf('/') + 1;
  const dot = name.indexOf('.', slash);
  // A name that begins with a dot has no key: `._x.jpg` is what macOS leaves in tars.
  if (dot <= slash || dot === name.length - 1) return undefined;
  return { key: name.slice(0, dot), extension: name.slice(dot + 1).toLowerCase() };
}

/** Whether a name would leave the folder it is unpacked to. */
export function isTraversal(name: string): boolean {
  return /^([/\\]|[A-Za-z]:)/.test(name) || name.includes('\0') || name.split(/[/\\]/).includes('..');
}

type State =
  | { readonly kind: 'header' }
  | {
      readonly kind: 'body';
      readonly header: TarHeader;
      readonly offset: number;
      readonly kept: Uint8Array | null;
      done: number;
    }
  | { readonly kind: 'ended' };

const META_TYPES = 'LKxg';

class TarReader {
  readonly members: TarMember[] = [];
  readonly problems: TarProblem[] = [];
  readonly #block = new Uint8Array(TAR_BLOCK);
  #blockFilled = 0;
  #position = 0;
  #state: State = { kind: 'header' };
  /** From a GNU long name or PAX header, for the next member. */
  #nextName: string | undefined;
  #nextSize: number | undefined;

  push(chunk: Uint8Array): void {
    let offset = 0;
    while (offset < chunk.length && this.#state.kind !== 'ended') {
      const used =
        this.#state.kind === 'header' ? this.#pushHeader(chunk, offset) : this.#pushBody(this.#state, chunk, offset);
      offset += used;
      this.#position += used;
      this.#advance();
    }
  }

  end(): void {
    const state = this.#state;
    if (state.kind === 'body') {
      // Only the padding of the last member may be missing.
      if (state.done >= state.header.sizeBytes) this.#finish(state);
      else this.problems.push({ name: state.header.name, reason: 'truncated' });
    } else if (state.kind === 'header' && this.#blockFilled > 0) {
      this.problems.push({ name: `(header at byte ${this.#position - this.#blockFilled})`, reason: 'truncated' });
    }
  }

  #pushHeader(chunk: Uint8Array, offset: number): number {
    const used = Math.min(TAR_BLOCK - this.#blockFilled, chunk.length - offset);
    this.#block.set(chunk.subarray(offset, offset + used), this.#blockFilled);
    this.#blockFilled += used;
    return used;
  }

  #pushBody(state: Extract<State, { kind: 'body' }>, chunk: Uint8Array, offset: number): number {
    const used = Math.min(paddedSize(state.header.sizeBytes) - state.done, chunk.length - offset);
    if (state.kept !== null && state.done < state.kept.length) {
      state.kept.set(chunk.subarray(offset, offset + Math.min(used, state.kept.length - state.done)), state.done);
    }
    state.done += used;
    return used;
  }

  /** Goes on where a header or a body is complete; loops, since a body may be empty. */
  #advance(): void {
    if (this.#state.kind === 'header' && this.#blockFilled === TAR_BLOCK) {
      this.#blockFilled = 0;
      this.#state = this.#afterHeader();
    }
    if (this.#state.kind === 'body' && this.#state.done === paddedSize(this.#state.header.sizeBytes)) {
      this.#finish(this.#state);
      this.#state = { kind: 'header' };
    }
  }

  #afterHeader(): State {
    const parsed = parseTarHeader(this.#block);
    // One zero block ends an archive for every reader in use; GNU tar writes two and pads to a record.
    if (parsed === null) return { kind: 'ended' };
    if (parsed === undefined) {
      this.problems.push({ name: `(header at byte ${this.#position - TAR_BLOCK})`, reason: 'corrupt-header' });
      return { kind: 'ended' };
    }
    const isMeta = META_TYPES.includes(parsed.type);
    const header = isMeta
      ? parsed
      : { ...parsed, name: this.#nextName ?? parsed.name, sizeBytes: this.#nextSize ?? parsed.sizeBytes };
    // Links and folders have no data whatever their size field says.
    const sized = '12345 6'.includes(header.type) ? { ...header, sizeBytes: 0 } : header;
    const extension = splitMemberName(header.name)?.extension ?? '';
    const keeps = (isMeta || TEXT_EXTENSIONS.has(extension)) && sized.sizeBytes <= TEXT_BYTES_MAX;
    return {
      kind: 'body',
      header: sized,
      offset: this.#position,
      kept: keeps ? new Uint8Array(sized.sizeBytes) : null,
      done: 0,
    };
  }

  #finish(state: Extract<State, { kind: 'body' }>): void {
    const { header, kept } = state;
    if (META_TYPES.includes(header.type)) {
      this.#applyMeta(header, kept);
      return;
    }
    this.#nextName = undefined;
    this.#nextSize = undefined;
    const name = header.name.replace(/^(\.\/)+/, '');
    if (header.type === '5' || name === '' || name.endsWith('/')) return;
    const reason = memberProblem(name, header, kept);
    if (reason !== undefined) this.problems.push({ name, reason });
    else
      this.members.push({
        name,
        offset: state.offset,
        sizeBytes: header.sizeBytes,
        ...(kept === null ? {} : { text: kept }),
      });
  }

  #applyMeta(header: TarHeader, kept: Uint8Array | null): void {
    if (kept === null) {
      this.problems.push({ name: header.name, reason: 'over-large' });
    } else if (header.type === 'L') {
      this.#nextName = parseLongName(kept);
    } else if (header.type === 'x') {
      const records = parsePax(kept);
      this.#nextName = records.get('path') ?? this.#nextName;
      const size = Number(records.get('size') ?? Number.NaN);
      if (Number.isSafeInteger(size) && size >= 0) this.#nextSize = size;
    }
  }
}

function memberProblem(name: string, header: TarHeader, kept: Uint8Array | null): TarProblemReason | undefined {
  if (isTraversal(name)) return 'traversal-name';
  if (header.type !== '0') return 'not-a-file';
  if (header.sizeBytes === 0) return 'zero-byte';
  const split = splitMemberName(name);
  if (split === undefined) return 'no-extension';
  if (TEXT_EXTENSIONS.has(split.extension) && kept === null) return 'over-large';
  return undefined;
}

/** A stored object in ranged reads of `chunkBytes`, so that it is never in memory whole. */
export async function* objectChunks(
  store: {
    get(
      key: string,
      options: { range: { offset: number; length: number }; signal?: AbortSignal },
    ): Promise<{ readonly bytes: Uint8Array }>;
  },
  object: { readonly key: string; readonly sizeBytes: number },
  options: { readonly chunkBytes?: number; readonly signal?: AbortSignal } = {},
): AsyncGenerator<Uint8Array> {
  const chunkBytes = options.chunkBytes ?? 8 * 2 ** 20;
  for (let offset = 0; offset < object.sizeBytes; offset += chunkBytes) {
    const length = Math.min(chunkBytes, object.sizeBytes - offset);
    const range = { offset, length };
    const { bytes } = await store.get(
      object.key,
      options.signal === undefined ? { range } : { range, signal: options.signal },
    );
    if (bytes.byteLength !== length) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot read ${object.key}: ${bytes.byteLength} bytes at ${offset}, expected ${length}`,
        { fields: { key: object.key } },
      );
    }
    yield bytes;
  }
}
