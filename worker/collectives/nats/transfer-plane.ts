import type { Clock } from '../../../common/clock.ts';
import { assert, CoveyError } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';
import type { PlaneCounters } from '../collective-stats.ts';
import { EarlyChunks } from './early-chunks.ts';
import { decodeFrame, encodeFrame, type Frame, type FrameKind } from './frame.ts';
import type { Link } from './link.ts';
import { isStateOp, transferKey } from './op-names.ts';
import type { ControlListener, PlaneOptions, PlaneScope } from './plane-scope.ts';
import { Receipts } from './receipts.ts';
import { Ticker } from './ticker.ts';
import { type IncomingSpec, IncomingTransfer, misfit, type OutgoingSpec, OutgoingTransfer } from './transfers.ts';

const EMPTY = new Uint8Array(0);
/** Delays double up to this while nothing moves. */
const DELAY_MS_MAX = 1000;
/** Bytes handed to the client in one turn of the event loop: reading gets its turn too. */
const TURN_BYTES = 2 * 2 ** 20;
const NAK_CHUNKS_MAX = 2048;
/** Ended operations remembered, to answer late probes. Credits bound how many can still be asked about. */
const ENDED_OPS_MAX = 4096;

/**
 * Moves byte ranges between the ranks of one generation over a link that may lose, double, reorder or corrupt messages.
 * A transfer completes exactly when every chunk passed its checksum. Senders hold at most the receiver's grant in flight to it;
 * receipts are cumulative, so that a lost one is made good by the next, and probes ask for them again.
 */
export class TransferPlane {
  readonly counters: PlaneCounters = {
    bytesSent: 0,
    bytesReceived: 0,
    creditWaits: 0,
    gaps: 0,
    retransmits: 0,
    duplicates: 0,
    corrupt: 0,
    stale: 0,
  };
  readonly #options: PlaneOptions;
  readonly #link: Link;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #onControl: ControlListener;
  #scope: PlaneScope | undefined;
  readonly #incoming = new Map<string, IncomingTransfer>();
  /** By op, part and destination; a broadcast appears once per destination. */
  readonly #outgoing = new Map<string, OutgoingTransfer>();
  /** Not yet fully sent, oldest operation first. */
  readonly #queue: OutgoingTransfer[] = [];
  readonly #ended = new Map<string, 'complete' | 'failed'>();
  readonly #early = new EarlyChunks();
  readonly #receipts = new Receipts((source, payload) => this.control('a', source, { op: '0' }, payload));
  #inFlight: number[] = [];
  /** When each rank's data last arrived. */
  #heardAtMs: number[] = [];
  /** How long receipts of each rank take, of late: a slow machine is not a lossy one. */
  #receiptMs: number[] = [];
  #pumpScheduled = false;
  readonly #ticker: Ticker;

  constructor(
    options: PlaneOptions,
    modules: { link: Link; clock: Clock; logger: Logger; onControl: ControlListener },
  ) {
    this.#options = options;
    this.#link = modules.link;
    this.#clock = modules.clock;
    this.#logger = modules.logger;
    this.#onControl = modules.onControl;
    this.#ticker = new Ticker(modules.clock, (nowMs, late) => this.#lookAfter(nowMs, late));
    this.#link.onReconnect(() => this.#recover());
  }

  /** Drops every transfer and begins afresh; undefined: between generations, when everything that arrives is stale. */
  enter(scope: PlaneScope | undefined): void {
    this.#scope = scope;
    this.#incoming.clear();
    this.#outgoing.clear();
    this.#queue.length = 0;
    this.#ended.clear();
    const world = scope?.world ?? 0;
    this.#early.reset(world, scope?.ownGrant ?? 0);
    this.#inFlight = new Array<number>(world).fill(0);
    this.#receipts.reset(world, scope?.ownGrant ?? 0);
    this.#heardAtMs = new Array<number>(world).fill(0);
    this.#receiptMs = new Array<number>(world).fill(0);
    this.#ticker.stop();
  }

