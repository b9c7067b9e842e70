import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBackbone } from '../../cli/transfer/backbone-options.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { systemClock } from '../../common/clock.ts';
import { type ModelConfig, type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import type { VisionConfig } from '../../common/config/vision-config.ts';
import { type Engine, loadEngine, type Tensor, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { MaeModel } from '../../models/vision/mae-model.ts';
import { MomentumModel } from '../../models/vision/momentum-model.ts';
import { ViewModel } from '../../models/vision/view-model.ts';
import { pretrainedBackbone } from '../../transfer/backbone.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { writeCheckpoint } from '../../worker/checkpoint/write-checkpoint.ts';
import { JointModel } from '../../worker/objectives/joint.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { StateView, stateBytes } from '../../worker/train/state-layout.ts';
import { batchOf, GLOBAL_BATCH, LANES, laneOf, MODEL } from '../objectives/objective-case.ts';
import { commandContext } from '../support/command-context.ts';
import { fileStore, temporaryFolder } from '../support/datasets.ts';
import { randomPixels } from './small-backbone.ts';

const STEPS = 3;
const SMALL_VIT = { imageSize: 16, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 2 } as const;
const SIGLIP: VisionConfig = { ...SMALL_VIT, pooling: 'map', lnPre: false, patchBias: true, layerNormEps: 1e-6 };
const MAE: VisionConfig = {
  ...SMALL_VIT,
  patchSize: 4,
  lnPre: false,
  patchBias: true,
  positions: 'sincos',
  layerNormEps: 1e-6,
};
const RESNET: VisionConfig = { kind: 'resnet', imageSize: 16, depth: 18, stem: 'cifar', width: 8 };
const CLIP_RESNET: VisionConfig = {
  kind: 'modified-resnet',
  imageSize: 32,
  blocks: [1, 1, 1, 1],
  width: 8,
  headWidth: 32,
};
const DECODER = { width: 24, layers: 1, headWidth: 12 };

interface Source {
  readonly title: string;
  readonly objective: RunConfig['objective'];
  readonly loss?: object;
  readonly model?: Partial<ModelConfig>;
  /** Something that training has and transfer does not take along. */
  readonly left: RegExp;
}

const SOURCES: readonly Source[] = [
  { title: 'clip', objective: 'clip', left: /^text_projection$/ },
  { title: 'clip over CLIP’s ResNet', objective: 'clip', model: { vision: CLIP_RESNET }, left: /attnpool\.c_proj/ },
  { title: 'siglip', objective: 'siglip', model: { vision: SIGLIP, initLogitBias: -10 }, left: /^logit_bias$/ },
  { title: 'simclr', objective: 'simclr', left: /^head\./ },
  { title: 'simclr over a ResNet', objective: 'simclr', model: { vision: RESNET }, left: /^head\./ },
  { title: 'supcon', objective: 'supcon', loss: { classes: 4 }, left: /^head\./ },
  { title: 'supervised', objective: 'supervised', loss: { classes: 4 }, left: /^head\./ },
  {
    title: 'moco-v2 over a ResNet',
    objective: 'moco-v2',
    loss: { moco: { queue: 24 } },
    model: { vision: RESNET },
    left: /^queue/,
  },
  { title: 'moco-v3', objective: 'moco-v3', loss: { moco: { width: 16, hidden: 24 } }, left: /^key\.visual\./ },
  { title: 'mae', objective: 'mae', loss: { mae: { decoder: DECODER } }, model: { vision: MAE }, left: /^decoder\./ },
  { title: 'rotation', objective: 'rotation', left: /^head\./ },
  { title: 'rotation-pairs', objective: 'rotation-pairs', left: /^head\./ },
  {
    title: 'joint, clip and simclr',
    objective: 'joint',
    loss: { joint: [{ objective: 'clip' }, { objective: 'simclr' }] },
    left: /head\./,
  },
];

let engine: Engine;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  folder = await temporaryFolder();
});
afterAll(async () => {
  engine.close();
  await folder.remove();
});

/** The features of the training model's own image tower, whole pictures, no augmentation, batch norms by running statistics. */
function towerFeatures(model: TrainedModel, pixels: Tensor): Tensor {
  if (model instanceof JointModel) return towerFeatures(model.parts[0]!.model, pixels);
  if (model instanceof MomentumModel) return model.query.features(pixels, { training: false });
  if (model instanceof ViewModel) return model.features(pixels, { training: false });
  if (model instanceof MaeModel || model instanceof ClipModel) return model.features(pixels);
  throw new TypeError('a model without an image tower');
}

