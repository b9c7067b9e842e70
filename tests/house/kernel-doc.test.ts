import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { KERNEL_FAMILIES } from '../../engine/backend/kernels/register.ts';
import { tf } from '../../engine/index.ts';
// @ts-expect-error a script without types
import { renderKernelDoc, tfjsKernelNames } from '../../scripts/kernel-doc.mjs';

const javascript = tf.getKernelsForBackend('cpu').map(({ kernelName }) => kernelName);
const names = tfjsKernelNames() as string[];

describe('docs/engine-kernels.md', () => {
  it('is what the kernel tables say; otherwise run `npm run build && node scripts/gen-kernel-doc.mjs`', () => {
    const page = readFileSync(path.resolve(import.meta.dirname, '../../docs/engine-kernels.md'), 'utf8');
    expect(page).toBe(renderKernelDoc(names, KERNEL_FAMILIES, javascript));
  });

  it('puts each name in one place', () => {
    expect(names.length).toBe(180);
    const families = Object.values(KERNEL_FAMILIES).flatMap((table) => Object.keys(table));
    expect(families.filter((name, at) => families.indexOf(name) !== at)).toEqual([]);
    expect(families.filter((name) => !names.includes(name))).toEqual([]);
  });

  it('refuses a name that nothing runs and nobody explains', () => {
    expect(() => renderKernelDoc([...names, 'Teleport'], KERNEL_FAMILIES, javascript)).toThrow(/Teleport/);
  });
});
