import { RandomStream } from '../../common/random.ts';
import { initialValues } from '../../models/clip/initial-values.ts';
import { bufferSpecs, type ParameterSpec, parameterSpecs } from '../../models/clip/parameter-shapes.ts';
import { resolveModelConfig } from '../../models/model-config.ts';

/** A model small enough for JavaScript kernels, with sizes that differ from each other wherever they may. */
export const smallConfig = resolveModelConfig({
  embedDim: 24,
  quickGelu: false,
  vision: { imageSize: 16, patchSize: 4, width: 32, layers: 2, headWidth: 16, mlpRatio: 3 },
  text: { contextLength: 10, vocabSize: 600, width: 48, heads: 4, layers: 3, mlpRatio: 2 },
});

/** Weights drawn so that no value is special: layer norms and biases are moved off 1 and 0, so that a swap of two shows. */
export function smallWeights(config = smallConfig, seed = 5): Map<string, Float32Array> {
  return shakenWeights([...parameterSpecs(config, Math.log(1 / 0.07)), ...bufferSpecs(config)], seed);
}

/** First values with noise; variances stay positive. */
export function shakenWeights(specs: readonly ParameterSpec[], seed: number): Map<string, Float32Array> {
  return new Map(
    specs.map((spec) => {
      const noise = new RandomStream(seed, 'noise', spec.name);
      const moved = (value: number) => {
        const by = noise.normal(0, 0.05);
        return spec.name.endsWith('running_var') ? value + 5 * Math.abs(by) : value + by;
      };
      return [spec.name, initialValues(spec, seed).map(moved)];
    }),
  );
}

/** Standard normal numbers. */
export function normals(count: number, name: string): Float32Array {
  const stream = new RandomStream(11, name);
  return Float32Array.from({ length: count }, () => stream.normal());
}

/** Captions of several lengths, the longest filling all but one place: start 598, end 599, padded with 0. */
export function smallCaptions(batch: number, contextLength: number): Int32Array {
  const stream = new RandomStream(12, 'captions');
  const ids = new Int32Array(batch * contextLength);
  for (let b = 0; b < batch; b++) {
    const length = 1 + (b % (contextLength - 3));
    ids[b * contextLength] = 598;
    for (let t = 1; t <= length; t++) ids[b * contextLength + t] = stream.integer(598);
    ids[b * contextLength + length + 1] = 599;
  }
  return ids;
}

/** Captions of made-up words, each word seen several times: enough pairs for a vocabulary of thousands. */
export function madeUpCaptions(words: number): string[] {
  const stream = new RandomStream(13, 'words');
  const letter = () => 'aeioubcdfgklmnprst'[stream.integer(18)]!;
  const list = Array.from({ length: words }, () => Array.from({ length: 3 + stream.integer(5) }, letter).join(''));
  return list.flatMap((word, i) => [`${word} ${list[(i + 1) % words]}`, `a ${word}`]);
}
