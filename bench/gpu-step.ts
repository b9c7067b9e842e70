// ViT-B/16's image tower, one training step in bf16 on one card, against PyTorch eager on the same card; and how much of the step the card is busy.
// Where there is no GPU the same code runs on the CPU with a small tower, and the rows say so: they are no measurement of anything.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { torchBackend } from '../engine/backend/torch-backend.ts';
import { requireDevice } from '../engine/devices.ts';
import { type Engine, loadEngine } from '../engine/index.ts';
import { presets } from '../models/presets.ts';
import { type EngineCase, prepareStep } from './engine/our-steps.ts';
import { imageCase, type StepCase } from './engine/step-specs.ts';
import { busyShare, type TraceEvent } from './support/gpu-trace.ts';
import { type BenchRow, median } from './support/rows.ts';
import { startPython, torchVersion } from './support/torch-peer.ts';

export interface GpuRow extends Omit<BenchRow, 'ours'> {
  readonly device: string;
  /** Null: the trace held no work of the card. */
  readonly ours: number | null;
  readonly note?: string;
}

const WARM_UP = 3;
const ROUNDS = 5;

interface PeerAnswer {
  readonly seconds: number;
  readonly losses: readonly number[];
  readonly peakBytes: number | null;
}

export async function run({ quick }: { quick: boolean }): Promise<GpuRow[]> {
  const { kind } = requireDevice(process.env['COVEY_DEVICE'] ?? 'auto', 0);
  const threads = availableParallelism();
  const engine = await loadEngine({ engine: 'torch', threads, device: kind, tf32: true, deterministic: false });
  const onGpu = kind === 'cuda';
  const step = onGpu
    ? imageCase(quick ? 64 : 256, presets['ViT-B-16']!, 'ViT-B/16')
    : imageCase(2, presets['tiny']!, 'tiny');
  const peer = await startPeer(step, engine, threads);
  const ours = prepareStep(step.spec, 'bf16', engine);
  try {
    return await measure({ engine, step, ours, peer, stepsPerRound: quick || !onGpu ? 3 : 10 });
  } finally {
    ours.close();
    await peer?.close();
    engine.close();
  }
}

/** The Python of COVEY_BENCH_TORCH_NEW or the first on PATH: the torch the addon was built against, if the person kept to docs/gpu.md. */
async function startPeer(step: StepCase, engine: Engine, threads: number) {
  const python = process.env['COVEY_BENCH_TORCH_NEW'] ?? 'python3';
  if (torchVersion(python) === undefined) {
    process.stderr.write(`${python} has no torch: no peer to compare with\n`);
    return undefined;
  }
  const child = startPython(python, 'gpu_step.py');
  await child.ask({ step: step.spec, precision: 'bf16', device: engine.device, threads });
  return child;
}

interface Measured {
  readonly engine: Engine;
  readonly step: StepCase;
  readonly ours: EngineCase;
  readonly peer: Awaited<ReturnType<typeof startPeer>>;
  readonly stepsPerRound: number;
}

async function measure({ engine, step, ours, peer, stepsPerRound }: Measured): Promise<GpuRow[]> {
  const device = engine.device;
  const onGpu = device !== 'cpu';
  const peerSteps = async (count: number) => (await peer?.ask({ count })) as PeerAnswer | undefined;
  engine.resetPeakMemory();
  const losses = Array.from({ length: WARM_UP }, () => ours.step());
  const warm = await peerSteps(WARM_UP);
  const oursMs: number[] = [];
  const peerMs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const began = performance.now();
    for (let i = 0; i < stepsPerRound; i++) ours.step();
    oursMs.push((performance.now() - began) / stepsPerRound);
    const answer = await peerSteps(stepsPerRound);
    if (answer) peerMs.push((1000 * answer.seconds) / stepsPerRound);
  }
  const note = onGpu ? {} : { note: 'no GPU: the same code on the CPU, not a measurement' };
  const time = { ours: median(oursMs), peer: peerMs.length > 0 ? median(peerMs) : null };
  const rows: GpuRow[] = [
    {
      case: `step, ${step.label}, bf16`,
      device,
      ...time,
      ratio: time.peer && time.peer / time.ours,
      unit: 'ms/step',
      ...note,
    },
    {
      case: 'products',
      device,
      ours: step.flops / time.ours / 1e9,
      peer: time.peer && step.flops / time.peer / 1e9,
      ratio: null,
      unit: 'TFLOP/s',
      ...note,
    },
    {
      case: `loss after ${WARM_UP} steps`,
      device,
      ours: losses.at(-1)!,
      peer: warm?.losses.at(-1) ?? null,
      ratio: null,
      unit: 'loss',
      ...note,
    },
  ];
  if (onGpu)
    rows.push(memoryRow(engine, await peerSteps(1)), {
      case: 'GPU busy',
      device,
      ours: traced(ours),
      peer: null,
      ratio: null,
      unit: 'share of the step',
    });
  return rows;
}

function memoryRow(engine: Engine, answer: PeerAnswer | undefined): GpuRow {
  const ours = engine.memory().peakBytes / 2 ** 20;
  const peer = answer?.peakBytes ? answer.peakBytes / 2 ** 20 : null;
  return { case: 'peak memory', device: engine.device, ours, peer, ratio: peer && peer / ours, unit: 'MiB' };
}

/** Busy share of a few steps in a trace of libtorch's profiler. */
function traced(ours: EngineCase): number | null {
  const { addon } = torchBackend();
  const folder = mkdtempSync(path.join(tmpdir(), 'covey-gpu-'));
  try {
    const file = path.join(folder, 'trace.json');
    ours.step();
    addon.traceStart();
    for (let i = 0; i < 5; i++) ours.step();
    addon.synchronize();
    addon.traceStop(file);
    return busyShare((JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: TraceEvent[] }).traceEvents);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
