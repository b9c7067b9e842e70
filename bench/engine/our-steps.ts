import {
  AdamW,
  type Engine,
  recordForward,
  type Tensor,
  type Tensor4D,
  tf,
  type Variable,
} from '../../engine/index.ts';
import type { ParameterLookup } from '../../models/clip/transformer.ts';
import { ResNet } from '../../models/vision/resnet.ts';
import type { ResNetDepth } from '../../models/vision/resnet-shapes.ts';
import { syntheticTrainer } from '../support/synthetic-trainer.ts';
import { crossEntropy, imageTowerLoss, StepInputs, textTowerLoss, transformerLoss } from './our-losses.ts';
import type { LanesSpec, Precision, StepParameter, StepSpec } from './protocol.ts';
import { hashValues } from './values.ts';

/** A training step, ready to be repeated. */
export interface EngineCase {
  /** Forward, backward and update; returns the loss of the forward. */
  step(): number;
  close(): void;
}

interface Model {
  readonly variables: readonly Variable[];
  readonly loss: () => Tensor;
  close(): void;
}

/** The step on covey's engine, through the code that trains: `recordForward`, gradients into one flat buffer, `AdamW`. */
export function prepareStep(spec: StepSpec | LanesSpec, precision: Precision, engine: Engine): EngineCase {
  if (spec.model === 'lanes') {
    const { config, batch, lanes } = spec;
    return syntheticTrainer(engine, config, { globalBatch: batch, lanes, precision });
  }
  const inputs = new StepInputs(spec, precision);
  const model = spec.model === 'resnet' ? resnet(spec, precision, inputs) : transformer(spec, precision, inputs);
  const trainer = new FlatTrainer(engine, model.variables, spec.optimizer);
  return {
    step: () => trainer.step(model.loss),
    close: () => {
      trainer.close();
      model.close();
      inputs.close();
    },
  };
}

function transformer(spec: StepSpec, precision: Precision, inputs: StepInputs): Model {
  const variables = new Map<string, Variable>();
  for (const [index, parameter] of spec.parameters.entries()) {
    variables.set(
      parameter.name,
      tf.tidy(() => tf.keep(tf.variable(firstTensor(parameter, index)))),
    );
  }
  const lookup: ParameterLookup = <T extends Tensor>(name: string): T => variables.get(name) as Tensor as T;
  const builders = { transformer: transformerLoss, image: imageTowerLoss, text: textTowerLoss };
  const all = [...variables.values()];
  const loss = builders[spec.model as keyof typeof builders](spec, lookup, inputs, precision);
  return { variables: all, loss, close: () => tf.dispose(all) };
}

function resnet({ sizes, parameters }: StepSpec, precision: Precision, inputs: StepInputs): Model {
  const config = { depth: sizes['depth'] as ResNetDepth, classes: sizes['classes']! };
  const model = new ResNet(config, { seed: 0, precision, init: 'zeros' });
  const first = new Map(parameters.map((parameter, index) => [parameter.name, firstValues(parameter, index)]));
  for (const { name, variable } of model.buffers) first.set(name, new Float32Array(variable.dataSync<'float32'>()));
  model.setWeights(first);
  const side = sizes['imageSize']!;
  const x_BHWC = inputs.activations(side, side, 3) as Tensor4D;
  const labels_BC = inputs.classes_BC(sizes['classes']!);
  return {
    variables: model.parameters.map(({ variable }) => variable),
    loss: () => crossEntropy(model.logits(x_BHWC, { training: true }), labels_BC),
    close: () => model.dispose(),
  };
}

/** What `LaneTrainer` does with one lane on one worker: gradients are read into a flat buffer as they become final. */
class FlatTrainer {
  readonly #engine: Engine;
  readonly #variables: readonly Variable[];
  readonly #optimizer: AdamW;
  readonly #lr: number;
  readonly #gradient: Float32Array;
  readonly #regions: readonly Float32Array[];
  readonly #one = tf.keep(tf.scalar(1));

  constructor(engine: Engine, variables: readonly Variable[], { lr, weightDecay, ...rest }: StepSpec['optimizer']) {
    this.#engine = engine;
    this.#variables = variables;
    this.#lr = lr;
    const weightDecays = variables.map(() => weightDecay);
    this.#optimizer = new AdamW(engine, { parameters: variables, weightDecays, ...rest });
    const total = variables.reduce((sum, { size }) => sum + size, 0);
    this.#gradient = new Float32Array(new SharedArrayBuffer(4 * total));
    let offset = 0;
    this.#regions = variables.map(({ size }) => {
      offset += size;
      return this.#gradient.subarray(offset - size, offset);
    });
  }

  step(forward: () => Tensor): number {
    return this.#engine.device === 'cpu' ? this.#hostStep(forward) : this.#deviceStep(forward);
  }

  /** One worker on one GPU: gradients stay there, and the host waits once, for the loss. */
  #deviceStep(forward: () => Tensor): number {
    const recording = recordForward(() => [forward()]);
    const loss = recording.outputs[0]!.clone();
    const gradient: Tensor[] = [];
    recording.backward([this.#one], this.#variables, (index, final) => {
      gradient[index] = tf.keep(tf.clone(final));
    });
    this.#optimizer.step({ gradient, gradientScale: 1, lr: this.#lr });
    tf.dispose(gradient);
    const value = new Float32Array(1);
    this.#engine.readInto(loss, value);
    loss.dispose();
    return value[0]!;
  }

  #hostStep(forward: () => Tensor): number {
    const recording = recordForward(() => [forward()]);
    const loss = new Float32Array(1);
    this.#engine.readInto(recording.outputs[0]!, loss);
    recording.backward([this.#one], this.#variables, (index, gradient) =>
      this.#engine.readInto(gradient, this.#regions[index]!),
    );
    this.#optimizer.step({ gradient: this.#gradient, gradientScale: 1, lr: this.#lr });
    return loss[0]!;
  }

  close(): void {
    this.#optimizer.dispose();
    this.#one.dispose();
  }
}

/** The first values of the parameter at `index`. */
function firstValues({ shape, start }: StepParameter, index: number): Float32Array {
  const count = shape.reduce((product, side) => product * side, 1);
  if ('constant' in start) return new Float32Array(count).fill(start.constant);
  return hashValues(index + 1, count, start.bound);
}

function firstTensor(parameter: StepParameter, index: number): Tensor {
  return tf.tensor(firstValues(parameter, index), [...parameter.shape]);
}
