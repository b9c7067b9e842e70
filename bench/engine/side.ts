/**
 * covey's side of `npm run bench -- engine`: a process of its own, so that its peak of memory is its own. Speaks protocol.ts on
 * stdin and stdout.
 */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { assert } from '../../common/errors.ts';
import { type Engine, loadEngine, tf, toCompute } from '../../engine/index.ts';
import { type PreparedOp, prepareOp } from './our-ops.ts';
import { type EngineCase, prepareStep } from './our-steps.ts';
import type {
  CheckAnswer,
  GemmAnswer,
  MemoryAnswer,
  OpAnswer,
  OpSpec,
  Precision,
  Ready,
  SideRequest,
  SideSettings,
  StepsAnswer,
} from './protocol.ts';
import { Stopwatch } from './stopwatch.ts';
import { hashValues } from './values.ts';

/** A line of /proc/self/status in MiB. */
function statusMiB(key: string): number {
  const line = readFileSync('/proc/self/status', 'utf8')
    .split('\n')
    .find((one) => one.startsWith(`${key}:`));
  return Number(line?.split(/\s+/)[1] ?? Number.NaN) / 1024;
}

function measureGemm(precision: Precision, size: number, count: number): GemmAnswer {
  return tf.tidy(() => {
    const operand = (seed: number) => toCompute(tf.tensor2d(hashValues(seed, size * size, 1), [size, size]), precision);
    const [a, b] = [operand(1), operand(2)];
    let fastestMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < count; i++) {
      const began = performance.now();
      const product = tf.matMul(a, b);
      fastestMs = Math.min(fastestMs, performance.now() - began);
      product.dispose();
    }
    return { gflops: (2 * size ** 3) / fastestMs / 1e6 };
  });
}

/** Ops stay prepared between requests: the sides take turns over the same op. */
class Ops {
  readonly #settings: SideSettings;
  readonly #engine: Engine;
  #name: string | undefined;
  #prepared: PreparedOp | undefined;

  constructor(settings: SideSettings, engine: Engine) {
    this.#settings = settings;
    this.#engine = engine;
  }

  check(spec: OpSpec): CheckAnswer {
    return this.#prepare(spec).check();
  }

  run({ spec, count }: Extract<SideRequest, { do: 'op' }>): OpAnswer {
    const prepared = this.#prepare(spec);
    const watch = new Stopwatch();
    for (let i = 0; i < count; i++) prepared.run(watch);
    return watch.all();
  }

  #prepare(spec: OpSpec): PreparedOp {
    if (this.#name !== spec.name) {
      this.#prepared?.close();
      this.#prepared = prepareOp(spec, this.#settings.precision, this.#engine);
      this.#name = spec.name;
    }
    return this.#prepared!;
  }
}

function runSteps(prepared: EngineCase, count: number): StepsAnswer {
  const watch = new Stopwatch();
  const losses: number[] = [];
  for (let i = 0; i < count; i++) {
    watch.start();
    losses.push(prepared.step());
    watch.lap('step');
  }
  return { ...watch.timings('step'), losses };
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (answer: unknown) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const first = await lines.next();
const settings = JSON.parse(first.value) as SideSettings;
const engine = await loadEngine({ engine: 'torch', threads: settings.threads });
const baseMiB = statusMiB('VmRSS');
const ops = new Ops(settings, engine);
const step = settings.step === null ? undefined : prepareStep(settings.step, settings.precision, engine);
say({ version: engine.description } satisfies Ready);

for await (const line of lines) {
  const request = JSON.parse(line) as SideRequest;
  switch (request.do) {
    case 'steps':
      assert(step !== undefined, 'steps are asked of a side that was given a step');
      say(runSteps(step, request.count));
      break;
    case 'op':
      say(ops.run(request));
      break;
    case 'check':
      say(ops.check(request.spec));
      break;
    case 'gemm':
      say(measureGemm(settings.precision, request.size, request.count));
      break;
    case 'memory':
      say({ baseMiB, peakMiB: statusMiB('VmHWM') } satisfies MemoryAnswer);
      break;
  }
}
