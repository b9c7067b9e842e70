import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import type { Engine } from '../../engine/index.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { syntheticLanes } from '../../worker/train/synthetic-lanes.ts';

export interface SyntheticTraining {
  readonly globalBatch: number;
  /** Default 1. */
  readonly lanes?: number;
  /** Default fp32. */
  readonly precision?: 'fp32' | 'bf16';
  /** Default none. */
  readonly recompute?: 'none' | 'blocks';
  /** Default 1e-4. */
  readonly learningRate?: number;
  /** Default false. */
  readonly gradCache?: boolean;
  /** Default: the lane. */
  readonly microBatch?: number;
  /** Of each caption. Default: the context length. */
  readonly captionTokens?: number;
}

export interface SyntheticTrainer {
  /** One optimiser step on the same noise; the loss. */
  step(): number;
  close(): void;
}

/** A worker's training step without data and network: one process with all lanes, noise for pictures, captions of full length. */
export function syntheticTrainer(engine: Engine, model: ModelConfig, options: SyntheticTraining): SyntheticTrainer {
  const { globalBatch, lanes = 1, precision = 'fp32', recompute = 'none', learningRate = 1e-4 } = options;
  const { gradCache = false, microBatch, captionTokens } = options;
  const config = runConfigSchema.parse({
    run: 'synthetic',
    store: 'file:///unused',
    model,
    data: { manifest: 'file:///unused' },
    train: {
      steps: 1,
      globalBatch,
      lanes,
      precision,
      recompute,
      gradCache,
      microBatch,
      optimizer: { gradClipNorm: 1 },
    },
  });
  const { model: clip, trainer } = newTrainer(config, model, engine);
  trainer.holdLanes(0, lanes);
  const collectives = new SoloCollectives(lanes, (target, source) => engine.addVectors(target, source));
  const inputs = syntheticLanes(model, {
    lanes,
    laneBatch: globalBatch / lanes,
    ...(captionTokens !== undefined && { captionTokens }),
  });
  let index = 0;
  return {
    step: () => trainer.step(index++, learningRate, inputs, collectives).loss,
    close: () => {
      trainer.dispose();
      clip.dispose();
    },
  };
}
