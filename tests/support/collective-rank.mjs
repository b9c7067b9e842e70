// One rank in a process of its own, driven over IPC: so that it can be stopped, killed and blocked. Arguments: the URL of the built
// implementation, the URL of NATS.
import { silentLogger } from '../../dist/common/log.js';

const [implementation, natsUrl] = process.argv.slice(2);
const { NatsCollectives } = await import(implementation);
const collectives = await NatsCollectives.connect({ url: natsUrl, timeoutMs: 20_000 }, { logger: silentLogger });
let group;

const commands = {
  configure: async (message) => {
    group = message.group;
    await collectives.configure(group);
  },
  gather: async ({ op, laneBytes, timeoutMs }) => {
    const out = new Uint8Array(laneBytes * group.laneCount);
    const { laneBegin, laneEnd } = group.members[group.rank];
    for (let lane = laneBegin; lane < laneEnd; lane++) {
      for (let i = 0; i < laneBytes; i++) out[lane * laneBytes + i] = (lane * 31 + op * 17 + i * 7) & 255;
    }
    await collectives.allGather(op, laneBytes, out, { timeoutMs });
    for (let lane = 0; lane < group.laneCount; lane++) {
      for (let i = 0; i < laneBytes; i++) {
        if (out[lane * laneBytes + i] !== ((lane * 31 + op * 17 + i * 7) & 255))
          throw new Error(`wrong byte ${i} of lane ${lane}`);
      }
    }
  },
  // Sleeps without serving the event loop, after answering.
  block: async ({ ms }) => {
    setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms), 5);
  },
};

process.on('message', async (message) => {
  try {
    await commands[message.command](message);
    process.send({ id: message.id, ok: true });
  } catch (error) {
    process.send({ id: message.id, ok: false, code: error.code ?? 'ERROR', message: error.message });
  }
});
process.on('disconnect', () => process.exit(0));
process.send({ id: 0, ok: true });
