import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader, type ZipFile } from 'yauzl';
import { CoveyError } from '../../common/errors.ts';
import { elementCount } from '../clip/parameter-shapes.ts';
import type { ByteSource } from './byte-source.ts';
import { widenBfloat16, widenFloat16 } from './float16.ts';
import { type PickleValue, readPickle, TensorView } from './restricted-pickle.ts';
import type { HostTensor } from './safetensors.ts';

/**
 * What `torch.save(state_dict)` writes: a zip of stored files, `NAME/data.pkl` and `NAME/data/KEY` for each storage. The pickle is read
 * by restricted-pickle.ts, which executes nothing.
 */

const PICKLE_BYTES_MAX = 16 * 2 ** 20;
const FILES_MAX = 100_000;

/** Bytes of an element and how it is widened, by torch's name of the storage. */
const STORAGES: Readonly<Record<string, { bytes: number; read: (bytes: ArrayBuffer) => Float32Array }>> = {
  FloatStorage: { bytes: 4, read: (bytes) => new Float32Array(bytes) },
  HalfStorage: { bytes: 2, read: (bytes) => widenFloat16(new Uint16Array(bytes)) },
  BFloat16Storage: { bytes: 2, read: (bytes) => widenBfloat16(new Uint16Array(bytes)) },
};

/**
 * The tensors of a state dict, or of the `state_dict` in a training checkpoint.
 * @param wanted leaves out tensors by name, of whatever element type
 * @throws CoveyError UNSUPPORTED for TorchScript, other objects and element types; DATA_CORRUPT for what is no whole archive
 */
