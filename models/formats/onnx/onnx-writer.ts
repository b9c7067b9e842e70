import { assert, CoveyError } from '../../../common/errors.ts';
import type { ConvolutionOptions, Dimension, GraphWriter } from '../graph/graph-writer.ts';
import type { HostTensor } from '../safetensors.ts';
import { transposed } from '../weights.ts';
import { encodeOnnx, type OnnxAttribute, type OnnxNode, type OnnxTensor, type OnnxValue } from './onnx-schema.ts';

/** The first with LayerNormalization; what every runtime since 2022 reads. GELU is written as Erf, which came with opset 20 only. */
const OPSET = 17;
const IR_VERSION = 8;

// TensorProto.DataType and AttributeProto.AttributeType
const FLOAT = 1;
const INT32 = 6;
const INT64 = 7;
const ATTRIBUTE_FLOAT = 1;
const ATTRIBUTE_INT = 2;
const ATTRIBUTE_INTS = 7;

/** As the end of a slice: all that there is. */
const INT32_MAX = 2 ** 31 - 1;

/** A protobuf message has at most 2 GiB; the rest is for nodes and names. */
const WEIGHT_BYTES_MAX = 2 ** 31 - 2 ** 20;

type Attributes = Readonly<Record<string, { f: number } | { i: number } | { ints: readonly number[] }>>;

/** Writes one ONNX graph. A value is its name; batch and length of the captions stay open. */
export class OnnxWriter implements GraphWriter<string> {
  readonly #nodes: OnnxNode[] = [];
  readonly #initializers = new Map<string, OnnxTensor>();
  readonly #inputs: OnnxValue[] = [];
  readonly #outputs: OnnxValue[] = [];
  readonly #batch: { readonly images: string; readonly texts: string };
  #weightBytes = 0;

  /** @param batch what the sizes of a batch are called; a graph with both towers has two */
  constructor(batch: { readonly images: string; readonly texts: string }) {
    this.#batch = batch;
  }

