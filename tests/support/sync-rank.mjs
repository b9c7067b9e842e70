// The compute thread of a rank: blocking calls, one at a time, as a training step makes them.
import { parentPort, workerData } from 'node:worker_threads';
import { SyncCollectives } from '../../dist/worker/collectives/sync-collectives.js';

const sync = new SyncCollectives(workerData.end);
parentPort.on('message', ({ id, generation, calls }) => {
  const started = performance.now();
  try {
    sync.enter(generation);
    const tickets = [];
    for (const call of calls) {
      if (call.kind === 'gather') sync.allGather(call.op, call.laneBytes, call.out);
      else if (call.kind === 'busy') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, call.ms);
      else tickets.push(sync.startTreeAllReduce(call.op, call.partials, call.out));
    }
    sync.wait(tickets);
    parentPort.postMessage({ id, ok: true, ms: performance.now() - started });
  } catch (error) {
    parentPort.postMessage({ id, ok: false, code: error.code, message: error.message, fields: error.fields });
  }
});
