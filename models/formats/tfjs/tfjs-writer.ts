import { assert } from '../../../common/errors.ts';
import { elementCount } from '../../clip/parameter-shapes.ts';
import type { ConvolutionOptions, Dimension, GraphWriter } from '../graph/graph-writer.ts';
import type { HostTensor } from '../safetensors.ts';
import { transposed } from '../weights.ts';

/**
 * Writes a TensorFlow GraphDef in the JSON form that tfjs's `loadGraphModel` reads. Only ops that tfjs-core's own kernels have; pixels are
 * [B,H,W,3], captions are of full length, the batch stays open.
 */

/** −1 is the batch. */
export interface TfjsValue {
  readonly node: string;
  readonly shape: readonly number[];
}

type Attributes = Readonly<Record<string, unknown>>;

export interface TfjsNode {
  readonly name: string;
  readonly op: string;
  readonly input: readonly string[];
  readonly attr: Attributes;
}

export interface TfjsWeight {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: 'float32' | 'int32';
  readonly bytes: Uint8Array;
}

export interface TfjsEnd {
  readonly name: string;
  readonly dtype: 'DT_FLOAT' | 'DT_INT32';
  readonly shape: readonly number[];
}

const FLOAT = { T: { type: 'DT_FLOAT' } };
const base64 = (text: string) => Buffer.from(text).toString('base64');
const ints = (values: readonly number[]) => ({ list: { i: values.map(String) } });
const shapeAttribute = (shape: readonly number[]) => ({
  shape: { dim: shape.map((size) => ({ size: String(size) })) },
});

const convolutionAttributes = (stride: number) => ({
  ...FLOAT,
  strides: ints([1, stride, stride, 1]),
  dilations: ints([1, 1, 1, 1]),
  padding: { s: base64('VALID') },
  data_format: { s: base64('NHWC') },
});

export class TfjsWriter implements GraphWriter<TfjsValue> {
  readonly nodes: TfjsNode[] = [];
  readonly weights: TfjsWeight[] = [];
  readonly inputs: TfjsEnd[] = [];
  readonly outputs: TfjsEnd[] = [];
  readonly #constants = new Map<string, TfjsValue>();
  #tokens = 0;

  pixels(imageSize: number): TfjsValue {
    return this.#input('pixel_values', 'DT_FLOAT', [-1, imageSize, imageSize, 3]);
  }

  tokenIds(contextLength: number): TfjsValue {
    this.#tokens = contextLength;
    return this.#input('input_ids', 'DT_INT32', [-1, contextLength]);
  }

  output(name: string, value: TfjsValue): void {
    this.#op('Identity', [value], value.shape, FLOAT, name);
    this.outputs.push({ name, dtype: 'DT_FLOAT', shape: value.shape });
  }

  constant(name: string, { shape, values }: HostTensor): TfjsValue {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return this.#constant({ name, shape, dtype: 'float32', bytes });
  }

  convolution(
    x: TfjsValue,
    name: string,
    kernel_OIPP: HostTensor,
    bias_O: HostTensor,
    { stride, padding }: ConvolutionOptions,
  ): TfjsValue {
    const [outputs = 0, , side = 0] = kernel_OIPP.shape;
    const padded = this.#padPlaces(x, padding);
    const filter = this.constant(`${name}.weight`, channelsLast(kernel_OIPP));
    const shape = this.#placesAfter(padded, { size: side, stride }, outputs);
    return this.add(
      this.#op('Conv2D', [padded, filter], shape, convolutionAttributes(stride)),
      this.constant(`${name}.bias`, bias_O),
    );
  }

  maxPool(x: TfjsValue, { size, stride, padding }: ConvolutionOptions & { readonly size: number }): TfjsValue {
    const padded = this.#padPlaces(x, padding);
    const shape = this.#placesAfter(padded, { size, stride }, x.shape[3]!);
    return this.#op('MaxPool', [padded], shape, { ...convolutionAttributes(stride), ksize: ints([1, size, size, 1]) });
  }

