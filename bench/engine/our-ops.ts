import {
  AdamW,
  addLayerNorm,
  attention,
  type Engine,
  gelu,
  layerNorm,
  linear,
  recordForward,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  tf,
  toCompute,
  type Variable,
} from '../../engine/index.ts';
import { LAYER_NORM_EPS, transformerPooled } from '../../models/clip/transformer.ts';
import { blockShapes } from './op-specs.ts';
import type { CheckAnswer, OpSpec, Precision } from './protocol.ts';
import type { Stopwatch } from './stopwatch.ts';
import { hashValues } from './values.ts';

/** One op, ready to be repeated. `run` adds one entry per phase to the watch. */
export interface PreparedOp {
  run(watch: Stopwatch): void;
  /** What it computes, in few numbers (see `CheckAnswer`). Once, before any `run`. */
  check(): CheckAnswer;
  close(): void;
}

/** Makes variables from the shared hash: the n-th has seed n. Activations are in compute storage, parameters fp32. */
class Inputs {
  readonly variables: Variable[] = [];
  readonly #precision: Precision;

  constructor(precision: Precision) {
    this.#precision = precision;
  }

  activation(...shape: number[]): Tensor {
    return this.#add(shape, 1, this.#precision);
  }

  /** A weight [O, I] that keeps the scale of what it multiplies, or a bias. */
  parameter(...shape: number[]): Variable {
    return this.#add(shape, shape.length > 1 ? shape.at(-1)! ** -0.5 : 0.02, 'fp32');
  }

  #add(shape: readonly number[], bound: number, precision: Precision): Variable {
    const count = shape.reduce((product, side) => product * side, 1);
    const variable = tf.tidy(() => {
      const values = tf.tensor(hashValues(this.variables.length + 1, count, bound), [...shape]);
      return tf.keep(tf.variable(toCompute(values, precision)));
    });
    this.variables.push(variable);
    return variable;
  }
}

type Forward = () => Tensor[];
type Shape<K extends OpSpec['op']> = Extract<OpSpec, { op: K }>;

function linearForward(spec: Shape<'linear'>, inputs: Inputs): Forward {
  const x = inputs.activation(spec.rows, spec.inputs);
  const weight = inputs.parameter(spec.outputs, spec.inputs) as Tensor as Tensor2D;
  const bias = inputs.parameter(spec.outputs) as Tensor as Tensor1D;
  return () => [linear(x, weight, bias)];
}

function attentionForward({ batch, tokens, heads, headWidth, causal }: Shape<'attention'>, inputs: Inputs): Forward {
  const qkv = inputs.activation(batch, tokens, 3 * heads * headWidth) as Tensor3D;
  return () => [attention(qkv, heads, { causal })];
}

function rowwiseForward(spec: Shape<'layerNorm' | 'addLayerNorm' | 'gelu'>, inputs: Inputs): Forward {
  const x = inputs.activation(spec.rows, spec.width);
  if (spec.op === 'gelu') return () => [gelu(x)];
  const delta = spec.op === 'addLayerNorm' ? inputs.activation(spec.rows, spec.width) : undefined;
  const weight = inputs.parameter(spec.width) as Tensor as Tensor1D;
  const bias = inputs.parameter(spec.width) as Tensor as Tensor1D;
  if (delta === undefined) return () => [layerNorm(x, weight, bias, LAYER_NORM_EPS)];
  return () => {
    const { sum, normalised } = addLayerNorm(x, delta, weight, bias, LAYER_NORM_EPS);
    return [sum, normalised];
  };
}

function blockForward({ batch, tokens, width, heads }: Shape<'block'>, inputs: Inputs): Forward {
  const x = inputs.activation(batch, tokens, width) as Tensor3D;
  const byName = new Map<string, Variable>();
  for (const [name, ...shape] of blockShapes(width)) byName.set(`op.0.${name}`, inputs.parameter(...shape));
  const parameter = <T extends Tensor>(name: string): T => byName.get(name) as Tensor as T;
  const options = {
    prefix: 'op',
    layers: 1,
    heads,
    causal: false,
    quickGelu: false,
    pooledToken: null,
    recomputedBlocks: 0,
  };
  return () => [transformerPooled(x, parameter, options)];
}

function buildForward(spec: Exclude<OpSpec, { op: 'adamW' }>, inputs: Inputs): Forward {
  switch (spec.op) {
    case 'linear':
      return linearForward(spec, inputs);
    case 'attention':
      return attentionForward(spec, inputs);
    case 'block':
      return blockForward(spec, inputs);
    default:
      return rowwiseForward(spec, inputs);
  }
}

/** The op on covey's engine, with inputs of its own. */
export function prepareOp(spec: OpSpec, precision: Precision, engine: Engine): PreparedOp {
  if (spec.op === 'adamW') return prepareAdamW(spec.shapes, engine);
  const inputs = new Inputs(precision);
  const forward = buildForward(spec, inputs);
  const gradients = tf.tidy(() => {
    const outputs = forward();
    return outputs.map((output) => {
      const values = tf.tensor(hashValues(99, output.size, 1), output.shape);
      return tf.keep(toCompute(values, precision));
    });
  });
  return {
    run: (watch) => {
      watch.start();
      const recording = recordForward(forward);
      watch.lap('forward');
      recording.backward(gradients, inputs.variables, () => {});
      watch.lap('backward');
    },
    check: () => {
      const recording = recordForward(forward);
      const found = recording.outputs.map((output) => sumAndNorm(engine, output));
      const ofInputs = inputs.variables.map(() => [0, 0] as [number, number]);
      recording.backward(gradients, inputs.variables, (index, gradient) => {
        ofInputs[index] = sumAndNorm(engine, gradient);
      });
      return [...found, ...ofInputs];
    },
    close: () => tf.dispose([...inputs.variables, ...gradients]),
  };
}

function prepareAdamW(shapes: readonly (readonly number[])[], engine: Engine): PreparedOp {
  const inputs = new Inputs('fp32');
  const parameters = shapes.map((shape) => inputs.parameter(...shape));
  const optimizer = new AdamW(engine, {
    parameters,
    weightDecays: parameters.map(() => 0.1),
    beta1: 0.9,
    beta2: 0.98,
    eps: 1e-6,
  });
  const gradient = hashValues(
    99,
    parameters.reduce((sum, { size }) => sum + size, 0),
    1e-3,
  );
  const update = () => optimizer.step({ gradient, gradientScale: 1, lr: 1e-4 });
  return {
    run: (watch) => {
      watch.start();
      update();
      watch.lap('update');
    },
    check: () => {
      update();
      return parameters.map((parameter) => sumAndNorm(engine, parameter));
    },
    close: () => {
      optimizer.dispose();
      tf.dispose(parameters);
    },
  };
}

function sumAndNorm(engine: Engine, tensor: Tensor): [number, number] {
  const values = new Float32Array(tensor.size);
  engine.readInto(tensor, values);
  let sum = 0;
  let squares = 0;
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  return [sum, Math.sqrt(squares)];
}