  expect(spec: IncomingSpec): void {
    const transfer = new IncomingTransfer(spec, this.#options.chunkBytes, this.#clock.now(), this.#options.nakDelayMs);
    const key = transferKey(spec.op, spec.part, spec.source);
    assert(!this.#incoming.has(key), 'a transfer is expected once', { key });
    this.#incoming.set(key, transfer);
    this.#ticker.start();
    for (const { offset, total, bytes } of this.#early.take(key, spec.source))
      this.#place(transfer, offset, total, bytes);
  }

  send(spec: OutgoingSpec): OutgoingTransfer {
    const transfer = new OutgoingTransfer(spec, this.#options.chunkBytes, 2 * this.#options.nakDelayMs);
    for (const rank of spec.destinations) this.#outgoing.set(transferKey(spec.op, spec.part, rank), transfer);
    this.#queue.push(transfer);
    this.#ticker.start();
    this.schedulePump();
    return transfer;
  }

  /**
   * Ends an operation: nothing more is written to its targets. After success, sent bytes that are not yet confirmed are copied and
   * stay available to peers; after failure they are dropped.
   */
  release(op: string, outcome: 'complete' | 'failed'): void {
    for (const [key, transfer] of this.#incoming) {
      if (transfer.spec.op === op) {
        if (outcome === 'complete') this.#receipts.note(transfer);
        this.#incoming.delete(key);
      }
    }
    for (const transfer of new Set(this.#outgoing.values())) {
      if (transfer.spec.op !== op) continue;
      if (outcome === 'complete') transfer.detach();
      else this.#drop(transfer);
    }
    this.#ended.set(op, outcome);
    if (this.#ended.size > ENDED_OPS_MAX) this.#ended.delete(this.#ended.keys().next().value!);
  }

  /** Whether this op number was used before in this generation. */
  hasEnded(op: string): boolean {
    return this.#ended.has(op);
  }

  /** Ranks an operation still waits for. */
  waitingFor(op: string): number[] {
    const ranks = new Set<number>();
    for (const { spec, complete } of this.#incoming.values()) if (spec.op === op && !complete) ranks.add(spec.source);
    for (const transfer of this.#outgoing.values()) {
      if (transfer.spec.op === op) for (const rank of transfer.lagging()) ranks.add(rank);
    }
    return [...ranks].sort((a, b) => a - b);
  }

  /** A short message outside transfers (handshake, state requests). */
  control(
    kind: FrameKind,
    to: number,
    fields: { op: string; part?: number; offset?: number; total?: number },
    payload: Uint8Array = EMPTY,
  ): void {
    if (!this.#scope) return;
    this.#publish(this.#scope.subjectOf(to), kind, { part: 0, total: 0, offset: 0, ...fields }, payload);
  }

  receive(header: string | undefined, payload: Uint8Array): void {
    let frame: Frame;
    try {
      frame = decodeFrame(header, payload);
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'DATA_CORRUPT')) throw thrown;
      this.counters.corrupt++;
      this.#logger.debug({ err: thrown }, 'dropped a broken tensor message');
      return;
    }
    const scope = this.#scope;
    if (!scope || frame.generation !== scope.generation || frame.source >= scope.world || frame.source === scope.rank) {
      this.counters.stale++;
      return;
    }
    if (frame.kind === 'd') this.#onData(frame, payload);
    else if (frame.kind === 'a') this.#onReceipts(frame, payload);
    else if (frame.kind === 'n') this.#onNak(frame, payload);
    else if (frame.kind === 'p') this.#onProbe(frame);
    else this.#onControl(frame, payload);
  }

  schedulePump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    setImmediate(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  close(): void {
    this.enter(undefined);
  }

  /** Sends what credits allow: the oldest operation first, its transfers in turn, so that slices reach their owners together. */
  #pump(): void {
    let budget = TURN_BYTES;
    let blocked = false;
    for (;;) {
      let progressedOp: string | undefined;
      for (let i = 0; i < this.#queue.length && this.#link.connected; i++) {
        const transfer = this.#queue[i]!;
        if (progressedOp !== undefined && transfer.spec.op !== progressedOp) break;
        const chunk = transfer.next();
        if (chunk < 0) continue;
        const bytes = transfer.chunk(chunk);
        if (!this.#hasCredit(transfer, bytes.byteLength)) {
          blocked = true;
          continue;
        }
        this.#sendChunk(transfer, chunk, bytes);
        progressedOp = transfer.spec.op;
        budget -= bytes.byteLength;
        if (transfer.allSent) this.#queue.splice(i--, 1);
      }
      if (progressedOp === undefined) break;
      if (budget <= 0) {
        this.schedulePump();
        return;
      }
    }
    if (blocked) this.counters.creditWaits++;
  }

  #hasCredit(transfer: OutgoingTransfer, bytes: number): boolean {
    return transfer.spec.destinations.every((rank) => {
      const inFlight = this.#inFlight[rank]!;
      return inFlight === 0 || inFlight + bytes <= this.#scope!.grants[rank]!;
    });
  }

  #sendChunk(transfer: OutgoingTransfer, chunk: number, bytes: Uint8Array): void {
    const scope = this.#scope!;
    const { destinations } = transfer.spec;
    for (const rank of destinations) this.#inFlight[rank]! += bytes.byteLength;
    const subject =
      destinations.length === scope.world - 1 && scope.world > 2
        ? scope.broadcastSubject
        : scope.subjectOf(destinations[0]!);
    assert(subject === scope.broadcastSubject || destinations.length === 1, 'a transfer goes to one peer or to all');
    this.#publishChunk(subject, transfer, chunk, bytes);
  }

  #publishChunk(subject: string, transfer: OutgoingTransfer, chunk: number, bytes: Uint8Array): void {
    const { op, part } = transfer.spec;
    this.#publish(subject, 'd', { op, part, offset: transfer.offset(chunk), total: transfer.total }, bytes);
    transfer.noteSent(chunk, this.#clock.now());
    this.counters.bytesSent += bytes.byteLength;
  }

  #publish(
    subject: string,
    kind: FrameKind,
    fields: Pick<Frame, 'op' | 'part' | 'offset' | 'total'>,
    payload: Uint8Array,
  ): void {
    const { generation, rank } = this.#scope!;
    this.#link.publish(subject, encodeFrame({ kind, generation, source: rank, ...fields }, payload), payload);
  }

  #onData(frame: Frame, payload: Uint8Array): void {
    this.counters.bytesReceived += payload.byteLength;
    this.#heardAtMs[frame.source] = this.#clock.now();
    const key = transferKey(frame.op, frame.part, frame.source);
    const transfer = this.#incoming.get(key);
    if (transfer) this.#place(transfer, frame.offset, frame.total, payload);
    else if (this.#ended.has(frame.op)) this.counters.duplicates++;
    else if (!this.#early.keep(key, frame, payload)) this.counters.duplicates++;
  }

  #place(transfer: IncomingTransfer, offset: number, total: number, bytes: Uint8Array): void {
    if (transfer.complete) {
      this.counters.duplicates++;
      return;
    }
    const outcome = transfer.place(offset, total, bytes);
    const { spec } = transfer;
    if (outcome === 'duplicate') this.counters.duplicates++;
    if (outcome === 'misfit') spec.onMisfit(misfit(spec, offset, total, bytes.byteLength));
    if (outcome !== 'placed') return;
    transfer.progressAtMs = this.#clock.now();
    transfer.nakDelayMs = this.#options.nakDelayMs;
    this.#receipts.note(transfer);
    if (transfer.complete) spec.onComplete();
  }

  #onReceipts(frame: Frame, payload: Uint8Array): void {
    for (const line of Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength)
      .toString('latin1')
      .split('\n')) {
      const [op, part, received] = line.split(' ');
      const transfer = this.#outgoing.get(transferKey(op!, Number(part), frame.source));
      if (transfer) this.#confirm(transfer, frame.source, Math.min(Number(received), transfer.total));
    }
    this.schedulePump();
  }

  #confirm(transfer: OutgoingTransfer, rank: number, received: number): void {
    const before = transfer.confirmed.get(rank)!;
    if (received <= before) return;
    transfer.confirmed.set(rank, received);
    const sampleMs = transfer.confirmationMs(received, this.#clock.now());
    if (sampleMs !== undefined) this.#receiptMs[rank] = Math.max(0.9 * this.#receiptMs[rank]!, sampleMs);
    transfer.progressAtMs = this.#clock.now();
    transfer.probeDelayMs = 2 * this.#options.nakDelayMs;
    this.#inFlight[rank]! -= received - before;
    if (received === transfer.total) this.#outgoing.delete(transferKey(transfer.spec.op, transfer.spec.part, rank));
    if (transfer.allConfirmed) transfer.spec.onReceipts();
  }

  #drop(transfer: OutgoingTransfer): void {
    for (const [rank, confirmed] of transfer.confirmed) {
      this.#outgoing.delete(transferKey(transfer.spec.op, transfer.spec.part, rank));
      this.#inFlight[rank]! -= Math.max(0, transfer.sent - confirmed);
    }
    const queued = this.#queue.indexOf(transfer);
    if (queued >= 0) this.#queue.splice(queued, 1);
    this.schedulePump();
  }