  meanPool(x: TfjsValue, size: number): TfjsValue {
    const shape = this.#placesAfter(x, { size, stride: size }, x.shape[3]!);
    return this.#op('AvgPool', [x], shape, { ...convolutionAttributes(size), ksize: ints([1, size, size, 1]) });
  }

  relu(x: TfjsValue): TfjsValue {
    return this.#op('Relu', [x], x.shape);
  }

  meanPlace(x: TfjsValue): TfjsValue {
    return this.#op('Mean', [x, this.#ints([1, 2])], [-1, x.shape[3]!], { ...FLOAT, keep_dims: { b: false } });
  }

  patches(pixels: TfjsValue, name: string, kernel_DCPP: HostTensor, patches: number): TfjsValue {
    const [width = 0, , side = 0] = kernel_DCPP.shape;
    const grid = Math.round(Math.sqrt(patches));
    const filter = this.constant(name, channelsLast(kernel_DCPP));
    const conv = this.#op('Conv2D', [pixels, filter], [-1, grid, grid, width], convolutionAttributes(side));
    return this.placeTokens(conv, patches, width);
  }

  placeTokens(x: TfjsValue, places: number, channels: number): TfjsValue {
    return this.#reshape(x, [-1, places, channels]);
  }

  rows(name: string, table_VD: HostTensor, ids: TfjsValue): TfjsValue {
    const table = this.constant(name, table_VD);
    return this.#gather(table, ids, { axis: 0, batchDims: 0 }, [...ids.shape, table_VD.shape[1]!]);
  }

  linear(x: TfjsValue, name: string, weight_OI: HostTensor, bias_O: HostTensor | null): TfjsValue {
    const [outputs = 0, inputs = 0] = weight_OI.shape;
    const flat = x.shape.length === 2 ? x : this.#reshape(x, [-1, inputs]);
    const weight = this.constant(`${name}.weight`, transposed(weight_OI));
    const transposes = { transpose_a: { b: false }, transpose_b: { b: false } };
    const product = this.#op('MatMul', [flat, weight], [-1, outputs], { ...FLOAT, ...transposes });
    const sum = bias_O === null ? product : this.add(product, this.constant(`${name}.bias`, bias_O));
    return x.shape.length === 2 ? sum : this.#reshape(sum, [...x.shape.slice(0, -1), outputs]);
  }

  layerNorm(x: TfjsValue, name: string, weight: HostTensor, bias: HostTensor, eps: number): TfjsValue {
    const centred = this.#op('Sub', [x, this.#overLastAxis('Mean', x)], x.shape);
    const variance = this.#overLastAxis('Mean', this.#op('Square', [centred], x.shape));
    const deviation = this.#op('Rsqrt', [this.add(variance, this.#scalar(eps))], variance.shape);
    const scaled = this.multiply(this.multiply(centred, deviation), this.constant(`${name}.weight`, weight));
    return this.add(scaled, this.constant(`${name}.bias`, bias));
  }

  add(a: TfjsValue, b: TfjsValue): TfjsValue {
    return this.#op('AddV2', [a, b], larger(a, b));
  }

  multiply(a: TfjsValue, b: TfjsValue): TfjsValue {
    return this.#op('Mul', [a, b], larger(a, b));
  }

  matMul(a: TfjsValue, b: TfjsValue): TfjsValue {
    const adjoints = { adj_x: { b: false }, adj_y: { b: false } };
    return this.#op('BatchMatMulV2', [a, b], [...a.shape.slice(0, -1), b.shape.at(-1)!], { ...FLOAT, ...adjoints });
  }

  softmax(x: TfjsValue): TfjsValue {
    return this.#op('Softmax', [x], x.shape);
  }

