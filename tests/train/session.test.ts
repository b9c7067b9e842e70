import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../common/log.ts';
import type { Assignment } from '../../worker/control/assignment.ts';
import { Session } from '../../worker/session.ts';
import type { SessionModules } from '../../worker/session-modules.ts';
import type { InitialWeights } from '../../worker/train/initial-weights.ts';
import { stateBytes } from '../../worker/train/state-layout.ts';

const LAYOUT = { parameterFloats: 4, bufferFloats: 0, stateSections: ['weights', 'firstMoments', 'secondMoments'] };

/** A session whose parts only note what is asked of them: what is tested is what it asks, and what it reports. */
function newSession(initial?: InitialWeights) {
  const asked: string[] = [];
  const modules = {
    config: {
      run: 'r',
      train: { steps: 10, lanes: 4 },
      timing: { collectiveTimeoutSeconds: 1 },
      checkpoint: { everySteps: 5 },
      eval: { everySteps: 0 },
    },
    ready: { ...LAYOUT, parameters: [], weightsDigest: 'seed' },
    stateBuffer: new SharedArrayBuffer(stateBytes(LAYOUT)),
    compute: {
      epoch: 0,
      abandonQueued: () => asked.push('abandon'),
      request: async ({ kind }: { kind: string }) => {
        asked.push(kind);
        if (kind === 'step') return new Promise(() => undefined);
        return kind === 'initialise' ? { weightsDigest: 'seed' } : null;
      },
    },
    comms: {
      abort: async () => void asked.push('abort'),
      configure: async () => void asked.push('configure'),
      serveState: async () => void asked.push('serve'),
      fetchState: async () => void asked.push('fetch'),
    },
    initialWeights: async () => initial,
    steps: {
      seek: async () => void asked.push('seek'),
      load: async () => {
        asked.push('load');
        return new Promise(() => undefined);
      },
    },
  } as unknown as SessionModules;
  const events = {
    onStatus: () => {},
    onLoaded: () => {},
    onApplied: () => {},
    onGivenUp: () => {},
    onFailure: () => {},
    onEvaluated: async () => undefined,
    onPhase: () => {},
  };
  return { session: new Session('me', modules, events, silentLogger), asked };
}

function assignment(
  phase: Assignment['phase'],
  members: readonly string[],
  change: Partial<Assignment> = {},
): Assignment {
  const share = 4 / Math.max(1, members.length);
  return {
    generation: 1,
    phase,
    members: members.map((memberId, i) => ({ memberId, laneBegin: i * share, laneEnd: (i + 1) * share })),
    startStep: 0,
    healSources: [],
    checkpoint: undefined,
    reason: 'test',
    ...change,
  };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 20));

describe('Session', () => {
  it('takes its lanes, keeps the seed weights at step 0, says READY and steps only when told to', async () => {
    const { session, asked } = newSession();
    void session.run(new AbortController().signal).catch(() => undefined);
    session.assign(assignment('HEAL', ['me', 'other']));
    await settled();
    expect(asked).toEqual(expect.arrayContaining(['seek', 'holdLanes', 'configure']));
    expect(asked).not.toContain('initialise');
    expect(session.status).toMatchObject({ state: 'READY', generation: 1, hasWeights: true, weightsDigest: 'seed' });
    expect(asked).not.toContain('load');
    session.assign(assignment('RUN', ['me', 'other']));
    await settled();
    expect(asked).toContain('load');
    expect(session.status.state).toBe('STEPPING');
  });

  it('begins with the weights that it is given, and holds its lanes behind them: a new trainer would drop them', async () => {
    const { session, asked } = newSession(new Map([['visual.proj', new Float32Array(1)]]));
    void session.run(new AbortController().signal).catch(() => undefined);
    session.assign(assignment('HEAL', ['me']));
    await settled();
    expect(asked.filter((kind) => ['initialise', 'holdLanes'].includes(kind))).toEqual(['initialise', 'holdLanes']);
    expect(session.status).toMatchObject({ state: 'READY', weightsDigest: 'seed' });
  });

  it('does not step in a generation that it is not a member of', async () => {
    const { session, asked } = newSession();
    void session.run(new AbortController().signal).catch(() => undefined);
    session.assign(assignment('RUN', ['other']));
    await settled();
    expect(asked).not.toContain('load');
    expect(session.status.state).toBe('JOINED');
  });

  it('fetches the weights from a peer where it is not among those that hold them', async () => {
    const { session, asked } = newSession();
    void session.run(new AbortController().signal).catch(() => undefined);
    session.assign(assignment('HEAL', ['me', 'other'], { startStep: 3, healSources: ['other'] }));
    await settled();
    expect(asked).toContain('fetch');
    expect(asked).not.toContain('initialise');
  });

  it('ignores an assignment older than the newest', async () => {
    const { session, asked } = newSession();
    void session.run(new AbortController().signal).catch(() => undefined);
    session.assign(assignment('QUIESCE', [], { generation: 5 }));
    await settled();
    expect(session.status).toMatchObject({ generation: 5, state: 'QUIESCED' });
    asked.length = 0;
    session.assign(assignment('RUN', ['me'], { generation: 4 }));
    await settled();
    expect(asked).toEqual([]);
  });
});
