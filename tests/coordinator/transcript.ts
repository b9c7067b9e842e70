import { newRun, restoreRun, runStatus } from '../../coordinator/core/run-state.ts';
import { transition } from '../../coordinator/core/transition.ts';
import type {
  CoreEffect,
  CoreEvent,
  HeadContent,
  LaneLease,
  MemberPhase,
  Published,
  RunCoreState,
  RunSettings,
} from '../../coordinator/core/types.ts';

/**
 * Runs a transcript: blocks of one command a line, `----`, and what the core answered. In the style of etcd-io/raft's
 * interaction tests: the transcript is test and documentation. Commands are listed in `execute`.
 */
export class TranscriptRunner {
  #state: RunCoreState;
  #settings: RunSettings;
  #nowMs = 0;
  #durable: HeadContent;
  #writes: { sequence: number; head: HeadContent }[] = [];

  constructor() {
    this.#settings = settings({});
    this.#state = newRun(this.#settings, 0);
    this.#durable = this.#state.head;
  }

  get state(): RunCoreState {
    return this.#state;
  }

  execute(line: string): string[] {
    const [command = '', ...words] = line.trim().split(/\s+/);
    const named = Object.fromEntries(
      words.filter((word) => word.includes('=')).map((word) => word.split('=', 2) as [string, string]),
    );
    const plain = words.filter((word) => !word.includes('='));
    const member = plain[0] ?? '';
    const generation = Number(named['g'] ?? this.#state.generation);
    switch (command) {
      case 'run':
        this.#settings = settings(named);
        this.#writes = [];
        this.#state = newRun(this.#settings, this.#nowMs);
        this.#durable = this.#state.head;
        return [];
      case 'join':
        return this.#feed({
          kind: 'join',
          memberId: named['as'] ?? member,
          incarnation: member,
          host: 'host',
          pid: 1,
          weight: Number(named['weight'] ?? 1),
          loading: plain.includes('loading'),
        });
      case 'beat':
        return this.#feed(beat(member, plain[1] as MemberPhase, generation, named));
      case 'commit':
        return this.#feed({
          kind: 'commit',
          memberId: member,
          generation,
          step: Number(named['step']),
          digest: named['digest'] ?? `d${named['step']}`,
        });
      case 'evaluated':
        return this.#feed({ kind: 'evaluation', memberId: member, generation, step: Number(named['step']) });
      case 'checkpoint': {
        const step = Number(named['step']);
        const checkpoint = {
          step,
          generation,
          manifestKey: `step-${step}-g${generation}`,
          manifestSha256: 'sha',
          bytes: 1,
          createdAtSeconds: 0,
        };
        return this.#feed({ kind: 'checkpoint', memberId: member, generation, checkpoint });
      }
      case 'failure':
        return this.#feed({
          kind: 'failure',
          memberId: member,
          generation,
          code: 'DATA_CORRUPT',
          message: 'shard 3 is unreadable',
        });
      case 'leave':
        return this.#feed({ kind: 'leave', memberId: member, reason: '' });
      case 'stop':
      case 'resume':
        return this.#feed({ kind: command });
      case 'wait':
        return this.#wait(Number(plain[0]), words.slice(1).join(' ').split('beat ').slice(1));
      case 'head-written':
        return this.#writeHead();
      case 'head-lost':
        this.#writes = [];
        return this.#feed({ kind: 'head-lost', by: 'other' });
      case 'restart':
        this.#writes = [];
        this.#state = restoreRun(this.#settings, this.#durable, this.#nowMs);
        return [this.#status()];
      case 'status':
        return [this.#status()];
      default:
        return [`unknown command: ${command}`];
    }
  }

  /** Time passes in steps of 100 ms; members named `beat NAME PHASE …` keep their leases meanwhile. */
  #wait(durationMs: number, beats: readonly string[]): string[] {
    const said: string[] = [];
    const until = this.#nowMs + durationMs;
    while (this.#nowMs < until) {
      this.#nowMs += 100;
      for (const line of beats) said.push(...this.execute(`beat ${line}`));
      said.push(...this.#feed({ kind: 'tick' }));
    }
    return said;
  }

  #writeHead(): string[] {
    const write = this.#writes.shift();
    if (write === undefined) return ['nothing to write'];
    this.#durable = write.head;
    return this.#feed({ kind: 'head-written', sequence: write.sequence });
  }

  #feed(event: CoreEvent): string[] {
    const outcome = transition(this.#state, event, this.#nowMs);
    this.#state = outcome.state;
    const said: string[] = [];
    if (outcome.refusal) said.push(`${outcome.refusal.code}: ${outcome.refusal.message}`);
    else if (outcome.reason) said.push(outcome.reason);
    if (outcome.reply.diverged) said.push('  reply: diverged');
    for (const effect of outcome.effects) {
      if (effect.kind === 'write-head') this.#writes.push(effect);
      const text = describeEffect(effect);
      if (text) said.push(`  ${text}`);
    }
    return said;
  }

  #status(): string {
    const { generation, headGeneration, phase, committedStep, currentStep } = this.#state;
    return `${runStatus(this.#state)}, phase ${phase}, generation ${generation} (HEAD ${headGeneration}), step ${currentStep} (committed ${committedStep})`;
  }
}

