// Writes docs/config.md from the schema of run.yaml. Needs the compiled program (`npm run build`).
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { renderConfigDoc } from './config-doc.mjs';
import { ROOT } from './setup-steps.mjs';

const { runConfigSchema } = await import('../dist/common/config/run-config.js');
writeFileSync(path.join(ROOT, 'docs/config.md'), renderConfigDoc(z.toJSONSchema(runConfigSchema, { io: 'input' })));