/** Trains a few steps and stores a run with its checkpoint, as a worker leaves one. @returns the tower's features of `pixels`, and all names */
async function trainAndStore(source: Source, storeFolder: string, pixels?: Tensor) {
  const store = fileStore(storeFolder);
  const config = runConfigSchema.parse({
    run: 'source',
    store: store.url,
    seed: 7,
    objective: source.objective,
    loss: source.loss ?? {},
    model: { ...MODEL, ...source.model },
    data: { manifest: 'file:///unused' },
    train: { steps: STEPS, globalBatch: GLOBAL_BATCH, lanes: LANES, optimizer: { lr: 1e-2 } },
  });
  const modelConfig = { ...MODEL, ...source.model };
  const { model, trainer } = newTrainer(config, modelConfig, engine);
  trainer.holdLanes(0, LANES);
  const collectives = new SoloCollectives(LANES, (target, own) => engine.addVectors(target, own));
  for (let step = 0; step < STEPS; step++) {
    const batch = batchOf(step, config, modelConfig.vision.imageSize);
    const lanes = Array.from({ length: LANES }, (_, lane) => laneOf(batch, lane));
    trainer.step(step, 1e-2, lanes, collectives);
  }
  const { layout, bufferFloats, stateSections } = trainer;
  const all = { parameterFloats: layout.parameterFloats, bufferFloats, stateSections };
  const state = new StateView(new SharedArrayBuffer(stateBytes(all)), all);
  trainer.exportState(state, STEPS);
  const shapesOf = (variables: TrainedModel['parameters']) => variables.map(({ name, shape }) => ({ name, shape }));
  const { parameters, buffers = [] } = model;
  const sha = 'ab'.repeat(32);
  const facts = { run: 'source', generation: 1, seed: 7, configSha256: sha, datasetSha256: sha };
  await store.put('runs/source/config.json', new TextEncoder().encode(JSON.stringify(config)));
  const shapes = { parameters: shapesOf(parameters), buffers: shapesOf(buffers) };
  await writeCheckpoint(state, { ...facts, ...shapes }, { store, clock: systemClock });
  const features = pixels && tf.tidy(() => Array.from(towerFeatures(model, pixels).dataSync()) as never);
  const names = [...parameters, ...buffers].map(({ name }) => name);
  trainer.dispose();
  model.dispose();
  return { url: store.url, features, names };
}

function featuresOf(...parameters: ConstructorParameters<typeof TransferNetwork>) {
  return (pixels: Tensor): number[] => {
    const network = new TransferNetwork(...parameters);
    const features = tf.tidy(() => Array.from(network.features(pixels).dataSync())) as unknown as number[];
    network.dispose();
    return features;
  };
}

describe('a checkpoint of every objective', () => {
  it.each(SOURCES)('gives its image tower, to the bit, and nothing else: $title', async (source) => {
    const { vision } = { ...MODEL, ...source.model };
    const before = tf.memory().numTensors;
    const pixels = randomPixels(3, vision.imageSize);
    const own = path.join(folder.path, source.title.replace(/\W/g, '-'));
    const { url, features, names } = await trainAndStore(source, own, pixels);
    expect(names.some((name) => source.left.test(name))).toBe(true);
    const { backbone } = await openBackbone(commandContext(), 'source', { store: url, weights: 'last' });
    expect(backbone.origin).toBe(`run source, step ${STEPS}, objective ${source.objective}`);
    expect([...backbone.weights.keys()]).toEqual(backboneSpecs(vision).map(({ name }) => name));
    expect(featuresOf(backbone, { seed: 0, precision: 'fp32' })(pixels)).toEqual(features);
    // What finetune and merge write is taken again as the same backbone.
    await exportBackbone(path.join(own, 'files'), backbone);
    const again = pretrainedBackbone(await loadPretrainedPath(path.join(own, 'files')), 'files');
    expect(again.digest).toBe(backbone.digest);
    pixels.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('is of MoCo’s query encoder, not of the one that lags behind it', async () => {
    const source = SOURCES.find(({ objective }) => objective === 'moco-v3')!;
    const { url } = await trainAndStore(source, path.join(folder.path, 'encoders'));
    const { backbone } = await openBackbone(commandContext(), 'source', { store: url, weights: 'last' });
    const { readBuffers } = await import('../../worker/checkpoint/read-checkpoint.ts');
    const { findCheckpoint, withStoredRun } = await import('../../cli/stored-run.ts');
    const lagging = await withStoredRun(commandContext(), 'source', { store: url }, async (run) => {
      const { signal } = commandContext();
      return readBuffers(run.store, await findCheckpoint(run, undefined, signal), signal);
    });
    const name = 'visual.conv1.weight';
    expect(backbone.weights.get(name)!.values).not.toEqual(lagging.get(`key.${name}`)!.values);
  });

  it('of texts alone has none, and says so', async () => {
    const { url } = await trainAndStore(
      { title: 'cloze', objective: 'cloze', left: /^visual/ },
      path.join(folder.path, 'cloze'),
    );
    await expect(openBackbone(commandContext(), 'source', { store: url, weights: 'last' })).rejects.toThrow(
      /objective cloze: it is not the image tower.*visual.conv1.weight is missing/,
    );
  });
});
