// Writes docs/engine-kernels.md from the engine's kernel tables. Needs the compiled program (`npm run build`).
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { renderKernelDoc, tfjsKernelNames } from './kernel-doc.mjs';
import { ROOT } from './setup-steps.mjs';

const { KERNEL_FAMILIES } = await import('../dist/engine/backend/kernels/register.js');
const { getKernelsForBackend } = await import('../dist/engine/tf.js');
const javascript = getKernelsForBackend('cpu').map(({ kernelName }) => kernelName);
const page = renderKernelDoc(tfjsKernelNames(), KERNEL_FAMILIES, javascript);
writeFileSync(path.join(ROOT, 'docs/engine-kernels.md'), page);
