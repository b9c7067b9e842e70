import { createHash } from 'node:crypto';
import { mkdir, readFile, statfs, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { packageRoot } from '../../common/built-module.ts';
import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { writeWhole } from '../../common/whole-file.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { datasetManifestSchema, encodeJson } from '../../worker/data/manifest.ts';
import { type IconSample, iconSetCredit, iconSetSamples } from '../../worker/data/pack/icon-source.ts';
import { pack } from '../../worker/data/pack/pack.ts';
import { DEMO_MODEL, ICON_SETS, RENDER_SIDE, VOCABULARY_MAX } from './recipe.ts';

/** What the demo trains on and is judged by, packed to shards in a folder of the work directory. */
export interface DemoDataset {
  /** URLs of the manifests. */
  readonly trainManifest: string;
  readonly testManifest: string;
  /** The first shard of the training data alone: after a few steps all of it is decoded, and the pace is that of a long run. */
  readonly paceManifest: string;
  readonly tokenizer: string;
  readonly vocabSize: number;
  readonly trainSamples: number;
  /** The names the held-out set shares with the training sets, in words: the classes. One picture each. */
  readonly classNames: readonly string[];
  /** Set → who drew it, and the licence. */
  readonly credits: Readonly<Record<string, string>>;
  /** Nothing had to be rendered. */
  readonly fromCache: boolean;
}

export interface DemoDatasetOptions {
  readonly workDir: string;
  readonly heldOut: string;
}

export interface DemoDatasetModules {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onProgress: (done: number, total: number) => void;
}

/** Raise when the rendering, the captions or the choice of drawings change. */
const RECIPE_VERSION = 3;
/** Shards, checkpoints and logs of one demo, with room to spare. */
const BYTES_NEEDED = 300 * 2 ** 20;
/** Small shards, so that one alone can serve to measure the pace. */
export const SAMPLES_PER_SHARD = 512;

const cachedSchema = z.object({
  trainSamples: z.int(),
  vocabSize: z.int(),
  classNames: z.array(z.string()),
  credits: z.record(z.string(), z.string()),
});

/**
 * Renders and packs the training sets and the pictures of the held-out set, once per work directory and choice of sets: the next
 * call with the same icon packages finds everything there. No picture of the held-out set is in the training data.
 * @throws CoveyError INVALID_ARGUMENT for an unknown set, RESOURCE_EXHAUSTED for a full disk
 */
export async function prepareDataset(options: DemoDatasetOptions, modules: DemoDatasetModules): Promise<DemoDataset> {
  const { heldOut } = options;
  if (!ICON_SETS.some((set) => set === heldOut)) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot hold out ${heldOut}: there is no such icon set; choose one of ${ICON_SETS.join(', ')}`,
    );
  }
  await mkdir(options.workDir, { recursive: true });
  await checkSpace(options.workDir);
  const folder = path.join(options.workDir, 'data', `without-${heldOut}-${await inputsHash(heldOut)}`);
  const marker = path.join(folder, 'ready.json');
  const found = await readMarker(marker);
  const facts = found ?? (await packAll(folder, heldOut, modules));
  if (!found) {
    // Written last and whole: an interrupted rendering is begun again.
    await writeWhole(marker, JSON.stringify(facts));
  }
  const url = (...parts: string[]) => pathToFileURL(path.join(folder, ...parts)).href;
  return {
    ...facts,
    trainManifest: url('train', 'manifest.json'),
    testManifest: url('test', 'manifest.json'),
    paceManifest: url('train', 'pace.json'),
    tokenizer: url('train', 'tokenizer.json'),
    fromCache: found !== undefined,
  };
}

/** Drawings that differ from another one of the same set and name only in the colour of the skin: half of all drawings, and near
 * duplicates of each other. The held-out sets have none under shared names, or the plain one as well. */
export function isSkinToneVariant(name: string): boolean {
  return name.includes('skin-tone');
}

/** The training drawings and the test drawings: those of the held-out set whose name a training drawing has. */
export function splitSets(
  samples: readonly IconSample[],
  heldOut: string,
): { train: IconSample[]; test: IconSample[] } {
  const train = samples.filter((sample) => sample.set !== heldOut && !isSkinToneVariant(sample.name));
  const names = new Set(train.map((sample) => sample.name));
  return { train, test: samples.filter((sample) => sample.set === heldOut && names.has(sample.name)) };
}

async function packAll(
  folder: string,
  heldOut: string,
  modules: DemoDatasetModules,
): Promise<z.infer<typeof cachedSchema>> {
  const { train, test } = splitSets(iconSetSamples(ICON_SETS, { side: RENDER_SIDE }), heldOut);
  const total = train.length + test.length;
  const chosen = { train: new Set(train.map(idOf)), test: new Set(test.map(idOf)) };
  await packPart(
    'train',
    ICON_SETS.filter((set) => set !== heldOut),
    (done) => modules.onProgress(done, total),
  );
  await packPart('test', [heldOut], (done) => modules.onProgress(train.length + done, total));
  await writePaceManifest(path.join(folder, 'train'));
  const tokenizerJson = trainBpe(
    train.map((sample) => sample.caption),
    { vocabSize: VOCABULARY_MAX },
  );
  await writeFile(path.join(folder, 'train', 'tokenizer.json'), tokenizerJson);
  const { vocabSize } = await loadTokenizer(tokenizerJson, DEMO_MODEL.text.contextLength);
  return {
    trainSamples: train.length,
    vocabSize,
    classNames: test.map((sample) => sample.caption),
    credits: Object.fromEntries(ICON_SETS.map((set) => [set, iconSetCredit(set)])),
  };

  async function packPart(
    part: 'train' | 'test',
    sets: readonly string[],
    onDone: (done: number) => void,
  ): Promise<void> {
    const store = openObjectStore(pathToFileURL(path.join(folder, part)).href, modules);
    try {
      await pack(
        {
          name: `emoji-${part}`,
          source: { kind: 'icons', sets, side: RENDER_SIDE, keep: (sample) => chosen[part].has(idOf(sample)) },
          destination: store,
          samplesPerShardMax: SAMPLES_PER_SHARD,
        },
        {
          logger: modules.logger,
          signal: modules.signal,
          onProgress: ({ packed, skipped }) => onDone(packed + skipped),
        },
      );
    } finally {
      await store.close();
    }
  }
}

async function writePaceManifest(folder: string): Promise<void> {
  const manifest = datasetManifestSchema.parse(JSON.parse(await readFile(path.join(folder, 'manifest.json'), 'utf8')));
  const first = manifest.shards[0]!;
  const pace = { ...manifest, name: 'emoji-pace', shards: [first], sampleCount: first.samples };
  await writeFile(path.join(folder, 'pace.json'), encodeJson(pace));
}

const idOf = (sample: IconSample) => `${sample.set}:${sample.name}`;

async function readMarker(marker: string): Promise<z.infer<typeof cachedSchema> | undefined> {
  let text: string;
  try {
    text = await readFile(marker, 'utf8');
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT') return undefined;
    throw CoveyError.from(thrown);
  }
  const parsed = cachedSchema.safeParse(JSON.parse(text));
  return parsed.success ? parsed.data : undefined;
}

/** Of everything the packed data depends on. */
async function inputsHash(heldOut: string): Promise<string> {
  const versions = await Promise.all(ICON_SETS.map(async (set) => `${set}@${await packageVersion(set)}`));
  const inputs = JSON.stringify([RECIPE_VERSION, heldOut, versions, RENDER_SIDE, VOCABULARY_MAX, SAMPLES_PER_SHARD]);
  return createHash('sha256').update(inputs).digest('hex').slice(0, 12);
}

async function packageVersion(set: string): Promise<string> {
  const file = path.join(packageRoot(), 'node_modules', '@iconify-json', set, 'package.json');
  try {
    return z.object({ version: z.string() }).parse(JSON.parse(await readFile(file, 'utf8'))).version;
  } catch (thrown) {
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot use icon set ${set}: @iconify-json/${set} is not installed; run \`npm ci\``,
      { cause: thrown },
    );
  }
}

async function checkSpace(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= BYTES_NEEDED) return;
  const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20);
  throw new CoveyError(
    'RESOURCE_EXHAUSTED',
    `Cannot prepare the demo: ${folder} has ${mebibytes(free)} MiB free, ${mebibytes(BYTES_NEEDED)} MiB are needed; make room or choose another folder with --work-dir`,
    { fields: { folder, free, needed: BYTES_NEEDED } },
  );
}
