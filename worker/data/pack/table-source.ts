import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parse } from 'csv-parse';
import { CoveyError, throwIfAborted } from '../../../common/errors.ts';
import { captionsFrom } from '../tar-samples.ts';
import { type Candidate, type SourceItem, skip } from './candidate.ts';
import { loadFile } from './folder-source.ts';

const IMAGE_COLUMNS = ['image', 'filepath', 'path', 'file', 'filename', 'file_name', 'image_path'];
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const CAPTION_COLUMNS = ['caption', 'captions', 'title', 'text'];

export interface TableSourceOptions {
  /** `.csv`, `.tsv` or `.jsonl`. */
  readonly path: string;
  /** Folder the pictures' paths are relative to, and must stay in. Default: the table's. */
  readonly root?: string;
  /** Default: the first of the usual names that the table has. */
  readonly imageColumn?: string;
  readonly captionColumn?: string;
  /** Several columns of captions, kept with their names as sources; instead of `captionColumn`. */
  readonly captionKeys?: readonly string[];
  /** False: no captions. Default true. */
  readonly captions?: boolean;
  /** Columns that are kept in the index as `meta`. */
  readonly metaKeys?: readonly string[];
  readonly fileBytesMax: number;
}

/** Rows of path and caption, in their order. A JSONL row may hold an array of captions. */
export async function* tableSource(options: TableSourceOptions, signal?: AbortSignal): AsyncGenerator<SourceItem> {
  const found = await stat(options.path).catch(() => undefined);
  if (!found?.isFile()) throw new CoveyError('NOT_FOUND', `Cannot pack a table: ${options.path} is not a file`);
  const root = path.resolve(options.root ?? path.dirname(options.path));
  let line = 0;
  for await (const row of rowsOf(options.path)) {
    throwIfAborted(signal);
    line++;
    yield rowItem(row, `row ${line}`, root, options, signal);
  }
}

type Row = Readonly<Record<string, unknown>>;

/** Rows as records; undefined for a line that is not one. */
async function* rowsOf(file: string): AsyncGenerator<Row | undefined> {
  const extension = path.extname(file).toLowerCase();
  if (extension === '.jsonl' || extension === '.ndjson') {
    yield* jsonRows(file);
  } else if (extension === '.csv' || extension === '.tsv') {
    const parser = createReadStream(file).pipe(
      parse({
        columns: true,
        bom: true,
        trim: true,
        skip_empty_lines: true,
        relax_column_count: true,
        delimiter: extension === '.tsv' ? '\t' : ',',
      }),
    );
    try {
      for await (const row of parser as AsyncIterable<Row>) yield row;
    } catch (thrown) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot read the table ${file}: ${thrown instanceof Error ? thrown.message : thrown}`,
        { cause: thrown },
      );
    }
  } else {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot pack a table: ${file} ends in ${extension || 'nothing'}; give .csv, .tsv or .jsonl`,
    );
  }
}

async function* jsonRows(file: string): AsyncGenerator<Row | undefined> {
  const lines = createInterface({ input: createReadStream(file), crlfDelay: Number.POSITIVE_INFINITY });
  for await (const line of lines) {
    if (line.trim() === '') continue;
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch {
      // Counted by the caller as a row that is not JSON.
      row = undefined;
    }
    yield row !== null && typeof row === 'object' ? (row as Row) : undefined;
  }
}

function rowItem(
  row: Row | undefined,
  at: string,
  root: string,
  options: TableSourceOptions,
  signal?: AbortSignal,
): SourceItem {
  if (row === undefined) return skip(at, 'not-json');
  const imageColumn = column(row, options.imageColumn, IMAGE_COLUMNS, 'picture');
  const described = captionsOf(row, options);
  const image = String(row[imageColumn] ?? '').trim();
  if (image === '') return skip(at, 'caption-without-image');
  const file = path.resolve(root, image);
  if (image.includes('\0') || !file.startsWith(root + path.sep)) return skip(image, 'traversal-name');
  if (options.captions !== false && described.captions.length === 0) return skip(image, 'image-without-caption');
  const relative = path.relative(root, file);
  return {
    kind: 'candidate',
    name: relative,
    ...described,
    meta: { path: relative, ...columnsOf(row, options.metaKeys ?? []) },
    columns: columnsOf(row, Object.keys(row)),
    load: () => loadFile(file, options.fileBytesMax, signal),
  };
}

function captionsOf(row: Row, options: TableSourceOptions): Pick<Candidate, 'captions' | 'captionSources'> {
  if (options.captions === false) return { captions: [] };
  if (options.captionKeys !== undefined) {
    for (const name of options.captionKeys) column(row, name, [], 'caption');
    return captionsFrom(options.captionKeys, (name) => row[name]);
  }
  const captionColumn = column(row, options.captionColumn, CAPTION_COLUMNS, 'caption');
  const captions = [row[captionColumn]]
    .flat()
    .map((caption) => String(caption ?? '').trim())
    .filter((caption) => caption !== '');
  return { captions };
}

/** Scalars by name. A CSV has only text: what reads as a number is one, and nothing at all is missing. */
function columnsOf(row: Row, names: readonly string[]): NonNullable<Candidate['meta']> {
  const columns: NonNullable<Candidate['meta']> = {};
  for (const name of names) {
    const value = row[name];
    if (value === null || value === '' || typeof value === 'number' || typeof value === 'boolean')
      columns[name] = value === '' ? null : value;
    else if (typeof value === 'string') columns[name] = NUMBER.test(value) ? Number(value) : value;
  }
  return columns;
}

function column(row: Row, wanted: string | undefined, usual: readonly string[], what: string): string {
  const name = wanted ?? usual.find((one) => one in row);
  if (name !== undefined && name in row) return name;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot pack a table: no ${what} column: it has ${Object.keys(row).join(', ')}; name one (${wanted ?? `usual: ${usual.join(', ')}`})`,
  );
}