  gelu(x: TfjsValue): TfjsValue {
    const erf = this.#op('Erf', [this.multiply(x, this.#scalar(Math.SQRT1_2))], x.shape);
    return this.multiply(this.multiply(x, this.#scalar(0.5)), this.add(erf, this.#scalar(1)));
  }

  quickGelu(x: TfjsValue): TfjsValue {
    return this.multiply(x, this.#op('Sigmoid', [this.multiply(x, this.#scalar(1.702))], x.shape));
  }

  l2Normalize(x: TfjsValue): TfjsValue {
    const square = this.#overLastAxis('Sum', this.#op('Square', [x], x.shape));
    return this.multiply(x, this.#op('Rsqrt', [square], square.shape));
  }

  reshape(x: TfjsValue, shape: readonly Dimension[]): TfjsValue {
    return this.#reshape(
      x,
      shape.map((size) => this.#size(size)),
    );
  }

  transpose(x: TfjsValue, axes: readonly number[]): TfjsValue {
    const shape = axes.map((axis) => x.shape[axis]!);
    return this.#op('Transpose', [x, this.#ints(axes)], shape, { ...FLOAT, Tperm: { type: 'DT_INT32' } });
  }

  zeroTokenFirst(x: TfjsValue): TfjsValue {
    const [batch = 0, tokens = 0, width = 0] = x.shape;
    const paddings = this.#ints([0, 0, 1, 0, 0, 0], [3, 2]);
    return this.#op('Pad', [x, paddings], [batch, tokens + 1, width], { ...FLOAT, Tpaddings: { type: 'DT_INT32' } });
  }

  joinTokens(first: TfjsValue, rest: TfjsValue): TfjsValue {
    const [batch = 0, tokens = 0, width = 0] = rest.shape;
    const shape = [batch, first.shape[1]! + tokens, width];
    return this.#op('ConcatV2', [first, rest, this.#ints([1], [])], shape, { ...FLOAT, N: { i: '2' } });
  }

  firstToken(x: TfjsValue): TfjsValue {
    const width = x.shape[2]!;
    const first = this.#op('Slice', [x, this.#ints([0, 0, 0]), this.#ints([-1, 1, width])], [-1, 1, width]);
    return this.#reshape(first, [-1, width]);
  }

  meanToken(x: TfjsValue, first: number): TfjsValue {
    const [, tokens = 0, width = 0] = x.shape;
    const size = [-1, tokens - first, width];
    const chosen = this.#op('Slice', [x, this.#ints([0, first, 0]), this.#ints(size)], size);
    return this.#op('Mean', [chosen, this.#ints([1])], [-1, width], { ...FLOAT, keep_dims: { b: false } });
  }

  endToken(x: TfjsValue, ids: TfjsValue): TfjsValue {
    const types = { T: { type: 'DT_INT32' }, output_type: { type: 'DT_INT32' } };
    const ends = this.#op('ArgMax', [ids, this.#ints([1], [])], [-1], types);
    return this.#gather(x, ends, { axis: 1, batchDims: 1 }, [-1, x.shape[2]!]);
  }

  /** Captions have full length here: there is nothing to cut. */
  cutToTokens(x: TfjsValue): TfjsValue {
    return x;
  }

  #padPlaces(x: TfjsValue, padding: number): TfjsValue {
    if (padding === 0) return x;
    const [batch = 0, height = 0, width = 0, channels = 0] = x.shape;
    const paddings = this.#ints([0, 0, padding, padding, padding, padding, 0, 0], [4, 2]);
    const shape = [batch, height + 2 * padding, width + 2 * padding, channels];
    return this.#op('Pad', [x, paddings], shape, { ...FLOAT, Tpaddings: { type: 'DT_INT32' } });
  }

  #placesAfter(x: TfjsValue, { size, stride }: { size: number; stride: number }, channels: number): number[] {
    const side = (length: number) => Math.floor((length - size) / stride) + 1;
    return [-1, side(x.shape[1]!), side(x.shape[2]!), channels];
  }

  #size(size: Dimension): number {
    return size === 'batch' ? -1 : size === 'tokens' ? this.#tokens : size;
  }

  #gather(
    x: TfjsValue,
    indices: TfjsValue,
    { axis, batchDims }: { axis: number; batchDims: number },
    shape: readonly number[],
  ): TfjsValue {
    return this.#op('GatherV2', [x, indices, this.#ints([axis], [])], shape, {
      Tparams: { type: 'DT_FLOAT' },
      Tindices: { type: 'DT_INT32' },
      batch_dims: { i: String(batchDims) },
    });
  }

  #overLastAxis(op: 'Mean' | 'Sum', x: TfjsValue): TfjsValue {
    return this.#op(op, [x, this.#ints([x.shape.length - 1])], [...x.shape.slice(0, -1), 1], {
      ...FLOAT,
      keep_dims: { b: true },
    });
  }

  #reshape(x: TfjsValue, shape: readonly number[]): TfjsValue {
    return this.#op('Reshape', [x, this.#ints(shape)], shape);
  }

  #input(name: string, dtype: TfjsEnd['dtype'], shape: readonly number[]): TfjsValue {
    this.nodes.push({
      name,
      op: 'Placeholder',
      input: [],
      attr: { dtype: { type: dtype }, shape: shapeAttribute(shape) },
    });
    this.inputs.push({ name, dtype, shape });
    return { node: name, shape };
  }

  #op(
    op: string,
    input: readonly TfjsValue[],
    shape: readonly number[],
    attr: Attributes = FLOAT,
    name?: string,
  ): TfjsValue {
    const node = name ?? `${op}_${this.nodes.length}`;
    this.nodes.push({ name: node, op, input: input.map((value) => value.node), attr });
    return { node, shape };
  }

  #scalar(value: number): TfjsValue {
    const name = `scalar_${value}`;
    return this.#constants.get(name) ?? this.constant(name, { shape: [], values: Float32Array.of(value) });
  }

  #ints(values: readonly number[], shape: readonly number[] = [values.length]): TfjsValue {
    const name = `ints_${values.join('_')}_of_${shape.join('x')}`;
    const bytes = new Uint8Array(Int32Array.from(values).buffer);
    return this.#constants.get(name) ?? this.#constant({ name, shape, dtype: 'int32', bytes });
  }

  #constant(weight: TfjsWeight): TfjsValue {
    const { name, shape } = weight;
    assert(!this.#constants.has(name), 'a constant is written once', { name });
    const dtype = weight.dtype === 'float32' ? 'DT_FLOAT' : 'DT_INT32';
    const value = { tensor: { dtype, tensorShape: shapeAttribute(shape).shape } };
    this.nodes.push({ name, op: 'Const', input: [], attr: { dtype: { type: dtype }, value } });
    this.weights.push(weight);
    const made = { node: name, shape };
    this.#constants.set(name, made);
    return made;
  }
}

/** Of two operands that broadcast, the shape of the one that does not. */
function larger(a: TfjsValue, b: TfjsValue): readonly number[] {
  if (a.shape.length !== b.shape.length) return a.shape.length > b.shape.length ? a.shape : b.shape;
  return Math.abs(elementCount(a.shape)) >= Math.abs(elementCount(b.shape)) ? a.shape : b.shape;
}

/** [D,C,P,P] → [P,P,C,D], as TensorFlow keeps filters. */
function channelsLast({ shape, values }: HostTensor): HostTensor {
  const [width = 0, channels = 0, side = 0] = shape;
  const area = side * side;
  const out = new Float32Array(values.length);
  for (let d = 0; d < width; d++) {
    for (let c = 0; c < channels; c++) {
      for (let place = 0; place < area; place++) {
        out[(place * channels + c) * width + d] = values[(d * channels + c) * area + place]!;
      }
    }
  }
  return { shape: [side, side, channels, width], values: out };
}
