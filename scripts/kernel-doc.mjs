// docs/engine-kernels.md as text: which of tfjs-core's kernel names run natively, in JavaScript, or not at all.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

/** Why a name has no kernel on any of tfjs's backends for Node. */
const ABSENT = {
  FromPixels: 'reads a browser’s canvas; pictures come in through `pixelsToTensor` or `tf.tensor`',
  LowerBound: 'a name only: tf.lowerBound runs SearchSorted',
  UpperBound: 'a name only: tf.upperBound runs SearchSorted',
  MatrixBandPart: 'a name only: tf.linalg.bandPart is composed of others',
  Pool: 'a name only: tf.pool is composed of others',
};

/** Every kernel name of the installed tfjs-core. Its package exports them among everything else, so the source is read. */
export function tfjsKernelNames() {
  const dist = path.dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-core'));
  const source = readFileSync(path.join(dist, 'kernel_names.js'), 'utf8');
  return [...source.matchAll(/^export const \w+ = '([^']+)';/gm)].map(([, name]) => name);
}

/** `families`: {family: {kernelName: …}}; `javascript`: names that tfjs's CPU backend has. */
export function renderKernelDoc(names, families, javascript) {
  const native = new Set(Object.values(families).flatMap((table) => Object.keys(table)));
  const fallback = names.filter((name) => !native.has(name) && javascript.includes(name));
  const absent = names.filter((name) => !native.has(name) && !javascript.includes(name));
  const list = (some) =>
    [...some]
      .sort()
      .map((name) => `\`${name}\``)
      .join(' ');
  const unexplained = absent.filter((name) => !ABSENT[name]);
  if (unexplained.length > 0)
    throw new Error(`nothing runs ${unexplained.join(', ')}, and kernel-doc.mjs does not say why`);
  return `# Kernels of the torch engine

Written by \`scripts/gen-kernel-doc.mjs\` from the kernel tables in \`engine/backend/kernels/\`; a test fails when it is out of date.

Of tfjs-core's ${names.length} kernel names ${names.filter((name) => native.has(name)).length} run natively, ${fallback.length} in JavaScript, ${absent.length} nowhere.

## Native

Compositions of ATen operators (or kernels of the addon) on the engine's own storage.

| family | kernels |
| --- | --- |
${Object.entries(families)
  .map(([family, table]) => `| ${family} | ${list(Object.keys(table))} |`)
  .join('\n')}

## In JavaScript

tfjs's CPU kernels on copies of the inputs. Each call is counted: \`fallbackUses()\`, \`onHotFallback(listener)\`, and from a worker
the metric \`covey_engine_fallback_calls_total{kernel}\` and one warning per kernel that becomes hot.

${list(fallback)}

String tensors take this path for every kernel: libtorch has no storage for them.

## Nowhere

| name | why |
| --- | --- |
${absent.map((name) => `| \`${name}\` | ${ABSENT[name]} |`).join('\n')}
`;
}