function beat(memberId: string, phase: MemberPhase, generation: number, named: Record<string, string>): CoreEvent {
  const step = named['step'] === undefined ? undefined : Number(named['step']);
  return {
    kind: 'heartbeat',
    memberId,
    generation: (phase === 'joined' || phase === 'loading') && named['g'] === undefined ? 0 : generation,
    phase,
    appliedStep: step ?? 0,
    hasWeights: step !== undefined,
    digest: named['digest'] ?? (step === undefined ? '' : `d${step}`),
    suspects: named['suspects']?.split(',') ?? [],
  };
}

function describeEffect(effect: CoreEffect): string {
  switch (effect.kind) {
    case 'write-head': {
      const { generation, startStep, leases, state, checkpoints } = effect.head;
      const checkpoint = checkpoints.at(-1);
      return `write HEAD: generation ${generation} from step ${startStep}, ${state}${checkpoint ? `, checkpoint ${checkpoint.step}` : ''}, lanes ${describeLanes(leases)}`;
    }
    case 'publish':
      return `publish: ${describePublished(effect.published)}`;
    case 'record-step':
      return `step ${effect.step} ${effect.result}`;
    case 'record-evaluation':
      return `step ${effect.step} evaluated`;
    case 'adopt-steps':
      return `steps ${effect.from + 1} to ${effect.to} adopted`;
    case 'abort-step':
      return 'step in flight aborted';
    case 'fenced':
      return `fenced: ${effect.what}`;
    case 'event':
      return effect.about === 'warning' ? `warning: ${effect.message}` : '';
    case 'membership':
    case 'formed':
      return '';
  }
}

function describePublished({ generation, phase, startStep, healSources, checkpoint, leases }: Published): string {
  if (phase === 'quiesce' || phase === 'leave') return `${phase} ${generation}`;
  const from =
    healSources.length > 0
      ? `from ${healSources.join(' ')}`
      : checkpoint
        ? `from checkpoint ${checkpoint.step}`
        : 'from the seed';
  return `${phase} ${generation} at step ${startStep} ${from}, lanes ${describeLanes(leases)}`;
}

function describeLanes(leases: readonly LaneLease[]): string {
  return leases.map((lease) => `${lease.memberId}[${lease.laneBegin},${lease.laneEnd})`).join(' ') || 'none';
}

export function settings(named: Record<string, string>): RunSettings {
  return {
    run: 'r',
    totalSteps: Number(named['total'] ?? 100),
    laneCount: Number(named['lanes'] ?? 4),
    workersMin: Number(named['min'] ?? 1),
    workersExpected: Number(named['expected'] ?? 1),
    joinWaitMs: Number(named['joinWait'] ?? 1000),
    leaseTtlMs: Number(named['lease'] ?? 2000),
    joinCoalesceMs: Number(named['coalesce'] ?? 200),
    quiesceTimeoutMs: Number(named['quiesceTimeout'] ?? 30_000),
    healTimeoutMs: Number(named['healTimeout'] ?? 60_000),
    checkpointTimeoutMs: Number(named['checkpointTimeout'] ?? 60_000),
    checkpointsKept: 3,
  };
}

/** Runs all blocks of a transcript; returns it with the answers as they are now. */
export function replay(transcript: string): string {
  const runner = new TranscriptRunner();
  const out: string[] = [];
  for (const block of transcript.split(/\n\n+/)) {
    const lines = block.split('\n').filter((line) => line !== '');
    const divider = lines.indexOf('----');
    const commands = divider < 0 ? lines : lines.slice(0, divider);
    const answers = commands.filter((line) => !line.startsWith('#')).flatMap((line) => runner.execute(line));
    const said = commands.some((line) => !line.startsWith('#'))
      ? ['----', ...(answers.length > 0 ? answers : ['ok'])]
      : [];
    if (commands.length > 0) out.push([...commands, ...said].join('\n'));
  }
  return `${out.join('\n\n')}\n`;
}
