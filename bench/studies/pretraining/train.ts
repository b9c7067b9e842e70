import type { RunConfig } from '../../../common/config/run-config.ts';
import { silentLogger } from '../../../common/log.ts';
import type { Engine } from '../../../engine/index.ts';
import { resolveModelConfig } from '../../../models/model-config.ts';
import { learningRate } from '../../../models/schedule.ts';
import type { Tokenizer } from '../../../models/tokenizer/tokenizer.ts';
import { LaneLoader, sharedLaneBuffers } from '../../../worker/data/lane-loader.ts';
import { createPlan } from '../../../worker/data/plan.ts';
import type { SampleSet } from '../../../worker/data/sample-set.ts';
import type { TrainedModel } from '../../../worker/objectives/objective.ts';
import { objectiveInputs } from '../../../worker/objectives/objective-inputs.ts';
import { SoloCollectives } from '../../../worker/train/blocking-collectives.ts';
import { newTrainer } from '../../../worker/train/new-trainer.ts';
import { type IconPictures, withCategories } from './icon-pictures.ts';

export interface Training {
  /** The caller disposes it. */
  readonly model: TrainedModel;
  readonly steps: number;
  readonly samples: number;
  readonly seconds: number;
  readonly lastLoss: number;
}

export interface TrainingModules {
  readonly engine: Engine;
  readonly icons: IconPictures;
  readonly tokenizer: Tokenizer;
  /** What is learnt from, of the same pictures. Default: as they are, with their categories as labels. */
  readonly samples?: SampleSet;
}

/** Steps that show the pace; their weights are thrown away. */
const PACE_STEPS = 6;

/**
 * Trains for so many seconds in this process, loading and computing in turn: no cluster, so that methods and nothing else are compared. The pictures are
 * decoded before the clock starts. `configFor` makes the config for a number of steps, which is found from the pace of the first ones.
 */
export async function trainFor(
  seconds: number,
  configFor: (steps: number) => RunConfig,
  modules: TrainingModules,
): Promise<Training> {
  const loader = await preparedLoader(configFor(1000), modules);
  const pace = await trainSteps(configFor(PACE_STEPS), loader, modules, Number.POSITIVE_INFINITY);
  pace.model.dispose();
  const steps = Math.max(PACE_STEPS, Math.floor(seconds / (pace.seconds / PACE_STEPS)));
  return trainSteps(configFor(steps), loader, modules, seconds);
}

/** The same for so many steps, however long they take: the bits are those of any other machine like it. */
export async function trainStepsOf(config: RunConfig, modules: TrainingModules): Promise<Training> {
  return trainSteps(config, await preparedLoader(config, modules), modules, Number.POSITIVE_INFINITY);
}

async function preparedLoader(config: RunConfig, modules: TrainingModules): Promise<LaneLoader> {
  const loader = newLoader(config, modules);
  await decodeAll(loader);
  return loader;
}

export function newLoader(
  { data, train, seed, objective, loss, model }: RunConfig,
  { icons, tokenizer, samples = withCategories(icons.train) }: TrainingModules,
): LaneLoader {
  const { views, captions, labels } = objectiveInputs({ objective, loss });
  const plan = createPlan({
    manifestSha256: icons.train.sha256,
    shardSampleCounts: icons.train.shardSampleCounts,
    seed,
    globalBatch: train.globalBatch,
    lanes: train.lanes,
    blockShards: data.shuffleBlockShards,
  });
  return new LaneLoader(
    {
      plan,
      imageSide: resolveModelConfig(model).vision.imageSize,
      augment: data.augment,
      decoded: data.decoded,
      pixelsMax: data.pixelsMax,
      views,
      captions,
      classes: labels ? loss.classes : undefined,
    },
    { dataset: samples, cache: icons.cache.train, tokenizer, logger: silentLogger },
  );
}

/** One pass over the pictures fills the loader's memory of decoded ones. */
export async function decodeAll(loader: LaneLoader): Promise<void> {
  const { plan } = loader.options;
  const buffers = sharedLaneBuffers(loader.geometry);
  for (let step = 0; (step + 1) * plan.laneBatch * plan.lanes <= plan.sampleCount; step++) {
    for (let lane = 0; lane < plan.lanes; lane++) await loader.load(step, lane, buffers);
  }
}

export async function trainSteps(
  config: RunConfig,
  loader: LaneLoader,
  { engine }: TrainingModules,
  seconds: number,
): Promise<Training> {
  const { train } = config;
  const made = newTrainer(config, resolveModelConfig(config.model), engine);
  made.trainer.holdLanes(0, train.lanes);
  const collectives = new SoloCollectives(train.lanes, (target, source) => engine.addVectors(target, source));
  const buffers = Array.from({ length: train.lanes }, () => sharedLaneBuffers(loader.geometry));
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1000;
  let step = 0;
  let lastLoss = Number.NaN;
  for (; step < train.steps && elapsed() < seconds; step++) {
    for (const [lane, into] of buffers.entries()) await loader.load(step, lane, into);
    const lanes = buffers.map((one, lane) => ({ lane, ...one }));
    const lr = learningRate(step, train.steps, train.optimizer);
    lastLoss = made.trainer.step(step, lr, lanes, collectives).loss;
  }
  made.trainer.dispose();
  return { model: made.model, steps: step, samples: step * train.globalBatch, seconds: elapsed(), lastLoss };
}
