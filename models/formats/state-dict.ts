import { CoveyError } from '../../common/errors.ts';
import type { ByteSource } from './byte-source.ts';
import { type HostTensor, readSafetensorsFrom } from './safetensors.ts';
import { readTorchArchive } from './torch-archive.ts';

/** Buffers and facts that others keep among the weights; the config says the same. */
const IGNORED = /(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size|num_batches_tracked)$/;
/** What data-parallel wrappers and compilers put before every key. */
const WRAPPERS = /^(module\.|_orig_mod\.)+/;

export interface StateDict {
  /** As the file names them, without wrappers. */
  readonly tensors: Map<string, HostTensor>;
  /** The file is one of OpenAI's: their state dicts hold facts that nobody else's do. Their models use quick GELU. */
  readonly fromOpenAi: boolean;
}

/**
 * The weights of a file, safetensors or torch's zip archive, which is told by its first bytes.
 * @throws CoveyError DATA_CORRUPT or UNSUPPORTED, before anything large is allocated
 */
export async function readStateDict(source: ByteSource): Promise<StateDict> {
  let fromOpenAi = false;
  const wanted = (name: string) => {
    fromOpenAi ||= name === 'input_resolution';
    return !IGNORED.test(name);
  };
  const found = await readTensors(source, wanted);
  const wrapped = [...found.keys()].every((name) => WRAPPERS.test(name));
  const tensors = wrapped ? new Map([...found].map(([name, tensor]) => [name.replace(WRAPPERS, ''), tensor])) : found;
  return { tensors: withoutTextPrefix(tensors), fromOpenAi };
}

async function readTensors(source: ByteSource, wanted: (name: string) => boolean): Promise<Map<string, HostTensor>> {
  const start = await source.read(0, Math.min(4, source.sizeBytes));
  if (start[0] === 0x50 && start[1] === 0x4b) return readTorchArchive(source, wanted);
  if (start[0] === 0x80 && start[1]! <= 5 && start[2] !== 0) {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot read ${source.name}: it is a bare pickle, which may run anything on loading; save it with torch.save of torch 1.6 or newer, or better as safetensors`,
    );
  }
  return (await readSafetensorsFrom(source, wanted)).tensors;
}

/** open_clip's CustomTextCLIP keeps the text tower under `text.`, its CLIP at the top. */
function withoutTextPrefix(tensors: Map<string, HostTensor>): Map<string, HostTensor> {
  if (!tensors.has('text.token_embedding.weight')) return tensors;
  return new Map([...tensors].map(([name, tensor]) => [name.replace(/^text\./, ''), tensor]));
}
