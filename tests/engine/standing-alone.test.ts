import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../common/built-module.ts';
import { hasTorch } from '../support/engines.ts';

/** Inside the checkout, so that `covey/engine` resolves to the built package as it would for anyone who installed it. */
const folder = mkdtempSync(path.join(packageRoot(), 'build/example-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What the page leaves out: training again must leave nothing behind, and closing nothing at all. */
const CHECKS = `
const tensors = tf.memory().numTensors;
await model.fit(x, y, { epochs: 2, batchSize: 32, verbose: 0 });
const afterFit = tf.memory().numTensors;
const optimizer = model.optimizer;
model.dispose();
optimizer.dispose();
tf.dispose([x, y]);
const atEnd = tf.memory().numTensors;
console.log(JSON.stringify({ engine: engine.name, history, tensors, afterFit, atEnd }));
`;

it('the example of engine/README.md trains as printed there: the loss falls, it learns, nothing leaks', async () => {
  const page = readFileSync(path.join(packageRoot(), 'engine/README.md'), 'utf8');
  const code = /```js\n([\s\S]*?)```/.exec(page)?.[1];
  expect(code).toContain('model.fit');
  const file = path.join(folder, 'example.mjs');
  writeFileSync(file, `${code}${CHECKS}`);
  const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: 60_000 });
  const found = JSON.parse(stdout.trim().split('\n').at(-1)!);
  expect(found.engine).toBe(hasTorch ? 'torch' : 'wasm');
  const { loss, acc } = found.history as { loss: number[]; acc: number[] };
  expect(loss.at(-1)!).toBeLessThan(loss[0]! / 4);
  expect(acc.at(-1)!).toBeGreaterThan(0.93);
  expect(found.afterFit).toBe(found.tensors);
  expect(found.atEnd).toBe(0);
}, 90_000);
