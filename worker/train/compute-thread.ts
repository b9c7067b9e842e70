import { parentPort, workerData } from 'node:worker_threads';
import { errorRecord } from '../../common/error-record.ts';
import { assert, CoveyError } from '../../common/errors.ts';
import {
  allocationError,
  type Engine,
  type FallbackUse,
  fallbackUses,
  loadEngine,
  onHotFallback,
  tensorDebugger,
} from '../../engine/index.ts';
import { learningRate } from '../../models/schedule.ts';
import { SyncCollectives } from '../collectives/sync-collectives.ts';
import { EvaluationThread } from '../eval/evaluation-thread.ts';
import type { TrainedModel } from '../objectives/objective.ts';
import { objectiveInputs } from '../objectives/objective-inputs.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';
import { SoloCollectives } from './blocking-collectives.ts';
import {
  CONTROL_EPOCH,
  type ComputeAnswer,
  type ComputeRequest,
  type ComputeSetup,
  type EvaluationAnswer,
  type StepReply,
} from './compute-protocol.ts';
import { type FittedMicroBatch, fitMicroBatch } from './fit-micro-batch.ts';
import type { InitialWeights } from './initial-weights.ts';
import type { LaneTrainer, StepResult } from './lane-trainer.ts';
import { newTrainer } from './new-trainer.ts';
import { StateView } from './state-layout.ts';
import { stepFlops } from './step-flops.ts';
import { syntheticLanes } from './synthetic-lanes.ts';
import { TensorWatch } from './tensor-watch.ts';

/** The compute thread of a worker: synchronous tfjs, driven by messages, blind to time and network. */
class ComputeThread {
  readonly #setup: ComputeSetup;
  readonly #engine: Engine;
  readonly #collectives: BlockingCollectives;
  readonly #alone: BlockingCollectives;
  #model: TrainedModel | undefined;
  #trainer: LaneTrainer | undefined;
  #evaluation: EvaluationThread | undefined;
  #watch: TensorWatch | undefined;
  /** Step the weights are ready for. */
  #nextStep = 0;
  /** Epoch in which a step failed: whatever is still queued behind it must not run. */
  #brokenEpoch = -1;
  readonly #newlyHot: FallbackUse[] = [];