export async function readTorchArchive(
  source: ByteSource,
  wanted: (name: string) => boolean,
): Promise<Map<string, HostTensor>> {
  const { zip, entries } = await openZip(source);
  const file = [...entries.keys()].find((name) => name.endsWith('/data.pkl'));
  if (file === undefined) throw corrupt(source, 'it has no data.pkl');
  const prefix = file.slice(0, -'data.pkl'.length);
  if ([...entries.keys()].some((name) => name.startsWith(`${prefix}code/`))) {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot read ${source.name}: it is a TorchScript program; save its state dict with torch.save(torch.jit.load(FILE).state_dict(), OUT)`,
    );
  }
  const read = (name: string, bytesMax: number) => readEntry(source, zip, entries.get(name), name, bytesMax);
  if (entries.has(`${prefix}byteorder`)) {
    const order = new TextDecoder().decode(await read(`${prefix}byteorder`, 16));
    if (order !== 'little') throw corrupt(source, `its byte order is ${order}, not little`);
  }
  const views = stateDictOf(readPickle(await read(file, PICKLE_BYTES_MAX), source.name), source);
  for (const name of views.keys()) if (!wanted(name)) views.delete(name);
  checkSizes(views, source);
  const byStorage = new Map<string, [string, TensorView][]>();
  for (const [name, view] of views) {
    const { key } = view.storage;
    byStorage.set(key, [...(byStorage.get(key) ?? []), [name, view]]);
  }
  // In the order of the dict, whatever storages its tensors share.
  const tensors = new Map<string, HostTensor>([...views.keys()].map((name) => [name, EMPTY]));
  for (const [key, members] of byStorage) {
    const { type, elements } = members[0]![1].storage;
    const reader = STORAGES[type]!;
    const bytes = await read(`${prefix}data/${key}`, source.sizeBytes);
    if (bytes.length !== elements * reader.bytes || members.some(([, view]) => view.storage.elements !== elements)) {
      throw corrupt(source, `storage ${key} has ${bytes.length} bytes for ${elements} values`);
    }
    const values = reader.read(bytes.buffer as ArrayBuffer);
    for (const [name, view] of members) tensors.set(name, { shape: view.shape, values: gathered(view, values) });
  }
  return tensors;
}

const EMPTY: HostTensor = { shape: [0], values: new Float32Array(0) };

/** Everything is checked before a storage is read: many tensors on one storage must not grow to more than the file holds. */
function checkSizes(views: ReadonlyMap<string, TensorView>, source: ByteSource): void {
  let bytes = 0;
  for (const [name, { storage, shape }] of views) {
    const type = Object.hasOwn(STORAGES, storage.type) ? STORAGES[storage.type] : undefined;
    if (!type) {
      throw new CoveyError(
        'UNSUPPORTED',
        `Cannot read ${source.name}: '${name}' is in a ${storage.type}; covey reads ${Object.keys(STORAGES).join(', ')}`,
        { fields: { name, type: storage.type } },
      );
    }
    bytes += elementCount(shape) * type.bytes;
  }
  if (bytes > source.sizeBytes)
    throw corrupt(source, `its tensors claim ${bytes} bytes, the file has ${source.sizeBytes}`);
}

function stateDictOf(value: PickleValue, source: ByteSource): Map<string, TensorView> {
  const nested = value instanceof Map ? (value.get('state_dict') ?? value.get('model')) : undefined;
  const dict = nested instanceof Map ? nested : value;
  const views = new Map<string, TensorView>();
  if (dict instanceof Map) {
    for (const [name, view] of dict) if (typeof name === 'string' && view instanceof TensorView) views.set(name, view);
  }
  if (views.size > 0) return views;
  throw new CoveyError('UNSUPPORTED', `Cannot read ${source.name}: its pickle holds no state dict`);
}

/** The view's values in order. */
function gathered({ offset, shape, strides }: TensorView, storage: Float32Array): Float32Array {
  const count = elementCount(shape);
  const dense = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  if (shape.every((size, axis) => size === 1 || strides[axis] === dense[axis]))
    return storage.slice(offset, offset + count);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let from = offset;
    for (const [axis, size] of shape.entries()) from += (Math.floor(i / dense[axis]!) % size) * strides[axis]!;
    values[i] = storage[from]!;
  }
  return values;
}

/** Lets yauzl read from a source. */
class SourceReader extends RandomAccessReader {
  readonly #source: ByteSource;

  constructor(source: ByteSource) {
    super();
    this.#source = source;
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null) => void,
  ): void {
    this.#source.read(position, length).then((bytes) => {
      buffer.set(bytes, offset);
      callback(null);
    }, callback);
  }
}

async function openZip(source: ByteSource): Promise<{ zip: ZipFile; entries: Map<string, Entry> }> {
  try {
    const zip = await fromRandomAccessReaderPromise(new SourceReader(source), source.sizeBytes, { autoClose: false });
    const entries = new Map<string, Entry>();
    if (zip.entryCount > FILES_MAX) throw corrupt(source, `it has ${zip.entryCount} files`);
    for await (const entry of zip.eachEntry()) entries.set(entry.fileName, entry);
    return { zip, entries };
  } catch (thrown) {
    if (CoveyError.is(thrown)) throw thrown;
    throw corrupt(source, CoveyError.from(thrown).message, thrown);
  }
}

async function readEntry(
  source: ByteSource,
  zip: ZipFile,
  entry: Entry | undefined,
  name: string,
  bytesMax: number,
): Promise<Uint8Array> {
  if (!entry) throw corrupt(source, `it has no ${name}`);
  if (entry.compressionMethod !== 0 || entry.isEncrypted()) throw corrupt(source, `${name} is compressed or encrypted`);
  if (entry.uncompressedSize > bytesMax) {
    throw corrupt(source, `${name} has ${entry.uncompressedSize} bytes, at most ${bytesMax} are expected`);
  }
  try {
    const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
    return await source.read(fileDataStart, entry.uncompressedSize);
  } catch (thrown) {
    throw CoveyError.is(thrown) ? thrown : corrupt(source, CoveyError.from(thrown).message, thrown);
  }
}

function corrupt(source: ByteSource, reason: string, cause?: unknown): CoveyError {
  return new CoveyError('DATA_CORRUPT', `Cannot read ${source.name}: ${reason}; fetch the file again`, { cause });
}
