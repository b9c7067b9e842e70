import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { CoveyError, throwIfAborted } from '../../../common/errors.ts';
import { IMAGE_EXTENSIONS } from '../tar-samples.ts';
import { byCodePoint, type Candidate, type SourceItem, skip } from './candidate.ts';

export interface FolderSourceOptions {
  readonly path: string;
  /**
   * `text`: a `.txt` of the same stem. `folder`: the name of the folder it lies in. `auto`: the first where there is one, else the second.
   * `none`: no captions, and text files are passed over.
   */
  readonly captions?: 'auto' | 'text' | 'folder' | 'none';
  /** `folder`: the label is the name of the outermost folder, as in torchvision's ImageFolder. */
  readonly labels?: 'folder' | 'none';
  /** Larger files are left out. */
  readonly fileBytesMax: number;
}

/** Pictures under a folder, in path order. Links are not followed. */
export async function* folderSource(options: FolderSourceOptions, signal?: AbortSignal): AsyncGenerator<SourceItem> {
  const found = await stat(options.path).catch(() => undefined);
  if (!found?.isDirectory()) throw new CoveyError('NOT_FOUND', `Cannot pack a folder: ${options.path} is not one`);
  yield* walk(options, '', signal);
}

async function* walk(options: FolderSourceOptions, folder: string, signal?: AbortSignal): AsyncGenerator<SourceItem> {
  throwIfAborted(signal);
  const entries = await readdir(path.join(options.path, folder), { withFileTypes: true });
  entries.sort((a, b) => byCodePoint(a.name, b.name));
  const files = new Set(entries.filter((entry) => entry.isFile()).map((entry) => entry.name));
  const stems = new Set<string>();
  for (const name of files) if (isImage(name)) stems.add(stemOf(name));
  for (const entry of entries) {
    const relative = path.posix.join(folder, entry.name);
    if (entry.name.startsWith('.')) continue;
    if (entry.isDirectory()) yield* walk(options, relative, signal);
    else if (entry.isSymbolicLink()) yield skip(relative, 'link');
    else if (isImage(entry.name)) yield await imageItem(options, folder, entry.name, files, signal);
    else if (options.captions !== 'none' && entry.name.endsWith('.txt') && !stems.has(stemOf(entry.name)))
      yield skip(relative, 'caption-without-image');
  }
}

async function imageItem(
  options: FolderSourceOptions,
  folder: string,
  name: string,
  files: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<SourceItem> {
  const relative = path.posix.join(folder, name);
  const mode = options.captions ?? 'auto';
  const textName = `${stemOf(name)}.txt`;
  let caption = '';
  if (mode === 'none') caption = '';
  else if (mode !== 'folder' && files.has(textName))
    caption = (await readFile(path.join(options.path, folder, textName), 'utf8')).trim();
  else if (mode !== 'text' && folder !== '') caption = wordsOf(path.posix.basename(folder));
  if (caption === '' && mode !== 'none') return skip(relative, 'image-without-caption');
  const label = options.labels === 'folder' ? folder.split('/')[0]! : '';
  const item: Candidate = {
    kind: 'candidate',
    name: relative,
    captions: caption === '' ? [] : [caption],
    ...(label === '' ? {} : { label }),
    meta: { path: relative },
    load: () => loadFile(path.join(options.path, relative), options.fileBytesMax, signal),
  };
  return item;
}

/** A file's bytes. Throws DATA_CORRUPT with `fields.reason` = over-large instead of reading what is too large. */
export async function loadFile(file: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array> {
  const found = await stat(file).catch(() => undefined);
  if (found === undefined || !found.isFile()) {
    throw new CoveyError('DATA_CORRUPT', `Cannot read ${file}: no such file`, { fields: { reason: 'missing-file' } });
  }
  if (found.size > bytesMax) {
    throw new CoveyError('DATA_CORRUPT', `Cannot pack ${file}: ${found.size} bytes are more than ${bytesMax}`, {
      fields: { reason: 'over-large' },
    });
  }
  return readFile(file, signal === undefined ? {} : { signal });
}

/** By its extension. */
export function isImage(name: string): boolean {
  return (IMAGE_EXTENSIONS as readonly string[]).includes(path.extname(name).slice(1).toLowerCase());
}

function stemOf(name: string): string {
  return name.slice(0, name.length - path.extname(name).length);
}

/** `golden-retriever`, `golden_retriever` → `golden retriever`. */
export function wordsOf(name: string): string {
  return name.replace(/[-_\s]+/g, ' ').trim();
}