  /** A peer misses chunks. Resent to it alone, from the bytes still held. */
  #onNak(frame: Frame, payload: Uint8Array): void {
    const transfer = this.#outgoing.get(transferKey(frame.op, frame.part, frame.source));
    if (!transfer || !this.#scope) return;
    const missing = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength)
      .toString('latin1')
      .split(' ')
      .map(Number);
    const ageMs = Math.min(Math.max(this.#options.nakDelayMs, 2 * this.#receiptMs[frame.source]!), DELAY_MS_MAX);
    for (const chunk of transfer.resendable(missing, this.#clock.now(), ageMs)) {
      this.counters.retransmits++;
      this.#publishChunk(this.#scope.subjectOf(frame.source), transfer, chunk, transfer.chunk(chunk));
    }
  }

  /** A sender has heard nothing for a while: tell it again what arrived. */
  #onProbe(frame: Frame): void {
    const transfer = this.#incoming.get(transferKey(frame.op, frame.part, frame.source));
    const outcome = this.#ended.get(frame.op);
    // A state transfer that was given up here is confirmed too: its sender need not hold credit for it.
    const settled = outcome === 'complete' || (outcome === 'failed' && isStateOp(frame.op));
    const received = transfer ? transfer.received : settled ? frame.total : undefined;
    if (received === undefined) return;
    this.control('a', frame.source, { op: '0' }, Buffer.from(`${frame.op} ${frame.part} ${received}`));
    // NATS keeps a publisher's order: whatever it sent before this probe is here or lost.
    if (transfer && !transfer.complete) this.#sendNak(transfer, frame.offset);
  }

  /** Asks for what is missing below chunk `end`. While the source delivers, later chunks may simply not have been sent yet. */
  #sendNak(transfer: IncomingTransfer, end?: number): void {
    const { op, part, source, target } = transfer.spec;
    const quiet = this.#clock.now() - this.#heardAtMs[source]! >= this.#options.nakDelayMs;
    const missing = transfer.missing(NAK_CHUNKS_MAX, end ?? (quiet ? transfer.chunkCount : transfer.overtaken));
    if (missing.length === 0) return;
    this.counters.gaps++;
    this.control('n', source, { op, part, total: target.byteLength }, Buffer.from(missing.join(' ')));
    transfer.nakAtMs = this.#clock.now();
    transfer.nakDelayMs = Math.min(2 * transfer.nakDelayMs, DELAY_MS_MAX);
  }

