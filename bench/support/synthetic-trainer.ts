import type { ModelConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import type { Engine } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import { type LaneInput, LaneTrainer } from '../../worker/train/lane-trainer.ts';

export interface SyntheticTrainer {
  /** One optimiser step on the same noise; the loss. */
  step(): number;
  close(): void;
}

/** A worker's training step without data and network: one process, one lane, noise for pictures, captions of full length. */
export function syntheticTrainer(engine: Engine, model: ModelConfig, globalBatch: number): SyntheticTrainer {
  const clip = new ClipModel(model, { seed: 1, precision: 'fp32' });
  const trainer = new LaneTrainer(
    {
      globalBatch,
      laneCount: 1,
      imageSide: model.vision.imageSize,
      embedDim: model.embedDim,
      mean: [0.5, 0.5, 0.5],
      std: [0.25, 0.25, 0.25],
      precision: 'fp32',
      gradClipNorm: undefined,
      nonFinite: 'stop',
      logitScaleMax: Math.log(100),
      optimizer: { beta1: 0.9, beta2: 0.98, eps: 1e-6 },
      weightDecays: clip.parameters.map(() => 0.1),
    },
    { engine, model: clip },
  );
  trainer.holdLanes(0, 1);
  const collectives = new SoloCollectives(1, (target, source) => engine.addVectors(target, source));
  const lane = noiseLane(model, globalBatch);
  let index = 0;
  return {
    step: () => trainer.step(index++, 1e-4, [lane], collectives).loss,
    close: () => {
      trainer.dispose();
      clip.dispose();
    },
  };
}

function noiseLane({ vision, text }: ModelConfig, batch: number): LaneInput {
  const random = new RandomStream('synthetic-trainer');
  const { contextLength, vocabSize } = text;
  const tokens = new Int32Array(batch * contextLength).map((_, at) => {
    const place = at % contextLength;
    if (place === 0) return vocabSize - 2;
    return place === contextLength - 1 ? vocabSize - 1 : 1 + random.integer(vocabSize - 4);
  });
  const pixels = new Uint8Array(batch * vision.imageSize ** 2 * 3).map(() => random.integer(256));
  return { lane: 0, tokens, pixels };
}
