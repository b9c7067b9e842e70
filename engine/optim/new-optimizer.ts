import { CoveyError } from '../../common/errors.ts';
import type { Engine } from '../engine.ts';
import { AdamW, type AdamWOptions } from './adamw.ts';
import { Lamb, type LambOptions } from './lamb.ts';
import { Lars, type LarsOptions } from './lars.ts';
import { Lion, type LionOptions } from './lion.ts';
import type { Optimizer, OptimizerParameters } from './optimizer.ts';
import { Sgd, type SgdOptions } from './sgd.ts';

/** What depends on the parameters: the rest of an optimiser's options is its spec. */
interface PerParameter extends OptimizerParameters {
  /** Has the parameter a trust ratio (LARS, LAMB)? */
  readonly adapted: readonly boolean[];
}

type Own<Options> = Omit<Options, keyof PerParameter>;

/** An optimiser by name, with its constants. */
export type OptimizerSpec =
  | ({ readonly name: 'adamw' } & Own<AdamWOptions>)
  | ({ readonly name: 'sgd' } & Own<SgdOptions>)
  | ({ readonly name: 'lars' } & Own<LarsOptions>)
  | ({ readonly name: 'lamb' } & Own<LambOptions>)
  | ({ readonly name: 'lion' } & Own<LionOptions>);

/** The caller disposes it. @throws UNSUPPORTED for all but AdamW on a GPU: their kernels read the CPU's memory */
export function newOptimizer(engine: Engine, spec: OptimizerSpec, parameters: PerParameter): Optimizer {
  if (spec.name !== 'adamw' && engine.device !== 'cpu') {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot train with ${spec.name} on ${engine.device}: only adamw runs on GPUs so far; set train.optimizer.name or workers.device: cpu`,
      { fields: { optimizer: spec.name, device: engine.device } },
    );
  }
  switch (spec.name) {
    case 'adamw':
      return new AdamW(engine, { ...spec, ...parameters });
    case 'sgd':
      return new Sgd(engine, { ...spec, ...parameters });
    case 'lars':
      return new Lars(engine, { ...spec, ...parameters });
    case 'lamb':
      return new Lamb(engine, { ...spec, ...parameters });
    case 'lion':
      return new Lion(engine, { ...spec, ...parameters });
  }
}