  /** Asks again for what does not come. @returns whether any transfer is under way */
  #lookAfter(nowMs: number, late: boolean): boolean {
    let busy = false;
    for (const transfer of this.#incoming.values()) {
      if (transfer.complete) continue;
      busy = true;
      if (late) this.#heardAtMs[transfer.spec.source] = transfer.progressAtMs = nowMs;
      if (nowMs - Math.max(transfer.progressAtMs, transfer.nakAtMs) < transfer.nakDelayMs) continue;
      this.#sendNak(transfer);
    }
    for (const transfer of this.#outgoing.values()) {
      busy = true;
      if (transfer.sent === 0 || nowMs - transfer.progressAtMs < transfer.probeDelayMs) continue;
      for (const rank of transfer.lagging())
        this.control('p', rank, {
          op: transfer.spec.op,
          part: transfer.spec.part,
          offset: transfer.cursor,
          total: transfer.total,
        });
      transfer.progressAtMs = nowMs;
      transfer.probeDelayMs = Math.min(2 * transfer.probeDelayMs, DELAY_MS_MAX);
    }
    return busy;
  }

  /** After a reconnection anything may have been lost: ask at once instead of after a delay. */
  #recover(): void {
    for (const transfer of this.#incoming.values()) {
      transfer.progressAtMs = 0;
      transfer.nakAtMs = 0;
      transfer.nakDelayMs = this.#options.nakDelayMs;
    }
    for (const transfer of this.#outgoing.values()) {
      transfer.progressAtMs = 0;
      transfer.forgetTimes();
    }
    this.#heardAtMs.fill(0);
    this.#ticker.tickNow();
    this.schedulePump();
  }
}
