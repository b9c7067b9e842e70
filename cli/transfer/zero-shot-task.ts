import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import type { LabelledSet } from '../../transfer/data/labelled-set.ts';
import type { EmbeddingStore } from '../../transfer/features/embedding-store.ts';
import type { PromptClass } from '../../transfer/zero-shot/class-list.ts';
import type { JointModel } from '../../transfer/zero-shot/joint-model.ts';
import type { Embeddings } from '../../worker/eval/classify.ts';
import { openBackbone } from './backbone-options.ts';
import { embedInto, prepareFolder } from './embed-into.ts';
import { type PromptOptions, promptClassesOf } from './prompt-options.ts';
import type { OpenedDataset, TransferSession } from './session.ts';

/** Everything that classifying by texts needs, pictures embedded. */
export interface ZeroShotTask extends OpenedDataset {
  readonly model: JointModel;
  readonly classes: readonly PromptClass[];
  /** Rows are the labelled pictures that can be read. */
  readonly embeddings: Embeddings;
  readonly labels_N: Int32Array;
  /** Ids and all captions of the rows. */
  readonly keys: readonly string[];
  readonly captions: readonly (readonly string[])[];
  /** Where embeddings of texts are kept. */
  readonly textsFolder: string | undefined;
}

/**
 * Opens data and model and embeds the pictures, or takes the embeddings that are in the output folder already. What is wrong with classes, labels or model
 * is said before anything is computed.
 * @param out the output folder; without it nothing is kept
 */
export async function openZeroShotTask(
  session: TransferSession,
  source: string,
  options: PromptOptions,
  out: string | undefined,
): Promise<ZeroShotTask> {
  const { JointModel } = await import('../../transfer/zero-shot/joint-model.ts');
  const { SampleRows } = await import('../../transfer/features/sample-rows.ts');
  const { context, engine } = session;
  const given = await promptClassesOf(options.classes);
  const opened = await session.openDataset(options.data);
  const { set, classes } = await readClasses(session, opened, given, options);
  const { backbone, text } = await openBackbone(context, source, options);
  const whole = await text('name a CLIP or SigLIP with both towers, or classify by examples with `covey probe`');
  const model = session.own(new JointModel(whole, backbone, engine), (one) => one.dispose());
  const store = await embeddingStore(model, opened, options.data, out);
  await embedInto(session, model, opened, store);
  const rows = new SampleRows(await store.readAll());
  const samples = set.samples.filter((sample) => rows.has(sample));
  if (samples.length === 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot classify the pictures of ${options.data}: none of the ${set.samples.length} labelled ones can be read; look at the files it was packed from, and pack it again`,
    );
  }
  return {
    ...opened,
    model,
    classes,
    embeddings: { values_NE: rows.of(samples), columns: rows.columns },
    labels_N: Int32Array.from(samples, ({ label }) => label),
    keys: samples.map(({ located }) => located.sampleId),
    captions: samples.map(({ located }) => located.record.captions),
    textsFolder: out === undefined ? undefined : path.join(out, 'texts'),
  };
}

async function readClasses(
  session: TransferSession,
  { dataset }: OpenedDataset,
  given: readonly PromptClass[] | undefined,
  options: PromptOptions,
): Promise<{ readonly set: LabelledSet; readonly classes: readonly PromptClass[] }> {
  const { readLabelledSet } = await import('../../transfer/data/labelled-set.ts');
  const { namedClasses } = await import('../../transfer/zero-shot/class-list.ts');
  // Names of another key's values are not the manifest's.
  const listed = options.labelKey === undefined ? dataset.classes : undefined;
  const names = given?.map(({ name }) => name) ?? listed;
  const labels = { metaKey: options.labelKey, classes: names, orCaption: options.labelKey === undefined };
  const set = await readLabelledSet(dataset, labels, session.context.signal);
  if (names === undefined && set.classes.every((name) => /^\d+$/.test(name))) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot make texts of the classes of ${options.data}: its labels are numbers (${set.classes.slice(0, 3).join(', ')} …) and nothing names them; list the names in their order in a file and give it with --classes`,
    );
  }
  session.sayUnlabelled(set, dataset);
  return { set, classes: given ?? namedClasses(set.classes, dataset.manifest.name) };
}

async function embeddingStore(
  model: JointModel,
  opened: OpenedDataset,
  manifest: string,
  out: string | undefined,
): Promise<EmbeddingStore> {
  const { EmbeddingMemory } = await import('../../transfer/features/embedding-store.ts');
  if (out === undefined) return new EmbeddingMemory({ columns: model.columns, normalised: true });
  return prepareFolder(model, opened, {
    out: path.join(out, 'pictures'),
    manifest,
    formats: ['npy'],
    normalised: true,
  });
}
