import { CoveyError } from '../../common/errors.ts';
import { elementCount } from '../clip/parameter-shapes.ts';
import type { HostTensor } from './safetensors.ts';

/** What a weight must be called and how large it must be. */
export interface ParameterShape {
  /** open_clip's state-dict key. */
  readonly name: string;
  readonly shape: readonly number[];
}

/** Weights on the host by open_clip key, as `ClipModel.readWeights` gives and `setWeights` takes them. */
export type Weights = ReadonlyMap<string, Float32Array>;

/** How a picture is made ready for the model; part of what a model is. */
export interface PreprocessConfig {
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

/** Of the OpenAI models; what open_clip and transformers take where a config says nothing. */
export const CLIP_PREPROCESS: PreprocessConfig = {
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
};

/**
 * The weights with their shapes, in parameter order.
 * @throws CoveyError INVALID_ARGUMENT naming every weight that is missing, superfluous or of another size
 */
export function shapedWeights(specs: readonly ParameterShape[], weights: Weights): Map<string, HostTensor> {
  const shaped = new Map<string, HostTensor>();
  const problems: string[] = [];
  for (const { name, shape } of specs) {
    const values = weights.get(name);
    if (values?.length === elementCount(shape)) shaped.set(name, { shape, values });
    else problems.push(values ? `${name} has ${values.length} values for [${shape}]` : `${name} is missing`);
  }
  for (const name of weights.keys())
    if (!shaped.has(name) && !problems.some((p) => p.startsWith(`${name} `)))
      problems.push(`${name} is not the model's`);
  if (problems.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot use the weights: they are not of this model: ${problems.join('; ')}`,
      {
        fields: { problems },
      },
    );
  }
  return shaped;
}

/**
 * Checks tensors read from a file against the model and drops their shapes.
 * @throws CoveyError DATA_CORRUPT naming every key that is missing, superfluous or of another shape
 */
export function plainWeights(
  specs: readonly ParameterShape[],
  tensors: ReadonlyMap<string, HostTensor>,
  file: string,
): Map<string, Float32Array> {
  const expected = new Map(specs.map(({ name, shape }) => [name, shape]));
  const problems: string[] = [];
  const weights = new Map<string, Float32Array>();
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name);
    if (!tensor) problems.push(`${name} is missing`);
    else if (tensor.shape.join() !== shape.join()) problems.push(`${name} is [${tensor.shape}], not [${shape}]`);
    else weights.set(name, tensor.values);
  }
  for (const name of tensors.keys()) if (!expected.has(name)) problems.push(`${name} is not the model's`);
  if (problems.length > 0) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot load ${file}: its tensors are not those of its config: ${problems.join('; ')}`,
      {
        fields: { file, problems },
      },
    );
  }
  return weights;
}

/** Rows and columns exchanged: [r, c] → [c, r]. */
export function transposed({ shape, values }: HostTensor): HostTensor {
  const [rows, columns] = shape as [number, number];
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c]!;
  return { shape: [columns, rows], values: out };
}

/** Rows `begin` to `end` of the first axis, without copying. */
export function rowsOf({ shape, values }: HostTensor, begin: number, end: number): HostTensor {
  const [rows = 1, ...rest] = shape;
  const size = values.length / rows;
  return { shape: [end - begin, ...rest], values: values.subarray(begin * size, end * size) };
}
