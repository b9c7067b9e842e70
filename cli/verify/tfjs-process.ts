import { readFile } from 'node:fs/promises';
import path from 'node:path';
// The stock packages, as any other program uses them, in a process of their own: covey's tfjs has another registry and other kernels.
import '@tensorflow/tfjs-backend-cpu';
import * as converter from '@tensorflow/tfjs-converter';
import * as tf from '@tensorflow/tfjs-core';

/** One graph model and what to feed it, batch by batch. Sent by compare-tfjs.ts. */
export interface TfjsJob {
  readonly modelFile: string;
  readonly input: string;
  readonly batches: readonly { readonly shape: readonly number[]; readonly values: Float32Array | Int32Array }[];
}

export type TfjsAnswer =
  | { readonly outputs: readonly { readonly name: string; readonly values: Float32Array }[] }
  | { readonly problem: string };

async function loadModel(modelFile: string): Promise<converter.GraphModel> {
  const { modelTopology, weightsManifest, signature, format, generatedBy } = JSON.parse(
    await readFile(modelFile, 'utf8'),
  );
  const { paths, weights } = weightsManifest[0] as { paths: string[]; weights: tf.io.WeightsManifestEntry[] };
  const shards = await Promise.all(paths.map((name) => readFile(path.join(path.dirname(modelFile), name))));
  const weightData = new Uint8Array(Buffer.concat(shards)).buffer;
  return converter.loadGraphModel({
    load: async () => ({ modelTopology, weightSpecs: weights, weightData, signature, format, generatedBy }),
  });
}

async function answer(job: TfjsJob): Promise<TfjsAnswer> {
  await tf.ready();
  const model = await loadModel(job.modelFile);
  const outputs: { name: string; values: Float32Array }[] = [];
  for (const { shape, values } of job.batches) {
    const dtype = values instanceof Float32Array ? 'float32' : 'int32';
    const input = tf.tensor(values, [...shape], dtype);
    const output = model.predict({ [job.input]: input }) as tf.Tensor;
    outputs.push({ name: model.outputs[0]?.name ?? '', values: (await output.data()) as Float32Array });
    input.dispose();
    output.dispose();
  }
  model.dispose();
  return { outputs };
}

process.once('message', (job: TfjsJob) => {
  const send = (message: TfjsAnswer) => process.send?.(message, () => process.disconnect());
  answer({ ...job }).then(send, (thrown: unknown) =>
    send({ problem: thrown instanceof Error ? thrown.message : String(thrown) }),
  );
});