  constructor(setup: ComputeSetup, engine: Engine) {
    this.#setup = setup;
    this.#engine = engine;
    onHotFallback((use) => this.#newlyHot.push(use));
    this.#alone = new SoloCollectives(setup.config.train.lanes, (target, source) => engine.addVectors(target, source));
    this.#collectives = setup.collectives ? new SyncCollectives(setup.collectives) : this.#alone;
  }

  handle(request: ComputeRequest): unknown {
    switch (request.kind) {
      case 'initialise':
        return this.#initialise(request.weights);
      case 'holdLanes':
        this.#required.holdLanes(request.begin, request.end);
        return null;
      case 'step':
        return this.#step(request);
      case 'evaluate':
        return this.#evaluate(request);
      case 'exportState':
        if (request.step !== this.#nextStep) {
          throw new CoveyError('ABORTED', `the weights are those of step ${this.#nextStep}, not ${request.step}`);
        }
        this.#required.exportState(this.#view(request.buffer), request.step);
        return null;
      case 'importState': {
        const header = this.#required.importState(this.#view(request.buffer));
        this.#nextStep = header.step;
        return { step: header.step, weightsDigest: this.#required.weightsDigest() };
      }
      case 'digest':
        return this.#required.weightsDigest();
      case 'close':
        this.#trainer?.dispose();
        this.#model?.dispose();
        this.#engine.close();
        return tensorDebugger()?.report('start') ?? [];
    }
  }

  /** Weights from the seed, or those given: the same on every worker, so the first generation needs no transfer. */
  #initialise(weights: InitialWeights | undefined): unknown {
    const { config, model: modelConfig } = this.#setup;
    this.#trainer?.dispose();
    this.#model?.dispose();
    this.#watch = new TensorWatch(tensorDebugger());
    const { model, objective, trainer } = newTrainer(config, modelConfig, this.#engine, weights);
    this.#model = model;
    this.#trainer = trainer;
    this.#evaluation = new EvaluationThread({ config, modelConfig }, { engine: this.#engine, model, objective });
    this.#nextStep = 0;
    return {
      engine: this.#engine.name,
      description: this.#engine.description,
      parameterFloats: trainer.layout.parameterFloats,
      bufferFloats: trainer.bufferFloats,
      stateSections: trainer.stateSections,
      parameters: model.parameters.map(({ name, shape }) => ({ name, shape: [...shape] })),
      buffers: (model.buffers ?? []).map(({ name, shape }) => ({ name, shape: [...shape] })),
      weightsDigest: trainer.weightsDigest(),
      microBatch: this.#fitMicroBatch(trainer),
    };
  }

  /** Where the config leaves it to the worker: what fits in its memory. */
  #fitMicroBatch(trainer: LaneTrainer): FittedMicroBatch {
    const { config, model } = this.#setup;
    const { train } = config;
    if (train.microBatch !== 'auto') return { microBatch: trainer.microBatch, trials: [] };
    const laneBatch = train.globalBatch / train.lanes;
    const inputs = objectiveInputs(config);
    const [lane] = syntheticLanes(model, { lanes: 1, laneBatch, inputs });
    const { memoryBytesMax } = train;
    return fitMicroBatch({ laneBatch, memoryBytesMax }, { trainer, engine: this.#engine, lane: lane! });
  }

  #step(request: Extract<ComputeRequest, { kind: 'step' }>): StepReply {
    if (Atomics.load(this.#setup.control, CONTROL_EPOCH) !== request.epoch || request.epoch === this.#brokenEpoch) {
      throw new CoveyError('ABORTED', `step ${request.step} was given up before it began`);
    }
    assert(request.step === this.#nextStep, 'steps are computed in order', {
      step: request.step,
      expected: this.#nextStep,
    });
    this.#engine.resetPeakMemory();
    const started = performance.now();
    const { train, eval: evaluation } = this.#setup.config;
    const { optimizer, steps } = train;
    const lr = learningRate(request.step, steps, optimizer);
    let result: StepResult;
    try {
      this.#collectives.enter(request.generation);
      result = this.#required.step(request.step, lr, request.lanes, this.#collectives);
    } catch (thrown) {
      this.#brokenEpoch = request.epoch;
      throw allocationError(thrown);
    }
    this.#nextStep = request.step + 1;
    const engineMemory = this.#engine.memory();
    const { everySteps } = evaluation.health;
    const healthDue = everySteps > 0 && this.#nextStep % everySteps === 0 && !result.skipped;
    return {
      ...result,
      health: healthDue ? this.#required.embeddingHealth() : null,
      weightsDigest: this.#required.weightsDigest(),
      learningRate: lr,
      stepSeconds: (performance.now() - started) / 1000,
      engineMemory,
      tensorGrowth: this.#watch?.after(engineMemory.tensors) ?? null,
      modelFlops: stepFlops(this.#setup.config, this.#setup.model, request.lanes).total,
      engineFallback: { uses: fallbackUses(), newlyHot: this.#newlyHot.splice(0) },
    };
  }

  /** The weights stay as they are; a part that fails ends the evaluation and the epoch, as a step does. */
  #evaluate({ epoch, generation, step, part, alone }: Extract<ComputeRequest, { kind: 'evaluate' }>): EvaluationAnswer {
    if (Atomics.load(this.#setup.control, CONTROL_EPOCH) !== epoch || epoch === this.#brokenEpoch) {
      throw new CoveyError('ABORTED', `the evaluation of step ${step} was given up`);
    }
    assert(step === this.#nextStep, 'the weights are those to be evaluated', { step, expected: this.#nextStep });
    try {
      const collectives = alone ? this.#alone : this.#collectives;
      collectives.enter(generation);
      const figures = this.#evaluation!.take(step, part, collectives);
      return figures && { ...figures, weightsDigest: this.#required.weightsDigest() };
    } catch (thrown) {
      this.#brokenEpoch = epoch;
      throw thrown;
    }
  }

  #view(buffer: SharedArrayBuffer): StateView {
    const { layout, bufferFloats, stateSections } = this.#required;
    return new StateView(buffer, { parameterFloats: layout.parameterFloats, bufferFloats, stateSections });
  }

  get #required(): LaneTrainer {
    assert(this.#trainer !== undefined, 'the compute thread was initialised');
    return this.#trainer;
  }
}

const port = parentPort;
assert(port !== null, 'compute-thread runs as a worker thread');
const setup = workerData as ComputeSetup;
const { workers, train } = setup.config;
const engine = await loadEngine({
  engine: workers.engine,
  threads: setup.threads,
  device: setup.device ?? workers.device,
  index: setup.workerNumber ?? 0,
  // Who computes in bf16 has no use for more than TF32 in the few products that stay fp32.
  tf32: train.precision === 'bf16',
  deterministic: train.deterministic,
});
const thread = new ComputeThread(setup, engine);
port.on('message', ({ id, request }: { id: number; request: ComputeRequest }) => {
  let answer: ComputeAnswer;
  try {
    answer = { id, ok: true, value: thread.handle(request) };
  } catch (thrown) {
    answer = { id, ok: false, error: errorRecord(thrown) };
  }
  port.postMessage(answer);
  if (request.kind === 'close') port.close();
});
