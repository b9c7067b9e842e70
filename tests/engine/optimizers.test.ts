import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import {
  type Engine,
  type LarsVariant,
  linear,
  loadEngine,
  newOptimizer,
  type OptimizerSpec,
  tf,
  toCompute,
  toFloat32,
  WeightAverage,
} from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';

const COUNTS = [5_003, 6, 12];
const SHAPES = [[5_003], [2, 3], [12]];
const WEIGHT_DECAYS = [0.1, 0.05, 0];
const LR_SCALES = [1, 0.5, 1];
const ADAPTED = [true, true, false];
const GRADIENT_SCALE = 0.5;
const STEPS = 4;
const rateAt = (step: number) => 0.02 / step;

function randomFloats(name: string, count: number): Float32Array {
  const random = new RandomStream(11, name);
  return Float32Array.from({ length: count }, () => random.normal());
}

const INITIAL = COUNTS.map((count, i) => randomFloats(`parameter ${i}`, count));
// Apart from each other, and behind one another in another order: offsets must be followed.
const OFFSETS = [10, 5_030, 5_015];
const gradientAt = (step: number) => randomFloats(`gradient ${step}`, 5_050);

type Vector = number[];
interface Memory {
  m: Vector;
  v: Vector;
}
/** One update of one parameter, in fp64, from its paper or code: returns the new parameter. */
type Reference = (p: Vector, g: Vector, memory: Memory, own: Own) => Vector;
interface Own {
  readonly lr: number;
  readonly decay: number;
  readonly adapted: boolean;
  readonly rank: number;
  readonly step: number;
}

const norm = (x: Vector) => Math.hypot(...x);

const adam = (p: Vector, g: Vector, { m, v }: Memory, step: number, corrected: boolean): Vector =>
  p.map((_, i) => {
    m[i] = 0.9 * m[i]! + 0.1 * g[i]!;
    v[i] = 0.99 * v[i]! + 0.01 * g[i]! ** 2;
    const mHat = corrected ? m[i]! / (1 - 0.9 ** step) : m[i]!;
    const vHat = corrected ? v[i]! / (1 - 0.99 ** step) : v[i]!;
    return mHat / (Math.sqrt(vHat) + 1e-6);
  });

const lamb =
  (corrected: boolean): Reference =>
  (p, g, memory, { lr, decay, adapted, step }) => {
    const u = adam(p, g, memory, step, corrected).map((r, i) => r + decay * p[i]!);
    const trust = adapted ? norm(p) / norm(u) : 1;
    return p.map((x, i) => x - lr * trust * u[i]!);
  };

const sgd =
  (nesterov: boolean): Reference =>
  (p, g, { m }, { lr, decay }) =>
    p.map((x, i) => {
      const d = g[i]! + decay * x;
      m[i] = 0.9 * m[i]! + d;
      return x - lr * (nesterov ? d + 0.9 * m[i]! : m[i]!);
    });

const larsSimclr: Reference = (p, g, { m }, { lr, decay, adapted }) => {
  const d = g.map((x, i) => x + decay * p[i]!);
  const scaled = lr * (adapted ? (0.01 * norm(p)) / norm(d) : 1);
  return p.map((x, i) => {
    m[i] = 0.9 * m[i]! + scaled * d[i]!;
    return x - m[i]!;
  });
};

const larsMoco: Reference = (p, g, { m }, { lr, decay, rank }) => {
  const d = rank > 1 ? g.map((x, i) => x + decay * p[i]!) : g;
  const trust = rank > 1 ? (0.01 * norm(p)) / norm(d) : 1;
  return p.map((x, i) => {
    m[i] = 0.9 * m[i]! + trust * d[i]!;
    return x - lr * m[i]!;
  });
};

const larc: Reference = (p, g, { m }, { lr, decay }) => {
  const trust = decay !== 0 ? (0.01 * norm(p)) / (norm(g) + decay * norm(p) + 1e-8) : 1;
  return p.map((x, i) => {
    m[i] = 0.9 * m[i]! + trust * (g[i]! + decay * x);
    return x - lr * m[i]!;
  });
};

const lion: Reference = (p, g, { m }, { lr, decay }) =>
  p.map((x, i) => {
    const sign = Math.sign(0.9 * m[i]! + 0.1 * g[i]!);
    m[i] = 0.99 * m[i]! + 0.01 * g[i]!;
    return x - lr * (sign + decay * x);
  });

