/** covey's side of `npm run bench -- loss`: what a worker computes of the loss of one lane. See protocol.ts. */
import { createInterface } from 'node:readline';
import { type Engine, loadEngine, type Tensor2D, tf } from '../../engine/index.ts';
import { clipLaneGradients, clipLogSumExps } from '../../worker/objectives/clip.ts';
import { siglipLaneGradients } from '../../worker/objectives/siglip.ts';
import { hashValues } from '../engine/values.ts';
import type { LossMemory, LossReady, LossRequest, LossSettings, LossTimes } from './protocol.ts';

const SCALE = 100;
const BIAS = -10;

/** Of [rows, width], unit length. */
function unitRows(seed: number, rows: number, width: number): Tensor2D {
  return tf.tidy(() => {
    const x = tf.tensor2d(hashValues(seed, rows * width, 1), [rows, width]);
    return tf.div(x, tf.norm(x, 2, 1, true)) as Tensor2D;
  });
}

/** One loss with its gradients, ready to be run again and again on the same rows. */
function prepared(engine: Engine, { loss, samples, rows, width }: LossSettings): () => number {
  const all = { image_ND: unitRows(1, samples, width), text_ND: unitRows(2, samples, width) };
  const own = { begin: 0, count: rows };
  if (loss === 'siglip') {
    return () => {
      const result = siglipLaneGradients(engine, all, own, SCALE, BIAS);
      tf.dispose([result.dImage_RD, result.dText_RD]);
      return result.lossSum;
    };
  }
  // Those of other lanes come over the network: this lane's own stand in for them, over and over.
  const lse = new Float32Array(2 * rows);
  const everybodys = (offset: number) =>
    tf.tensor1d(new Float32Array(samples).map((_, i) => lse[offset + (i % rows)]!));
  return () => {
    clipLogSumExps(engine, all, own, SCALE, lse);
    const [imageLse_N, textLse_N] = [everybodys(0), everybodys(rows)];
    const result = clipLaneGradients(engine, all, { imageLse_N, textLse_N }, own, SCALE);
    tf.dispose([result.dImage_RD, result.dText_RD, imageLse_N, textLse_N]);
    return result.lossSum;
  };
}

/** By our allocator, which counts every tensor: the heap would hide what fits into memory that was freed before. */
function measureMemory(run: () => number, { rows, width }: LossSettings): LossMemory {
  engine.resetPeakMemory();
  const { liveBytes } = engine.memory();
  const lossSum = run();
  // The outputs: the gradients of the rank's own rows.
  return { beyondBytes: engine.memory().peakBytes - liveBytes - 2 * 4 * rows * width, lossSum };
}

function measureTimes(run: () => number, count: number): LossTimes {
  const seconds: number[] = [];
  const cpuSeconds: number[] = [];
  for (let i = 0; i < count; i++) {
    const [began, cpu] = [performance.now(), process.cpuUsage()];
    run();
    seconds.push((performance.now() - began) / 1000);
    const { user, system } = process.cpuUsage(cpu);
    cpuSeconds.push((user + system) / 1e6);
  }
  return { seconds, cpuSeconds };
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (answer: unknown) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const settings = JSON.parse((await lines.next()).value) as LossSettings;
const engine = await loadEngine({ engine: 'torch', threads: settings.threads });
// Code and libraries are loaded before anything is measured.
prepared(engine, { ...settings, samples: 512, rows: 160 })();
const run = prepared(engine, settings);
say({ version: engine.description } satisfies LossReady);
for await (const line of lines) {
  const request = JSON.parse(line) as LossRequest;
  if (request.do === 'memory') say(measureMemory(run, settings));
  else say(measureTimes(run, request.count));
}
