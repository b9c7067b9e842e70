import path from 'node:path';
import { augmentSchema } from '../../common/config/augment-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { writeJsonFile } from '../../common/json-file.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import { type AdapterFile, adaptedNetwork, readAdapterFile } from '../../transfer/adapters/adapter-file.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { evenly } from '../../transfer/domain/diagnostics/domain-view.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { evaluationOf, networkLogits } from '../../transfer/tune/evaluate.ts';
import { adaptersPage, type JudgedTask } from './adapters-page.ts';
import { guessesOf, pictureRow, type ShownPicture } from './picture-section.ts';
import type { TransferSession } from './session.ts';
import { adapterInWords, percent } from './task-report.ts';

export interface AdapterEvalOptions {
  /** A file for each task. */
  readonly adapter: readonly string[];
  /** Manifests: one for all tasks, or one for each. */
  readonly data: readonly string[];
  readonly labelKey?: readonly string[];
  /** Folder for figures and report. Default: none are written. */
  readonly out?: string;
}

/** How one adapter classifies. */
export interface AdapterTask {
  readonly adapter: string;
  /** The adapter in words. */
  readonly kind: string;
  readonly classes: number;
  readonly pictures: number;
  readonly accuracy: number;
  /** Mean over the classes that occur. */
  readonly classAccuracy: number;
}

export interface AdapterResults {
  readonly backbone: string;
  /** Numbers in the backbone's weights, and in all that the tasks have beside it. */
  readonly sharedParameters: number;
  readonly taskParameters: number;
  readonly tasks: readonly AdapterTask[];
}

/**
 * How each adapter classifies its pictures. The backbone is in memory once; of a task there are the adapter, the layers that were trained with it, and
 * its head. What an adapter gives is, to the bit, what it gives alone.
 */
export async function evaluateAdapters(
  session: TransferSession,
  backbone: Backbone,
  options: AdapterEvalOptions,
): Promise<AdapterResults & { readonly files?: readonly string[] }> {
  const { adapter: files, labelKey = [], out } = options;
  checkCount('--data', options.data, files);
  checkCount('--label-key', labelKey, files);
  const read = await Promise.all(files.map(readAdapterFile));
  const bare = session.own(new TransferNetwork(backbone, { seed: 0, precision: 'fp32' }), (one) => one.dispose());
  const asked = read.map((file, i): AskedTask => {
    const key = labelKey[i] ?? labelKey[0];
    const labels = { classes: file.classes, ...(key === undefined ? {} : { labelKey: key }) };
    const network = session.own(adaptedNetwork(file, backbone, bare), (one) => one.dispose());
    return { name: files[i]!, file, network, data: options.data[i] ?? options.data[0]!, labels };
  });
  // Labels that are of no use are found before anything is computed.
  for (const { data, labels } of asked) await session.readLabels((await session.openDataset(data)).dataset, labels);
  if (out !== undefined) await makeFolder(out);
  const report = session.progress('adapters');
  const judged: JudgedTask[] = [];
  for (const one of asked) {
    judged.push(await judge(session, backbone, one, out !== undefined));
    report(judged.length, asked.length);
  }
  const count = (tensors: Iterable<{ readonly values: Float32Array }>) =>
    [...tensors].reduce((sum, { values }) => sum + values.length, 0);
  const results: AdapterResults = {
    backbone: backbone.origin,
    sharedParameters: count(backbone.weights.values()),
    taskParameters: read.reduce((sum, { tensors }) => sum + count(tensors.values()), 0),
    tasks: judged.map(({ task }) => task),
  };
  if (out === undefined) return results;
  const page = path.join(out, 'adapters.html');
  await writeJsonFile(path.join(out, 'adapters.json'), results);
  await writeWhole(page, await adaptersPage(results, judged, session.now()));
  return { ...results, files: [page] };
}

interface AskedTask {
  readonly name: string;
  readonly file: AdapterFile;
  readonly network: TransferNetwork;
  readonly data: string;
  readonly labels: { readonly classes: readonly string[]; readonly labelKey?: string };
}

const SHOWN = 12;

/** @param isShown whether somebody will look at its pictures */
async function judge(
  session: TransferSession,
  backbone: Backbone,
  { name, file, network, data, labels }: AskedTask,
  isShown: boolean,
): Promise<JudgedTask> {
  const { engine, context } = session;
  const { signal } = context;
  const pictureOptions = { imageSide: backbone.vision.imageSize, augment: augmentSchema.parse({}), seed: 0 };
  const { set, pictures } = await session.openLabelled(data, labels, pictureOptions);
  const { samples } = set;
  const { classes: classNames } = file;
  const classes = classNames.length;
  const logits_NK = await networkLogits(samples, classes, { engine, network, pictures, signal });
  const labels_N = Int32Array.from(samples, ({ label }) => label);
  const evaluation = evaluationOf(logits_NK, labels_N, classes);
  const guesses = guessesOf(logits_NK, classes);
  // Of every class, as far as there is room.
  const byClass = [...samples.keys()].sort((a, b) => samples[a]!.label - samples[b]!.label || a - b);
  const shown = evenly(byClass, SHOWN).map((n): ShownPicture => {
    const { predicted, probability } = guesses[n]!;
    const sample = samples[n]!;
    const taken = predicted === sample.label ? 'right' : `taken for ${classNames[predicted]!}`;
    return { sample, text: classNames[sample.label]!, note: `${taken}, ${percent(probability)}` };
  });
  const title = 'some of them, with label and prediction';
  const { accuracy, classAccuracy } = evaluation;
  const kind = adapterInWords(file.options);
  return {
    task: { adapter: name, kind, classes, pictures: samples.length, accuracy, classAccuracy },
    data,
    evaluation,
    classNames,
    pictures: isShown ? await pictureRow({ title, shown, pictures }, signal) : undefined,
  };
}

function checkCount(option: string, given: readonly string[], files: readonly string[]): void {
  if (given.length <= 1 || given.length === files.length) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot evaluate: there are ${files.length} adapters and ${given.length} of ${option}; give one for all or one for each`,
  );
}
