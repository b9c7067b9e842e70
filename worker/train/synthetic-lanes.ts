import type { ModelConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import type { ObjectiveInputs } from '../objectives/objective.ts';
import type { LaneInput } from './lane-trainer.ts';

export interface SyntheticLanesOptions {
  readonly lanes: number;
  /** Pictures and captions of a lane. */
  readonly laneBatch: number;
  /** Of each caption, start and end included; at most the context length, which is the default. */
  readonly captionTokens?: number;
  /** What a sample has. Default: one picture and a caption. */
  readonly inputs?: ObjectiveInputs;
}

const PAIRS: ObjectiveInputs = { views: 1, captions: true, labels: false };

/** Noise in the shapes of a model's inputs, for measuring: every caption of the same length, so that no tower is spared work. */
export function syntheticLanes(model: ModelConfig, options: SyntheticLanesOptions): LaneInput[] {
  const { lanes, laneBatch, inputs = PAIRS } = options;
  const random = new RandomStream('synthetic-lanes');
  const { imageSize } = model.vision;
  const { contextLength, vocabSize } = model.text;
  const length = Math.min(options.captionTokens ?? contextLength, contextLength);
  return Array.from({ length: lanes }, (_, lane) => {
    const tokens = new Int32Array(inputs.captions ? laneBatch * contextLength : 0);
    for (let begin = 0; begin < tokens.length; begin += contextLength) {
      tokens[begin] = vocabSize - 2;
      for (let i = 1; i < length - 1; i++) tokens[begin + i] = 1 + random.integer(vocabSize - 4);
      tokens[begin + length - 1] = vocabSize - 1;
    }
    return {
      lane,
      tokens,
      pixels: new Uint8Array(inputs.views * laneBatch * imageSize * imageSize * 3).map(() => random.integer(256)),
      ...(inputs.labels && { labels: new Int32Array(laneBatch) }),
    };
  });
}
