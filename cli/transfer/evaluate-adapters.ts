import { augmentSchema } from '../../common/config/augment-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { adaptedNetwork, readAdapterFile } from '../../transfer/adapters/adapter-file.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { evaluateNetwork } from '../../transfer/tune/evaluate.ts';
import type { TransferSession } from './session.ts';
import { adapterInWords } from './task-report.ts';

export interface AdapterEvalOptions {
  /** A file for each task. */
  readonly adapter: readonly string[];
  /** Manifests: one for all tasks, or one for each. */
  readonly data: readonly string[];
  readonly labelKey?: readonly string[];
}

/**
 * How each adapter classifies its pictures. The backbone is in memory once; of a task there are the adapter, the layers that were trained with it, and
 * its head. What an adapter gives is, to the bit, what it gives alone.
 */
export async function evaluateAdapters(session: TransferSession, backbone: Backbone, options: AdapterEvalOptions) {
  const { adapter: files, labelKey = [] } = options;
  checkCount('--data', options.data, files);
  checkCount('--label-key', labelKey, files);
  const read = await Promise.all(files.map(readAdapterFile));
  const { engine, context } = session;
  const { signal } = context;
  const bare = session.own(new TransferNetwork(backbone, { seed: 0, precision: 'fp32' }), (one) => one.dispose());
  const networks = read.map((file) => session.own(adaptedNetwork(file, backbone, bare), (one) => one.dispose()));
  const report = session.progress('adapters');
  const tasks = [];
  for (const [i, file] of read.entries()) {
    const key = labelKey[i] ?? labelKey[0];
    const labels = { classes: file.classes, ...(key === undefined ? {} : { labelKey: key }) };
    const pictureOptions = { imageSide: backbone.vision.imageSize, augment: augmentSchema.parse({}), seed: 0 };
    const { set, pictures } = await session.openLabelled(options.data[i] ?? options.data[0]!, labels, pictureOptions);
    const modules = { engine, network: networks[i]!, pictures, signal };
    const { samples, accuracy, classAccuracy } = await evaluateNetwork(set.samples, file.classes.length, modules);
    const kind = adapterInWords(file.options);
    tasks.push({ adapter: files[i]!, kind, classes: file.classes.length, pictures: samples, accuracy, classAccuracy });
    report(i + 1, read.length);
  }
  const count = (tensors: Iterable<{ readonly values: Float32Array }>) =>
    [...tensors].reduce((sum, { values }) => sum + values.length, 0);
  return {
    backbone: backbone.origin,
    sharedParameters: count(backbone.weights.values()),
    taskParameters: read.reduce((sum, { tensors }) => sum + count(tensors.values()), 0),
    tasks,
  };
}

function checkCount(option: string, given: readonly string[], files: readonly string[]): void {
  if (given.length <= 1 || given.length === files.length) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot evaluate: there are ${files.length} adapters and ${given.length} of ${option}; give one for all or one for each`,
  );
}