  /** @param name of the graph; `metadata` is kept in the file */
  encode(name: string, metadata: Readonly<Record<string, string>>, producerVersion: string): Uint8Array {
    return encodeOnnx({
      irVersion: IR_VERSION,
      producerName: 'covey',
      producerVersion,
      docString: '',
      opsetImport: [{ domain: '', version: OPSET }],
      metadataProps: Object.entries(metadata).map(([key, value]) => ({ key, value })),
      graph: {
        name,
        node: this.#nodes,
        initializer: [...this.#initializers.values()],
        input: this.#inputs,
        output: this.#outputs,
      },
    });
  }

  pixels(imageSize: number): string {
    this.#inputs.push(valueInfo('pixel_values', FLOAT, [this.#batch.images, 3, imageSize, imageSize]));
    return 'pixel_values';
  }

  tokenIds(): string {
    this.#inputs.push(valueInfo('input_ids', INT64, [this.#batch.texts, 'sequence_length']));
    return 'input_ids';
  }

  output(name: string, value: string, shape: readonly (number | string)[]): void {
    this.#node('Identity', [value], {}, name);
    this.#outputs.push(valueInfo(name, FLOAT, shape));
  }

  constant(name: string, { shape, values }: HostTensor): string {
    this.#weightBytes += values.byteLength;
    if (this.#weightBytes > WEIGHT_BYTES_MAX) {
      throw new CoveyError(
        'UNSUPPORTED',
        `Cannot write ONNX: the weights of one graph are larger than ${WEIGHT_BYTES_MAX} bytes, the most one file can hold`,
      );
    }
    return this.#initializer(name, shape, FLOAT, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  patches(pixels: string, name: string, kernel: HostTensor, patches: number): string {
    const [width = 0, , side = 0] = kernel.shape;
    const conv = this.#node('Conv', [pixels, this.constant(name, kernel)], {
      kernel_shape: { ints: [side, side] },
      strides: { ints: [side, side] },
    });
    return this.placeTokens(conv, patches, width);
  }

  convolution(
    x: string,
    name: string,
    kernel: HostTensor,
    bias: HostTensor,
    { stride, padding }: ConvolutionOptions,
  ): string {
    const side = kernel.shape[2]!;
    return this.#node('Conv', [x, this.constant(`${name}.weight`, kernel), this.constant(`${name}.bias`, bias)], {
      kernel_shape: { ints: [side, side] },
      strides: { ints: [stride, stride] },
      pads: { ints: [padding, padding, padding, padding] },
    });
  }

  maxPool(x: string, { size, stride, padding }: ConvolutionOptions & { readonly size: number }): string {
    return this.#node('MaxPool', [x], {
      kernel_shape: { ints: [size, size] },
      strides: { ints: [stride, stride] },
      pads: { ints: [padding, padding, padding, padding] },
    });
  }

  meanPool(x: string, size: number): string {
    return this.#node('AveragePool', [x], { kernel_shape: { ints: [size, size] }, strides: { ints: [size, size] } });
  }

  relu(x: string): string {
    return this.#node('Relu', [x]);
  }

  meanPlace(x: string): string {
    return this.#node('ReduceMean', [x], { axes: { ints: [2, 3] }, keepdims: { i: 0 } });
  }

  placeTokens(x: string, places: number, channels: number): string {
    return this.transpose(this.#reshape(x, [0, channels, places]), [0, 2, 1]);
  }

  rows(name: string, table: HostTensor, ids: string): string {
    return this.#node('Gather', [this.constant(name, table), ids], { axis: { i: 0 } });
  }

  linear(x: string, name: string, weight: HostTensor, bias: HostTensor | null): string {
    const product = this.matMul(x, this.constant(`${name}.weight`, transposed(weight)));
    return bias === null ? product : this.add(product, this.constant(`${name}.bias`, bias));
  }

  layerNorm(x: string, name: string, weight: HostTensor, bias: HostTensor, eps: number): string {
    const inputs = [x, this.constant(`${name}.weight`, weight), this.constant(`${name}.bias`, bias)];
    return this.#node('LayerNormalization', inputs, { axis: { i: -1 }, epsilon: { f: eps } });
  }

  add(a: string, b: string): string {
    return this.#node('Add', [a, b]);
  }

  multiply(a: string, b: string): string {
    return this.#node('Mul', [a, b]);
  }

  matMul(a: string, b: string): string {
    return this.#node('MatMul', [a, b]);
  }

  softmax(x: string): string {
    return this.#node('Softmax', [x], { axis: { i: -1 } });
  }

  /** ½·x·(1 + erf(x/√2)), in the form that runtimes fuse to one GELU. */
  gelu(x: string): string {
    const erf = this.#node('Erf', [this.#node('Div', [x, this.#scalar('sqrt_2', Math.SQRT2)])]);
    const gate = this.add(erf, this.#scalar('one', 1));
    return this.multiply(this.multiply(x, gate), this.#scalar('half', 0.5));
  }

  quickGelu(x: string): string {
    return this.multiply(x, this.#node('Sigmoid', [this.multiply(x, this.#scalar('quick_gelu', 1.702))]));
  }

  l2Normalize(x: string): string {
    return this.#node('Div', [x, this.#node('ReduceL2', [x], { axes: { ints: [-1] }, keepdims: { i: 1 } })]);
  }

  /** Open axes are copied from the input, where they must be in the same place. */
  reshape(x: string, shape: readonly Dimension[]): string {
    return this.#reshape(
      x,
      shape.map((size) => (typeof size === 'number' ? size : 0)),
    );
  }

  transpose(x: string, axes: readonly number[]): string {
    return this.#node('Transpose', [x], { perm: { ints: axes } });
  }

  zeroTokenFirst(x: string): string {
    return this.#node('Pad', [x, this.#int64('pad_one_token', [0, 1, 0, 0, 0, 0])]);
  }

  joinTokens(first: string, rest: string): string {
    return this.#node('Concat', [first, rest], { axis: { i: 1 } });
  }

  firstToken(x: string): string {
    return this.#node('Gather', [x, this.#int64('zero', null)], { axis: { i: 1 } });
  }

  meanToken(x: string, first: number): string {
    const all = [
      x,
      this.#int64('first_token', [first]),
      this.#int64('last_token', [INT32_MAX]),
      this.#int64('axes_1', [1]),
    ];
    return this.#node('ReduceMean', [this.#node('Slice', all)], { axes: { ints: [1] }, keepdims: { i: 0 } });
  }

  endToken(x: string, ids: string): string {
    // int32: what runtimes on a GPU look for the maximum in.
    const narrow = this.#node('Cast', [ids], { to: { i: INT32 } });
    const ends = this.#node('ArgMax', [narrow], { axis: { i: 1 }, keepdims: { i: 1 } });
    return this.#node('GatherND', [x, ends], { batch_dims: { i: 1 } });
  }

  cutToTokens(x: string, ids: string, shape: readonly Dimension[]): string {
    const all = this.#node('Shape', [ids]);
    const tokens = this.#node('Slice', [all, this.#int64('one_long', [1]), this.#int64('two_long', [2])]);
    const axes = shape.flatMap((size, axis) => (size === 'tokens' ? [axis] : []));
    const starts = this.#int64(
      `starts_${axes.length}`,
      axes.map(() => 0),
    );
    const ends =
      axes.length === 1
        ? tokens
        : this.#node(
            'Concat',
            axes.map(() => tokens),
            { axis: { i: 0 } },
          );
    return this.#node('Slice', [x, starts, ends, this.#int64(`axes_${axes.join('_')}`, axes)]);
  }

  #reshape(x: string, shape: readonly number[]): string {
    return this.#node('Reshape', [x, this.#int64(`shape_${shape.join('_')}`, shape)]);
  }

  #node(opType: string, input: readonly string[], attributes: Attributes = {}, output?: string): string {
    const name = `${opType}_${this.#nodes.length}`;
    const attribute = Object.entries(attributes).map(([key, value]): OnnxAttribute => {
      const type = 'f' in value ? ATTRIBUTE_FLOAT : 'i' in value ? ATTRIBUTE_INT : ATTRIBUTE_INTS;
      return { name: key, type, ...value };
    });
    this.#nodes.push({ name, opType, input, output: [output ?? name], attribute });
    return output ?? name;
  }

  #scalar(name: string, value: number): string {
    return this.#initializers.has(name) ? name : this.constant(name, { shape: [], values: Float32Array.of(value) });
  }

  /** Integers by a name that says their value, so that equal ones are kept once; null: the scalar 0. */
  #int64(name: string, values: readonly number[] | null): string {
    if (this.#initializers.has(name)) return name;
    const longs = BigInt64Array.from(values ?? [0], BigInt);
    return this.#initializer(name, values === null ? [] : [longs.length], INT64, new Uint8Array(longs.buffer));
  }

  #initializer(name: string, dims: readonly number[], dataType: number, rawData: Uint8Array): string {
    assert(!this.#initializers.has(name), 'an initializer is written once', { name });
    this.#initializers.set(name, { name, dims, dataType, rawData });
    return name;
  }
}

function valueInfo(name: string, elemType: number, shape: readonly (number | string)[]): OnnxValue {
  const dim = shape.map((size) => {
    return typeof size === 'number' ? { dimValue: size } : { dimParam: size };
  });
  return { name, type: { tensorType: { elemType, shape: { dim } } } };
}
