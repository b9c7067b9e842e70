import { once } from 'node:events';
import { PIXELS_MAX_DEFAULT } from '../../common/config/pixels-max.ts';
import { CoveyError } from '../../common/errors.ts';
import { embedShard } from '../../transfer/features/embed-dataset.ts';
import { createContext } from '../context.ts';
import { openBackbone } from './backbone-options.ts';
import { formatsOf } from './embed.ts';
import { prepareFolder } from './embed-into.ts';
import type { FromEmbedWorker, ToEmbedWorker } from './embed-workers.ts';
import { frozenEncoder } from './frozen-encoder.ts';
import { TransferSession } from './session.ts';

/** One worker of `covey embed --workers`: computes the shards it is given until its parent lets it go, or is gone. Started by embed-workers.ts. */

type Job = Extract<ToEmbedWorker, { job: unknown }>['job'];

const say = (message: FromEmbedWorker) => {
  if (process.connected) process.send?.(message);
};

async function work({ source, options, coordinator }: Job, signal: AbortSignal): Promise<void> {
  const context = createContext({ quiet: true, color: false, coordinator }, signal);
  await TransferSession.run(context, { ...options, threads: options.threads ?? 1 }, async (session) => {
    const { backbone } = await openBackbone(context, source, options);
    const opened = await session.openDataset(options.data);
    const { out, data: manifest, normalise: normalised = false } = options;
    const encoder = frozenEncoder(session, backbone);
    const formats = formatsOf(options.format ?? []);
    const folder = await prepareFolder(encoder, opened, { out, manifest, formats, normalised });
    const onBroken = (sampleId: string, reason: string) => say({ broken: { sampleId, reason } });
    const modules = { encoder, ...opened, folder, signal, onBroken };
    for (let next = nextShard(signal, { ready: true }); ; ) {
      const shard = await next;
      await embedShard(opened.dataset.shards[shard]!, { pixelsMax: PIXELS_MAX_DEFAULT }, modules, (pictures) =>
        say({ pictures }),
      );
      next = nextShard(signal, { finished: shard });
    }
  });
}

/** Asks for a shard and waits for it. @throws the signal's reason */
async function nextShard(signal: AbortSignal, asking: FromEmbedWorker): Promise<number> {
  const answer = once(process, 'message', { signal });
  say(asking);
  const [message] = (await answer) as [ToEmbedWorker];
  if ('shard' in message) return message.shard;
  throw new CoveyError('INTERNAL', 'a worker was given a second job');
}

const ending = new AbortController();
const end = () => ending.abort(new CoveyError('CANCELLED', 'the command that started this worker has no more for it'));
process.once('disconnect', end);
process.once('SIGTERM', end);
process.once('message', ({ job }: Extract<ToEmbedWorker, { job: unknown }>) => {
  work(job, ending.signal)
    .catch((thrown: unknown) => {
      const { code, message, fields } = CoveyError.from(thrown);
      // Let go, or out of a parent: nobody asks why.
      if (code !== 'CANCELLED' && !ending.signal.aborted) say({ problem: { code, message, fields: { ...fields } } });
    })
    .finally(() => {
      if (process.connected) process.disconnect();
    });
});
