import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { memoryChart } from '../../cli/profile/memory-chart.ts';
import type { ProfileReport } from '../../cli/profile/run-profile.ts';
import type { ChromeTrace, TraceEvent } from '../../engine/profile/trace.ts';
import { engineNames } from '../support/engines.ts';

const MAIN = path.resolve(import.meta.dirname, '../../dist/cli/main.js');
const YAML = `run: profile-test
store: file:///nowhere
model:
  embedDim: 16
  vision: { imageSize: 16, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 }
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 4 }
data: { manifest: file:///nowhere/manifest.json }
train: { steps: 10, globalBatch: 8, lanes: 2 }
`;

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'covey-profile-'));
  writeFileSync(path.join(folder, 'run.yaml'), YAML);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function profile(args: readonly string[], interruptAfter?: string): Promise<Finished> {
  return new Promise((resolve) => {
    const env = { ...process.env, NO_COLOR: '1' };
    const child = spawn(process.execPath, [MAIN, 'profile', ...args], { cwd: folder, env, timeout: 90_000 });
    let stdout = '';
    let stderr = '';
    let interrupted = false;
    child.stdout.on('data', (data) => {
      stdout += data;
    });
    child.stderr.on('data', (data) => {
      stderr += data;
      // Once: a second signal would end the process where it stands.
      if (!interruptAfter || interrupted || !stderr.includes(interruptAfter)) return;
      interrupted = child.kill('SIGINT');
    });
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** What chrome://tracing and Perfetto need of an event, and what makes a flame graph of them: calls on one thread nest. */
function problemsOf({ traceEvents }: ChromeTrace): string[] {
  const problems: string[] = [];
  const open: TraceEvent[] = [];
  let lastTs = Number.NEGATIVE_INFINITY;
  for (const [index, event] of traceEvents.entries()) {
    const say = (text: string) => problems.push(`event ${index} (${event.name}): ${text}`);
    if (!['X', 'C', 'M'].includes(event.ph)) say(`phase ${event.ph}`);
    if (!Number.isInteger(event.pid) || !Number.isInteger(event.tid)) say('pid and tid are numbers');
    if (event.ph === 'M') continue;
    if (typeof event.ts !== 'number' || event.ts < 0) say(`ts ${event.ts}`);
    if (event.ts! < lastTs) say(`ts ${event.ts} after ${lastTs}`);
    lastTs = event.ts!;
    if (event.ph === 'C') {
      if (Object.values(event.args ?? {}).some((value) => typeof value !== 'number')) say('a counter counts numbers');
      continue;
    }
    if (typeof event.dur !== 'number' || event.dur < 0) say(`dur ${event.dur}`);
    // In whole nanoseconds: microseconds with decimals do not add up exactly.
    const end = ({ ts, dur }: TraceEvent) => Math.round(1000 * ts!) + Math.round(1000 * dur!);
    while (open.length > 0 && end(open.at(-1)!) <= Math.round(1000 * event.ts!)) open.pop();
    const outer = open.at(-1);
    if (outer && end(event) > end(outer)) say(`ends after ${outer.name}, in which it began`);
    open.push(event);
  }
  return problems;
}

describe.each(engineNames)('covey profile on engine %s', { timeout: 120_000 }, (engine) => {
  const common = ['run.yaml', '--engine', engine, '--steps', '2', '--warmup', '1', '--threads', '1'];
  let report: ProfileReport;
  let trace: ChromeTrace;
  let finished: Finished;
  beforeAll(async () => {
    const file = `${engine}-trace.json`;
    finished = await profile([...common, '--json', '--trace', file]);
    report = JSON.parse(finished.stdout) as ProfileReport;
    trace = JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as ChromeTrace;
  }, 120_000);

  it('reports as one JSON object what it profiled', () => {
    expect(finished.code).toBe(0);
    expect(report).toMatchObject({ engine, threads: 1, precision: 'fp32', globalBatch: 8, lanes: 2, steps: 2 });
    expect(report.kernelMs + report.outsideKernelsMs).toBeCloseTo(report.modules.totalMs, 6);
    expect(report.flopsPerSecond).toBeCloseTo(report.modelFlops.total / (report.stepMs.median / 1000), 0);
    expect(report.gemmShare).toBeCloseTo(report.flopsPerSecond / report.peaks.gemmFlops, 9);
    expect(report.gemmShare).toBeGreaterThan(0);
    expect(report.kernels.length).toBeGreaterThan(10);
    expect(report.dropped).toBe(0);
  });

  it('writes a trace in Chrome’s format whose events nest', () => {
    expect(problemsOf(trace)).toEqual([]);
    const named = (name: string) => trace.traceEvents.filter((event) => event.name === name);
    expect(named('process_name')).toHaveLength(1);
    expect(named('thread_name')).toHaveLength(1);
    expect(named('step 1')).toHaveLength(1);
    expect(named('step 2')).toHaveLength(1);
    // Two lanes in each of two steps.
    expect(named('image tower')).toHaveLength(4);
    expect(named('image tower (backward)').length).toBeGreaterThanOrEqual(4);
    expect(named('memory').length).toBeGreaterThan(100);
    const kernels = trace.traceEvents.filter(({ cat }) => cat === 'kernel');
    expect(kernels.some(({ args }) => Array.isArray(args?.['inputs']) && Number(args?.['flops']) > 0)).toBe(true);
  });

  it('puts every kernel and module of a step inside the step', () => {
    const events = trace.traceEvents.filter(({ ph }) => ph === 'X');
    const steps = events.filter(({ cat }) => cat === 'step');
    const inside = (event: TraceEvent) =>
      steps.some((step) => event.ts! >= step.ts! && event.ts! + event.dur! <= step.ts! + step.dur! + 0.001);
    expect(events.filter(({ cat }) => cat === 'module').every(inside)).toBe(true);
    const kernels = events.filter(({ cat }) => cat === 'kernel');
    expect(kernels.filter(inside).length / kernels.length).toBeGreaterThan(0.95);
  });

  it.each(['moco-v2', 'moco-v3', 'supervised'])('profiles %s, which takes no captions', async (objective) => {
    const file = `${objective}.yaml`;
    const loss = objective === 'supervised' ? 'classes: 3' : 'moco: { width: 16, hidden: 16 }';
    writeFileSync(path.join(folder, file), `${YAML}objective: ${objective}\nloss: { ${loss} }\n`);
    const { code, stdout, stderr } = await profile([file, ...common.slice(1), '--json']);
    expect(code, stderr).toBe(0);
    const { modelFlops, captionTokens } = JSON.parse(stdout) as ProfileReport;
    expect(captionTokens).toBe(0);
    const { imageForward, imageBackward, total } = modelFlops;
    expect(total).toBe(imageForward + imageBackward);
    // A key encoder's forward has no backward, which costs about twice as much where there is one.
    if (objective === 'supervised') expect(imageBackward / imageForward).toBeGreaterThan(1.5);
    else expect(imageBackward / imageForward).toBeLessThan(1.01);
  });

  it('prints tables and a chart for people', async () => {
    const { code, stdout } = await profile([...common, '--top', '3', '--depth', '2', '--batch', '4', '--lanes', '1']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/batch 4 in one lane/);
    expect(stdout).toMatch(/% of the GEMM peak/);
    expect(stdout).toMatch(/\d+ more kernels: --top \d+ shows all/);
    expect(stdout).toMatch(/\n {2}image tower {2,}/);
    expect(stdout).toMatch(/\n {4}block 1 /);
    expect(stdout).not.toMatch(/\n {6}attention /);
    expect(stdout).toMatch(/peak [\d.]+ [KM]iB in \S/);
  });
});

describe('covey profile', { timeout: 60_000 }, () => {
  it('exits 130 when it is interrupted between steps', async () => {
    const args = ['run.yaml', '--engine', 'cpu', '--steps', '1000', '--threads', '1'];
    const { code, stderr, stdout } = await profile(args, 'step');
    expect(stderr).toMatch(/interrupted/);
    expect(code).toBe(130);
    expect(stdout).toBe('');
  });

  it('says which presets there are where it finds neither a file nor a preset', async () => {
    const { code, stderr } = await profile(['ViT-B-33', '--engine', 'cpu']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/'ViT-B-33' is neither a file nor a preset; there are tiny, ViT-B-32/);
  });

  it('exits 2 where the lanes do not divide the batch, and 3 for a config that is wrong', async () => {
    const lanes = await profile(['run.yaml', '--engine', 'cpu', '--batch', '8', '--lanes', '3']);
    expect(lanes).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/lanes must divide the batch of 8: there are 3/),
    });
    const config = await profile(['run.yaml', '--engine', 'cpu', '--set', 'train.globalBatch=many']);
    expect(config.code).toBe(3);
  });

  it('says where a trace cannot be written', async () => {
    const args = ['run.yaml', '--engine', 'cpu', '--steps', '1', '--warmup', '1', '--trace', 'no/such/folder.json'];
    const { code, stderr } = await profile(args);
    expect(code).toBe(1);
    expect(stderr).toMatch(/Cannot write .*folder.json: ENOENT/);
  });

  it('has examples in its help', async () => {
    const { code, stdout } = await profile(['--help']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/covey profile --trace step.json/);
  });
});

