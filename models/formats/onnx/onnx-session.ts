import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { CoveyError } from '../../../common/errors.ts';
import type { HostTensor } from '../safetensors.ts';

/** Integers for a graph; floats are HostTensors. */
export interface IntegerTensor {
  readonly shape: readonly number[];
  readonly values: Int32Array;
}

/** An ONNX file ready to run on the CPU. Close with `close`. */
export interface OnnxSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  run(inputs: Readonly<Record<string, HostTensor | IntegerTensor>>): Promise<Record<string, HostTensor>>;
  close(): Promise<void>;
}

/**
 * Opens a graph in onnxruntime-node, which is an optional package.
 * @throws CoveyError UNSUPPORTED where it is not installed, DATA_CORRUPT where it refuses the file
 */
export async function openOnnx(file: string, threads = 1): Promise<OnnxSession> {
  const ort = await import('onnxruntime-node').catch((thrown: unknown) => {
    throw new CoveyError(
      'UNSUPPORTED',
      'Cannot run ONNX: onnxruntime-node is not installed; npm install --ignore-scripts onnxruntime-node',
      { cause: thrown },
    );
  });
  let session: InferenceSession;
  try {
    session = await ort.InferenceSession.create(file, { intraOpNumThreads: threads, executionProviders: ['cpu'] });
  } catch (thrown) {
    throw new CoveyError('DATA_CORRUPT', `Cannot run ${file}: ${CoveyError.from(thrown).message}`, { cause: thrown });
  }
  const toOrt = ({ shape, values }: HostTensor | IntegerTensor): OrtTensor =>
    values instanceof Float32Array
      ? new ort.Tensor('float32', values, shape)
      : new ort.Tensor('int64', BigInt64Array.from(values, BigInt), shape);
  return {
    inputNames: session.inputNames,
    outputNames: session.outputNames,
    run: async (inputs) => {
      const feeds = Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, toOrt(tensor)]));
      const results = await session.run(feeds);
      return Object.fromEntries(
        Object.entries(results).map(([name, { dims, data }]) => [name, { shape: dims, values: data as Float32Array }]),
      );
    },
    close: () => session.release(),
  };
}