const betas = { beta1: 0.9, beta2: 0.99 };
const lars = { name: 'lars', momentum: 0.9, nesterov: false, trustCoefficient: 0.01 } as const;
const CASES: readonly [string, OptimizerSpec, Reference][] = [
  [
    'AdamW',
    { name: 'adamw', ...betas, eps: 1e-6 },
    (p, g, memory, { lr, decay, step }) => {
      const r = adam(p, g, memory, step, true);
      return p.map((x, i) => x - lr * (r[i]! + decay * x));
    },
  ],
  ['SGD', { name: 'sgd', momentum: 0.9, nesterov: false }, sgd(false)],
  ['SGD with Nesterov', { name: 'sgd', momentum: 0.9, nesterov: true }, sgd(true)],
  ['LARS of SimCLR', { ...lars, variant: 'simclr' }, larsSimclr],
  ['LARS of MoCo v3', { ...lars, variant: 'moco-v3' }, larsMoco],
  ['LARC', { ...lars, variant: 'larc' }, larc],
  ['LAMB', { name: 'lamb', ...betas, eps: 1e-6, biasCorrection: true }, lamb(true)],
  ['LAMB without bias correction', { name: 'lamb', ...betas, eps: 1e-6, biasCorrection: false }, lamb(false)],
  ['Lion', { name: 'lion', ...betas }, lion],
];

/** The parameters after STEPS updates, in fp64. */
function trajectory(reference: Reference): Vector[] {
  return COUNTS.map((count, index) => {
    const memory = { m: new Array<number>(count).fill(0), v: new Array<number>(count).fill(0) };
    let p = Array.from(INITIAL[index]!);
    for (let step = 1; step <= STEPS; step++) {
      const all = gradientAt(step);
      const g = Array.from({ length: count }, (_, i) => all[OFFSETS[index]! + i]! * GRADIENT_SCALE);
      p = reference(p, g, memory, {
        lr: rateAt(step) * LR_SCALES[index]!,
        decay: WEIGHT_DECAYS[index]!,
        adapted: ADAPTED[index]!,
        rank: SHAPES[index]!.length,
        step,
      });
    }
    return p;
  });
}

describe.each(engineNames)('optimisers on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  function begin(spec: OptimizerSpec) {
    const parameters = INITIAL.map((values, i) => tf.tidy(() => tf.variable(tf.tensor(values.slice(), SHAPES[i]!))));
    const optimizer = newOptimizer(engine, spec, {
      parameters,
      weightDecays: WEIGHT_DECAYS,
      lrScales: LR_SCALES,
      offsets: OFFSETS,
      adapted: ADAPTED,
    });
    const run = (from: number, until: number) => {
      for (let step = from; step <= until; step++) {
        optimizer.step({ gradient: gradientAt(step), gradientScale: GRADIENT_SCALE, lr: rateAt(step) });
      }
    };
    const close = () => {
      optimizer.dispose();
      tf.dispose(parameters);
    };
    return { parameters, optimizer, run, close };
  }

  function read(tensor: tf.Tensor): Float32Array {
    const values = new Float32Array(tensor.size);
    engine.readInto(tensor, values);
    return values;
  }

  it.each(CASES)(
    '%s follows its reference over several steps, decay, scales and offsets included',
    (_, spec, reference) => {
      const before = tf.memory().numTensors;
      const { parameters, run, close } = begin(spec);
      run(1, STEPS);
      trajectory(reference).forEach((expected, index) => {
        const values = read(parameters[index]!);
        expected.forEach((value, i) => {
          // Ten units in the last place: fp32 against fp64, over four updates.
          expect(Math.abs(values[i]! - value)).toBeLessThan(1.2e-6 * Math.max(1, Math.abs(value)));
        });
      });
      close();
      expect(tf.memory().numTensors).toBe(before);
    },
  );

  it.each(CASES)('%s goes on bit for bit from its slots and step count', (_, spec) => {
    const whole = begin(spec);
    whole.run(1, STEPS);
    const [first, second] = [begin(spec), begin(spec)];
    first.run(1, 2);
    second.parameters.forEach((parameter, i) => void engine.writeFrom(parameter, read(first.parameters[i]!)));
    second.optimizer.slots.forEach(({ tensors }, slot) => {
      tensors.forEach((tensor, i) => void engine.writeFrom(tensor, read(first.optimizer.slots[slot]!.tensors[i]!)));
    });
    second.optimizer.stepCount = first.optimizer.stepCount;
    second.run(3, STEPS);
    expect(engine.digest(second.parameters)).toBe(engine.digest(whole.parameters));
    for (const one of [whole, first, second]) one.close();
  });

  it('has three kinds of LARS that differ, by where lr stands, by what is divided and by what is adapted', () => {
    const after = (variant: LarsVariant) => {
      const { parameters, run, close } = begin({ ...lars, variant });
      run(1, STEPS);
      const values = parameters.map((parameter) => Array.from(read(parameter)));
      close();
      return values;
    };
    const [simclr, moco, larcs] = (['simclr', 'moco-v3', 'larc'] as const).map(after) as [Vector[], Vector[], Vector[]];
    const distance = (a: Vector[], b: Vector[], index: number) => norm(a[index]!.map((x, i) => x - b[index]![i]!));
    // The matrix: lr falls from step to step, so it matters whether the momentum remembers the older ones; and ‖g + λp‖ ≤ ‖g‖ + λ‖p‖.
    expect(distance(simclr, moco, 1)).toBeGreaterThan(1e-5);
    expect(distance(moco, larcs, 1)).toBeGreaterThan(1e-6);
    // The first vector has a decay: SimCLR and LARC adapt it, MoCo v3 does not, so that it moves a hundred times farther.
    expect(distance(moco, simclr, 0)).toBeGreaterThan(1);
    expect(distance(moco, larcs, 0)).toBeGreaterThan(1);
  });

  it('keeps the average of weights, exactly where a weight does not move', () => {
    const start = randomFloats('average', 5_000);
    const moved = start.map((value, i) => (i % 2 === 0 ? value : value + 1));
    const variable = tf.tidy(() => tf.variable(tf.tensor1d(start.slice())));
    const average = new WeightAverage(engine, [variable], 0.9);
    engine.writeFrom(variable, moved);
    for (let step = 0; step < 3; step++) average.update();
    const values = read(average.tensors[0]!);
    start.forEach((value, i) => {
      if (i % 2 === 0) expect(values[i]).toBe(value);
      // e ← 0.9e + 0.1p three times: 1 − 0.9³ of the way.
      else expect(Math.abs(values[i]! - (value + 0.271))).toBeLessThan(1e-6 * Math.max(1, Math.abs(value)));
    });
    expect(read(variable)).toEqual(moved);
    average.dispose();
    variable.dispose();
  });

  it('refuses a gradient that ends before the last parameter', () => {
    const { optimizer, close } = begin({ name: 'lion', ...betas });
    expect(() => optimizer.step({ gradient: new Float32Array(5_000), gradientScale: 1, lr: 1 })).toThrow(
      /gradient has 5000 elements/,
    );
    close();
  });
});

