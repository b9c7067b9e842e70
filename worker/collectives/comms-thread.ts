import { parentPort, workerData } from 'node:worker_threads';
import { errorRecord } from '../../common/error-record.ts';
import { assert, CoveyError } from '../../common/errors.ts';
import { createLogger } from '../../common/log.ts';
import {
  type CommsAnswer,
  type CommsRequest,
  type CommsSetup,
  type ComputeCall,
  TICKET_DONE,
  TICKET_FAILED,
} from './comms-protocol.ts';
import { NatsCollectives } from './nats/nats-collectives.ts';

/** The comms thread of a worker: holds the NATS connection and answers it even while the compute thread is busy. */
class CommsThread {
  readonly #setup: CommsSetup;
  readonly #collectives: NatsCollectives;
  #generation = -1;

  constructor(setup: CommsSetup, collectives: NatsCollectives) {
    this.#setup = setup;
    this.#collectives = collectives;
    setup.computePort.on('message', (call: ComputeCall) => void this.#compute(call));
  }

  async handle(request: CommsRequest): Promise<unknown> {
    switch (request.kind) {
      case 'configure':
        // Before it stands: nothing of an older generation may slip in while the peers are being greeted.
        this.#generation = request.group.generation;
        await this.#collectives.configure(request.group, limit(request.timeoutMs));
        return null;
      case 'abort':
        this.#collectives.abort(request.reason);
        return null;
      case 'serveState':
        this.#collectives.serveState(request.state);
        return null;
      case 'fetchState':
        await this.#collectives.fetchState(request.memberId, request.into, limit(request.timeoutMs));
        return null;
      case 'stats':
        return this.#collectives.stats();
      case 'close':
        // First the operations end with their reasons; then the port that carries them.
        await this.#collectives.close();
        this.#setup.computePort.close();
        return null;
    }
  }

  async #compute(call: ComputeCall): Promise<void> {
    let word = TICKET_DONE;
    try {
      if (call.generation !== this.#generation) {
        throw new CoveyError(
          'ABORTED',
          `operation ${call.op} belongs to generation ${call.generation}; this is ${this.#generation}`,
          {
            fields: { generation: call.generation, current: this.#generation },
          },
        );
      }
      if (call.kind === 'allGather') await this.#collectives.allGather(call.op, call.laneBytes, call.out);
      else await this.#collectives.treeAllReduce(call.op, call.partials, call.out);
    } catch (thrown) {
      this.#setup.computePort.postMessage({ ticket: call.ticket, error: errorRecord(thrown) });
      word = TICKET_FAILED;
    }
    Atomics.store(this.#setup.words, call.ticket, word);
    Atomics.notify(this.#setup.words, call.ticket);
  }
}

function limit(timeoutMs: number | undefined): { timeoutMs?: number } {
  return timeoutMs === undefined ? {} : { timeoutMs };
}

const port = parentPort;
assert(port !== null, 'comms-thread runs as a worker thread');
const setup = workerData as CommsSetup;
try {
  const collectives = await NatsCollectives.connect(
    { ...setup.collectives, url: setup.natsUrl, name: setup.name },
    { logger: createLogger(setup.log) },
  );
  const thread = new CommsThread(setup, collectives);
  port.on('message', async ({ id, request }: { id: number; request: CommsRequest }) => {
    let answer: CommsAnswer;
    try {
      answer = { id, value: await thread.handle(request) };
    } catch (thrown) {
      answer = { id, error: errorRecord(thrown) };
    }
    port.postMessage(answer);
    if (request.kind === 'close') port.close();
  });
  port.postMessage({ id: 0, value: null } satisfies CommsAnswer);
} catch (thrown) {
  port.postMessage({ id: 0, error: errorRecord(thrown) } satisfies CommsAnswer);
}
