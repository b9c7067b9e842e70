import { stat } from 'node:fs/promises';
import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import type { PackSource } from '../../worker/data/pack/pack.ts';
import { storeUrl } from '../local-paths.ts';

/** What of `covey pack`'s options says where samples come from. */
export interface SourceOptions {
  readonly side: number;
  readonly exclude?: readonly string[];
  readonly label?: 'category' | 'folder';
  readonly captions?: 'auto' | 'text' | 'folder' | 'none';
  readonly captionKeys?: readonly string[];
  readonly meta?: readonly string[];
  readonly root?: string;
  readonly imageColumn?: string;
  readonly captionColumn?: string;
}

export interface NamedSource {
  readonly source: PackSource;
  /** Of the dataset, where none is given; '' keeps that of a manifest. */
  readonly name: string;
  /** URL of the store that is packed to, where the source says so itself. */
  readonly inPlace?: string;
}

const TABLES = ['.csv', '.tsv', '.jsonl'];

/** What kind of source the argument names. @throws CoveyError INVALID_ARGUMENT for one that is none, or an option it has no use for */
export async function readSource(given: string, options: SourceOptions): Promise<NamedSource> {
  const found = await sourceOf(given, options);
  const { kind } = found.source;
  refuseUnless(kind === 'icons' || options.label !== 'category', '--label category', 'icons', kind);
  refuseUnless(kind === 'folder' || options.label !== 'folder', '--label folder', 'a folder', kind);
  const keyed = kind === 'tars' || kind === 'table';
  refuseUnless(keyed || options.captionKeys === undefined, '--caption-keys', 'tars and tables', kind);
  refuseUnless(keyed || options.meta === undefined, '--meta', 'tars and tables', kind);
  refuseUnless(
    kind !== 'icons' && kind !== 'manifest' ? true : options.captions === undefined,
    '--captions',
    'folders, tables and tars',
    kind,
  );
  return found;
}

function refuseUnless(fits: boolean, option: string, whose: string, kind: string): void {
  if (fits) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot pack: ${option} is for ${whose}, the source is of kind ${kind}; leave it out`,
  );
}

async function sourceOf(given: string, options: SourceOptions): Promise<NamedSource> {
  if (given.startsWith('icons:')) {
    const sets = given.slice('icons:'.length).split(',').filter(Boolean);
    const { side, exclude, label } = options;
    const chosen = { ...(exclude ? { exclude } : {}), ...(label === 'category' ? { labels: label } : {}) };
    return { source: { kind: 'icons', sets, side, ...chosen }, name: sets.join('-') };
  }
  if (given.endsWith('.json')) {
    const url = storeUrl(given);
    const slash = url.lastIndexOf('/');
    return { source: { kind: 'manifest', key: url.slice(slash + 1) }, name: '', inPlace: url.slice(0, slash) };
  }
  if (given.includes('://')) {
    const { captions, captionKeys, meta } = options;
    const reading = {
      ...(captions === 'none' ? { captions } : {}),
      ...(captionKeys ? { captionKeys } : {}),
      ...(meta ? { metaKeys: meta } : {}),
    };
    const name = given.split('/').findLast((part) => part !== '') ?? 'dataset';
    return { source: { kind: 'tars', reading }, name, inPlace: given };
  }
  if (TABLES.includes(path.extname(given).toLowerCase())) return tableOf(given, options);
  const isFolder = (await stat(given).catch(() => undefined))?.isDirectory() ?? false;
  if (!isFolder) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot pack ${given}: it is no folder, no table (${TABLES.join(', ')}), not icons:…, no manifest (.json) and no URL; see \`covey pack --help\``,
    );
  }
  const { captions, label } = options;
  // Pictures without captions are good for their labels, or for objectives that need neither.
  const labels = label === 'folder' || captions === 'none' ? 'folder' : 'none';
  return {
    source: { kind: 'folder', path: given, labels, ...(captions ? { captions } : {}) },
    name: path.basename(path.resolve(given)),
  };
}

function tableOf(given: string, options: SourceOptions): NamedSource {
  const { root, imageColumn, captionColumn, captions, captionKeys, meta } = options;
  const columns = {
    ...(root ? { root } : {}),
    ...(imageColumn ? { imageColumn } : {}),
    ...(captionColumn ? { captionColumn } : {}),
    ...(captions === 'none' ? { captions: false } : {}),
    ...(captionKeys ? { captionKeys } : {}),
    ...(meta ? { metaKeys: meta } : {}),
  };
  return { source: { kind: 'table', path: given, ...columns }, name: path.basename(given, path.extname(given)) };
}
