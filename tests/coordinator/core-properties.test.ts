import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { divideLanes } from '../../coordinator/core/lanes.ts';
import { newRun, restoreRun } from '../../coordinator/core/run-state.ts';
import { transition } from '../../coordinator/core/transition.ts';
import type { CoreEvent, HeadContent, MemberPhase, RunCoreState } from '../../coordinator/core/types.ts';
import { settings } from './transcript.ts';

const LANES = 5;

/** What may happen next. Workers mostly behave, in any order, with any loss; the world is arbitrary. */
const actionArb = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('join' as const), worker: fc.nat(4) }) },
  { weight: 30, arbitrary: fc.record({ kind: fc.constant('obey' as const), worker: fc.nat(4) }) },
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('step' as const), worker: fc.nat(4) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('lie' as const),
      worker: fc.nat(4),
      generation: fc.nat(6),
      step: fc.nat(6),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('die' as const), worker: fc.nat(4) }) },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 10, max: 800 }) }) },
  { weight: 20, arbitrary: fc.constant({ kind: 'head' as const }) },
  // Everyone does what is asked and the store answers: without such rounds random walks hardly ever get to a step.
  { weight: 20, arbitrary: fc.constant({ kind: 'round' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
  { weight: 1, arbitrary: fc.constantFrom({ kind: 'stop' as const }, { kind: 'resume' as const }) },
);
type Action = typeof actionArb extends fc.Arbitrary<infer T> ? T : never;

interface Worker {
  memberId: string;
  generation: number;
  phase: MemberPhase;
  appliedStep: number;
  hasWeights: boolean;
}

/** A run with its workers and its durable HEAD; checks the promises after every event. */
class World {
  state: RunCoreState = newRun(settings({ lanes: String(LANES), total: '12', lease: '2000' }), 0);
  durable: HeadContent = this.state.head;
  formed = 0;
  #nowMs = 0;
  #joins = 0;
  #writes: { sequence: number; head: HeadContent }[] = [];
  #workers = new Map<number, Worker>();

  act(action: Action) {
    if (action.kind === 'wait') {
      this.#nowMs += action.ms;
      return this.#feed({ kind: 'tick' });
    }
    if (action.kind === 'head') {
      const write = this.#writes.shift();
      if (write === undefined) return;
      expect(write.head.generation).toBeGreaterThanOrEqual(this.durable.generation);
      this.durable = write.head;
      return this.#feed({ kind: 'head-written', sequence: write.sequence });
    }
    if (action.kind === 'round') {
      for (const worker of this.#workers.values()) this.#obey(worker);
      for (const worker of this.#workers.values()) this.#step(worker);
      this.act({ kind: 'head' });
      return;
    }
    if (action.kind === 'restart') {
      this.#writes = [];
      this.state = restoreRun(this.state.settings, this.durable, this.#nowMs);
      return;
    }
    if (action.kind === 'stop' || action.kind === 'resume') return this.#feed({ kind: action.kind });
    if (action.kind === 'join') return this.#join(action.worker);
    const worker = this.#workers.get(action.worker);
    if (worker === undefined) return;
    if (action.kind === 'die') this.#workers.delete(action.worker);
    if (action.kind === 'obey') this.#obey(worker);
    if (action.kind === 'step') this.#step(worker);
    if (action.kind === 'lie')
      this.#feed({
        kind: 'commit',
        memberId: worker.memberId,
        generation: action.generation,
        step: action.step,
        digest: 'lie',
      });
  }

  #join(index: number) {
    this.#joins += 1;
    const memberId = `m${this.#joins}`;
    this.#feed({ kind: 'join', memberId, incarnation: memberId, host: 'h', pid: 1, weight: 1 + index });
    if (this.state.members.has(memberId))
      this.#workers.set(index, { memberId, generation: 0, phase: 'joined', appliedStep: 0, hasWeights: false });
  }

  #obey(worker: Worker) {
    const published = this.state.published;
    if (published !== null && published.generation >= worker.generation) {
      const listed = published.leases.some((lease) => lease.memberId === worker.memberId);
      worker.generation = published.generation;
      if (published.phase === 'quiesce') worker.phase = 'quiesced';
      if (published.phase === 'heal' && listed) {
        if (!published.healSources.includes(worker.memberId)) worker.appliedStep = published.startStep;
        worker.hasWeights = true;
        worker.phase = 'ready';
      }
      if (published.phase === 'run' && listed) worker.phase = 'stepping';
      if (published.phase === 'checkpoint' && published.leases[0]?.memberId === worker.memberId) {
        const { startStep: step, generation } = published;
        this.#feed({
          kind: 'checkpoint',
          memberId: worker.memberId,
          generation,
          checkpoint: { step, generation, manifestKey: `k${step}`, manifestSha256: 's', bytes: 1, createdAtSeconds: 0 },
        });
      }
    }
    const { memberId, generation, phase, appliedStep, hasWeights } = worker;
    this.#feed({
      kind: 'heartbeat',
      memberId,
      generation,
      phase,
      appliedStep,
      hasWeights,
      digest: hasWeights ? `d${appliedStep}` : '',
      suspects: [],
    });
  }

  /** A step needs everyone: whoever is one behind may take it, nobody may be two ahead of anyone. */
  #step(worker: Worker) {
    if (worker.phase !== 'stepping') return;
    const peers = [...this.#workers.values()].filter(
      (other) => other.generation === worker.generation && other.phase === 'stepping',
    );
    if (peers.some((other) => other.appliedStep < worker.appliedStep)) return;
    worker.appliedStep += 1;
    const { memberId, generation, appliedStep: step } = worker;
    this.#feed({ kind: 'commit', memberId, generation, step, digest: `d${step}` });
  }

  #feed(event: CoreEvent) {
    const before = this.state;
    const frozen = JSON.stringify([...before.members]);
    const outcome = transition(before, event, this.#nowMs);
    expect(JSON.stringify([...before.members])).toBe(frozen);
    expect(transition(before, event, this.#nowMs)).toEqual(outcome);
    this.state = outcome.state;
    expect(this.state.generation).toBeGreaterThanOrEqual(before.generation);
    expect(this.state.headGeneration).toBeGreaterThanOrEqual(before.headGeneration);
    expect(this.state.committedStep).toBeGreaterThanOrEqual(before.committedStep);
    let committed = before.committedStep;
    for (const effect of outcome.effects) {
      if (effect.kind === 'write-head') this.#writes.push(effect);
      if (effect.kind === 'adopt-steps') committed = Math.max(committed, effect.to);
      if (effect.kind === 'record-step' && effect.result === 'committed') {
        expect(effect.step).toBe(committed + 1);
        committed = effect.step;
      }
      if (effect.kind !== 'publish' || effect.published.phase === 'quiesce') continue;
      const { generation, phase, leases } = effect.published;
      expect(this.durable.generation).toBe(generation);
      if (phase === 'leave') continue;
      // Adoption after a restart publishes what HEAD already holds.
      expect(leases.map(({ memberId, laneBegin }) => [memberId, laneBegin])).toEqual(
        this.durable.leases.map(({ memberId, laneBegin }) => [memberId, laneBegin]),
      );
      let next = 0;
      for (const lease of leases) {
        expect(lease.laneBegin).toBe(next);
        expect(lease.laneEnd).toBeGreaterThan(lease.laneBegin);
        next = lease.laneEnd;
      }
      expect(next).toBe(LANES);
      expect(new Set(leases.map(({ memberId }) => memberId)).size).toBe(leases.length);
      if (phase === 'run') this.formed += 1;
    }
    expect(this.state.committedStep).toBe(committed);
  }
}

describe('the core, whatever happens', () => {
  it('leases every lane once, never publishes before HEAD, never loses or skips a committed step', () => {
    let formed = 0;
    let committed = 0;
    fc.assert(
      fc.property(fc.array(actionArb, { minLength: 40, maxLength: 200 }), (actions) => {
        const world = new World();
        for (const action of actions) world.act(action);
        formed += world.formed;
        committed += world.state.committedStep;
      }),
      { numRuns: 300 },
    );
    // The walks must get somewhere for the promises to mean anything.
    expect(formed).toBeGreaterThan(100);
    expect(committed).toBeGreaterThan(300);
  });

  it('divides lanes contiguously, completely, and never leaves a holder empty-handed', () => {
    const weights = fc.array(fc.double({ min: 0.1, max: 10, noNaN: true }), { minLength: 1, maxLength: 16 });
    fc.assert(
      fc.property(weights, fc.nat(100), (given, extra) => {
        const laneCount = given.length + extra;
        const spans = divideLanes(laneCount, given);
        expect(spans).toHaveLength(given.length);
        expect(spans[0]!.begin).toBe(0);
        expect(spans.at(-1)!.end).toBe(laneCount);
        for (const [index, span] of spans.entries()) {
          expect(span.end).toBeGreaterThan(span.begin);
          if (index > 0) expect(span.begin).toBe(spans[index - 1]!.end);
        }
      }),
    );
    expect(divideLanes(64, [1, 1, 1]).map(({ begin, end }) => end - begin)).toEqual([22, 21, 21]);
  });
});
