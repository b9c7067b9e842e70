import { fork } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { builtModule, packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';
import { type Pretrained, visionOf } from '../../models/formats/pretrained.ts';
import { TFJS_FILES } from '../../models/formats/tfjs/export-tfjs.ts';
import { type Comparison, maxAbsDifference } from './comparison.ts';
import type { ReferenceEmbeddings } from './reference-embeddings.ts';
import type { TfjsAnswer, TfjsJob } from './tfjs-process.ts';

/** The JavaScript kernels are slow: few at once keep memory small. */
const BATCH = 4;
const TIMEOUT_MS = 10 * 60_000;

/** What running a tfjs export needs beside covey. */
export function hasTfjsConverter(): boolean {
  const require = createRequire(path.join(packageRoot(), 'package.json'));
  try {
    require.resolve('@tensorflow/tfjs-converter');
    return true;
  } catch {
    return false;
  }
}

/** Runs a tfjs export with the stock packages in a process of their own and compares every output. */
export async function compareTfjs(
  folder: string,
  model: Pretrained,
  reference: ReferenceEmbeddings,
  tolerance: number,
): Promise<Comparison[]> {
  const compare = async (
    file: string,
    input: string,
    values: TfjsValues,
    shape: readonly number[],
    expected: Float32Array,
  ) => {
    const job = { modelFile: path.join(folder, file), input, batches: [...batchesOf(values, shape)] };
    const outputs = await runJob(job);
    const found = Float32Array.from(outputs.flatMap((output) => [...output.values]));
    const difference = maxAbsDifference(found, expected);
    return { format: 'tfjs', file, output: outputs[0]!.name, maxAbsDifference: difference, tolerance };
  };
  const { imageSize } = visionOf(model);
  const picture = [imageSize, imageSize, 3];
  const results = [await compare(TFJS_FILES.vision, 'pixel_values', reference.pixels_BHWC, picture, reference.images)];
  if (model.kind === 'clip') {
    const caption = [model.config.text.contextLength];
    results.push(await compare(TFJS_FILES.text, 'input_ids', reference.ids!, caption, reference.texts!));
  }
  return results;
}

type TfjsValues = Float32Array | Int32Array;

function* batchesOf(values: TfjsValues, shape: readonly number[]): Generator<TfjsJob['batches'][number]> {
  const size = shape.reduce((product, side) => product * side, 1);
  for (let at = 0; at < values.length; at += BATCH * size) {
    const part = values.slice(at, at + BATCH * size);
    yield { shape: [part.length / size, ...shape], values: part };
  }
}

async function runJob(job: TfjsJob): Promise<readonly { readonly name: string; readonly values: Float32Array }[]> {
  const child = fork(fileURLToPath(builtModule('cli/verify/tfjs-process')), {
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    timeout: TIMEOUT_MS,
  });
  let said = '';
  child.stderr?.on('data', (chunk) => {
    said = `${said}${chunk}`.slice(-2000);
  });
  const answer = await new Promise<TfjsAnswer>((resolve) => {
    child.once('message', (message) => resolve(message as TfjsAnswer));
    child.once('exit', (code) => resolve({ problem: `its process ended with ${code}: ${said.trim()}` }));
    child.send(job);
  });
  if ('outputs' in answer) return answer.outputs;
  throw new CoveyError('DATA_CORRUPT', `Cannot run ${job.modelFile} in tfjs: ${answer.problem}`);
}