describe('the memory chart', () => {
  it('is highest where the peak is, and names the phase below', () => {
    const sample = (ms: number, bytes: number, peakBytes: number, phase: 'forward' | 'backward' | 'other') => {
      return { ms, bytes, peakBytes, module: 'm', phase };
    };
    const lines = memoryChart({
      isExact: true,
      startBytes: 0,
      endBytes: 0,
      peakBytes: 800,
      peakModule: 'm',
      peakPhase: 'backward',
      samples: [sample(36, 400, 400, 'forward'), sample(72, 100, 800, 'backward')],
    });
    const cells = lines.slice(0, -1).map((line) => line.slice(line.indexOf('│') + 1).padEnd(72));
    expect(cells).toHaveLength(8);
    expect(cells[0]!.slice(0, 36).trim()).toBe('');
    expect(cells[0]!.slice(37)).toBe('█'.repeat(35));
    expect(cells[4]!).toBe('█'.repeat(72));
    expect(lines.at(-1)).toMatch(/^ +f+b+$/);
  });

  it('is nothing for a step without samples', () => {
    expect(
      memoryChart({
        isExact: false,
        startBytes: 0,
        endBytes: 0,
        peakBytes: 0,
        peakModule: '',
        peakPhase: 'other',
        samples: [],
      }),
    ).toEqual([]);
  });
});
