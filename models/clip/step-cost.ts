import type { ModelConfig } from '../../common/config/run-config.ts';
import { parameterShapes } from './parameter-shapes.ts';

/** What training a model costs, to within a factor of two. */
export interface StepCost {
  readonly parameters: number;
  /** Forward and backward of one sample: three times the forward's products. */
  readonly multiplyAddsPerSample: number;
  /** fp32 activations of one sample that wait for the backward, in plain (unfused) ops. */
  readonly activationBytesPerSample: number;
}

interface Tower {
  readonly tokens: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly mlpRatio: number;
}

/** Per block: 4 + 2·mlpRatio products of width² per token, and two of tokens·width for attention. */
function blockMultiplyAdds({ tokens, width, mlpRatio }: Tower): number {
  return tokens * width * (width * (4 + 2 * mlpRatio) + 2 * tokens);
}

/** Per block and token: about 20 vectors of the width, 6 of the hidden width, 4 rows of attention scores per head. */
function blockActivations({ tokens, width, heads, mlpRatio }: Tower): number {
  return tokens * (width * (20 + 6 * mlpRatio) + 4 * heads * tokens);
}

export function stepCost(model: ModelConfig): StepCost {
  const { vision, text } = model;
  const patches = (vision.imageSize / vision.patchSize) ** 2;
  const towers: Tower[] = [
    { ...vision, tokens: patches + 1, heads: vision.width / vision.headWidth },
    { ...text, tokens: text.contextLength },
  ];
  const sum = (of: (tower: Tower) => number) => towers.reduce((total, tower) => total + tower.layers * of(tower), 0);
  const patchEmbedding = patches * 3 * vision.patchSize ** 2 * vision.width;
  return {
    parameters: parameterShapes(model).reduce((total, { shape }) => total + shape.reduce((a, b) => a * b, 1), 0),
    multiplyAddsPerSample: 3 * (sum(blockMultiplyAdds) + patchEmbedding),
    activationBytesPerSample: 4 * sum(blockActivations),
  };
}
