import { torchBackend } from '../../engine/backend/torch-backend.ts';
import { recordForward, type Tensor, tf } from '../../engine/index.ts';
import { type Handle, SCALAR_TYPES } from '../../engine/native/load.ts';
import { type OpCase, randomInputs } from './op-check.ts';

// The torch engine's compositions for devices take fp64 storage (towards tfjs it says float32): there a central difference is exact to 1e-9.

/** Small enough that the quotient's error, of order step², vanishes; large enough that fp64's rounding does. */
const STEP = 1e-5;

function fp64Tensor(values: Float64Array, shape: readonly number[]): Tensor {
  const backend = torchBackend();
  return backend.tensor(backend.addon.fromTyped(values, shape, SCALAR_TYPES.float64), shape);
}

/** Values of a tensor whose storage must still be fp64: an op that rounds on the way would hide behind its own tolerance. */
function fp64Values(tensor: Tensor): Float64Array {
  const { addon } = torchBackend();
  const handle: Handle = torchBackend().handleOf(tensor);
  if (addon.scalarType(handle) !== SCALAR_TYPES.float64) throw new TypeError('the op left fp64');
  return addon.toTyped(handle) as Float64Array;
}

/** Output and each input's gradient of Σ output·cos(index). */
function evaluate64(
  inputs: readonly Float64Array[],
  { shapes, run }: OpCase,
): { output: Float64Array; gradients: Float64Array[] } {
  const names = Object.keys(shapes);
  const variables = names.map((name, i) => tf.tidy(() => tf.variable(fp64Tensor(inputs[i]!, shapes[name]!))));
  const recording = recordForward(() => [run(Object.fromEntries(names.map((name, i) => [name, variables[i]])))]);
  const output = fp64Values(recording.outputs[0]!);
  const upstream = tf.tidy(() =>
    fp64Tensor(
      Float64Array.from(output, (_, i) => Math.cos(i)),
      recording.outputs[0]!.shape,
    ),
  );
  const gradients: Float64Array[] = [];
  recording.backward([upstream], variables, (index, gradient) => {
    gradients[index] = fp64Values(gradient).slice();
  });
  tf.dispose([upstream, ...variables]);
  return { output, gradients };
}

/**
 * The worst difference between gradients and central differences over `places` elements of each input, relative to the input's largest gradient.
 * The engine torch must be current and its compositions on.
 */
export function worstGradientError(op: OpCase, places = 6): number {
  const inputs = Object.values(randomInputs(op.shapes)).map(({ values }) => Float64Array.from(values));
  const { gradients } = evaluate64(inputs, op);
  const loss = () => evaluate64(inputs, op).output.reduce((sum, value, i) => sum + value * Math.cos(i), 0);
  let worst = 0;
  for (const [input, values] of inputs.entries()) {
    const largest = gradients[input]!.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
    for (let place = 0; place < places; place++) {
      const at = Math.floor(((place + 0.37) / places) * values.length);
      const original = values[at]!;
      values[at] = original + STEP;
      const above = loss();
      values[at] = original - STEP;
      const below = loss();
      values[at] = original;
      const expected = (above - below) / (2 * STEP);
      worst = Math.max(worst, Math.abs(gradients[input]![at]! - expected) / largest);
    }
  }
  return worst;
}
