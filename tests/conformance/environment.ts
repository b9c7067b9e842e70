// Points tfjs-core's own specs at the torch backend. Imported before them, in one bundle with the only copy of tfjs-core.
import { availableParallelism } from 'node:os';
import { setTestEnvs } from '@tensorflow/tfjs-core/dist/jasmine_util.js';
import { loadEngine } from '../../engine/load-engine.ts';
import { useTorchBackend } from '../../engine/torch-engine.ts';

// isDataSync: reading back does not wait. IS_TEST, which the specs switch on, is tfjs's leak check around each kernel.
setTestEnvs([{ name: 'torch', backendName: 'torch', flags: {}, isDataSync: true }]);
const device = process.env['COVEY_DEVICE'];
if (device) await loadEngine({ engine: 'torch', threads: availableParallelism(), device, deterministic: false });
else await useTorchBackend();
