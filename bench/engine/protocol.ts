/**
 * What the benchmark and its sides say to each other, one JSON line each way. A side is a process: covey's (bench/engine/side.ts) or
 * PyTorch's (bench/peers/engine.py). Both understand exactly this.
 */

import type { ModelConfig } from '../../common/config/run-config.ts';

export type Precision = 'fp32' | 'bf16';

/** The first line. */
export interface SideSettings {
  readonly threads: number;
  readonly precision: Precision;
  /** The training step that `steps` runs. Null: the side only answers `op` and `gemm`. */
  readonly step: StepSpec | LanesSpec | null;
}

export interface Ready {
  readonly version: string;
}

export type SideRequest =
  | { readonly do: 'steps'; readonly count: number }
  | { readonly do: 'op'; readonly spec: OpSpec; readonly count: number }
  | { readonly do: 'check'; readonly spec: OpSpec }
  | { readonly do: 'gemm'; readonly size: number; readonly count: number }
  | { readonly do: 'memory' };

/** One entry per repetition. */
export interface Timings {
  readonly wallMs: readonly number[];
  /** Of the whole process, all threads. On a machine with other work this says more than the clock on the wall. */
  readonly cpuMs: readonly number[];
}

export interface StepsAnswer extends Timings {
  readonly losses: readonly number[];
}

/** By phase: `forward` and `backward`, or `update`. */
export type OpAnswer = Readonly<Record<string, Timings>>;

/** [sum, √(sum of squares)] of every output and every input's gradient, or of every parameter after one update. */
export type CheckAnswer = readonly (readonly [sum: number, norm: number])[];

export interface GemmAnswer {
  /** Of the fastest repetition. */
  readonly gflops: number;
}

export interface MemoryAnswer {
  /** Resident set when the libraries were loaded and nothing was computed yet. */
  readonly baseMiB: number;
  /** The largest resident set so far (VmHWM). */
  readonly peakMiB: number;
}

/** One op at one shape. */
export type OpSpec = { readonly name: string } & (
  | { readonly op: 'linear'; readonly rows: number; readonly inputs: number; readonly outputs: number }
  | {
      readonly op: 'attention';
      readonly batch: number;
      readonly tokens: number;
      readonly heads: number;
      readonly headWidth: number;
      readonly causal: boolean;
    }
  | { readonly op: 'layerNorm'; readonly rows: number; readonly width: number }
  | { readonly op: 'addLayerNorm'; readonly rows: number; readonly width: number }
  | { readonly op: 'gelu'; readonly rows: number; readonly width: number }
  | {
      readonly op: 'block';
      readonly batch: number;
      readonly tokens: number;
      readonly width: number;
      readonly heads: number;
    }
  | { readonly op: 'adamW'; readonly shapes: readonly (readonly number[])[] }
);

/** How a parameter starts: one value, or `hashValues(index of the parameter + 1, count, bound)`. */
export interface StepParameter {
  readonly name: string;
  readonly shape: readonly number[];
  readonly start: { readonly constant: number } | { readonly bound: number };
}

/** One training step: forward, backward, AdamW. All sides compute the same function from the same first values. */
export interface StepSpec {
  readonly model: 'transformer' | 'image' | 'text' | 'resnet';
  readonly batch: number;
  /** Sizes by name; what each model reads is written where it is built. */
  readonly sizes: Readonly<Record<string, number>>;
  readonly parameters: readonly StepParameter[];
  readonly optimizer: {
    readonly lr: number;
    readonly beta1: number;
    readonly beta2: number;
    readonly eps: number;
    readonly weightDecay: number;
  };
}

/** A step as a covey worker takes it: CLIP in lanes through `LaneTrainer`, loss and update included. Only covey's side knows it. */
export interface LanesSpec {
  readonly model: 'lanes';
  readonly config: ModelConfig;
  readonly batch: number;
  readonly lanes: number;
}