describe.skipIf(!hasTorch)('optimisers on several threads', () => {
  it.each(CASES)('%s has the bits of one thread', async (_, spec) => {
    const count = 300_001;
    const initial = randomFloats('large', count);
    const gradient = randomFloats('large gradient', count);
    const digests: string[] = [];
    for (const threads of [1, 2, 3]) {
      const engine = await loadEngine({ engine: 'torch', threads });
      const parameter = tf.tidy(() => tf.variable(tf.tensor1d(initial.slice())));
      const optimizer = newOptimizer(engine, spec, { parameters: [parameter], weightDecays: [0.1], adapted: [true] });
      for (let step = 0; step < 2; step++) optimizer.step({ gradient, gradientScale: 0.5, lr: 0.01 });
      digests.push(engine.digest([parameter, ...optimizer.slots.flatMap(({ tensors }) => tensors)]));
      optimizer.dispose();
      parameter.dispose();
      engine.close();
    }
    expect(new Set(digests).size).toBe(1);
  });

  it('keep the bf16 copies of parameters up to date', async () => {
    const engine = await loadEngine({ engine: 'torch', threads: 1 });
    for (const [, spec] of CASES) {
      const parameter = tf.tidy(() => tf.variable(tf.tensor2d(randomFloats('half', 600), [20, 30])));
      const x = tf.tidy(() => toCompute(tf.tensor2d(randomFloats('input', 150), [5, 30]), 'bf16'));
      // The first product makes the copy, the second must see the update.
      const product = () =>
        tf.tidy(() => Float32Array.from(toFloat32(linear(x, parameter as tf.Tensor2D, null)).dataSync()));
      const before = product();
      const optimizer = newOptimizer(engine, spec, { parameters: [parameter], weightDecays: [0.1], adapted: [true] });
      optimizer.step({ gradient: randomFloats('half gradient', 600), gradientScale: 1, lr: 10 });
      const after = product();
      // Written from outside, the copy is made afresh.
      const values = new Float32Array(600);
      engine.readInto(parameter, values);
      engine.writeFrom(parameter, values);
      expect(product(), spec.name).toEqual(after);
      expect(after).not.toEqual(before);
      optimizer.dispose();
      tf.dispose([parameter, x]);
    }
    engine.close();
  });
});
