import type { OptimizerConfig } from '../../common/config/run-config.ts';
import type { OptimizerSpec } from '../../engine/index.ts';

const MOMENTUM = 0.9;
/** η of SimCLR's, MoCo v3's and lightly's LARS. */
const TRUST_COEFFICIENT = 1e-3;

/** The optimiser that a checked config names, with what the config leaves open filled in. */
export function optimizerSpec(config: OptimizerConfig): OptimizerSpec {
  const { name = 'adamw', beta1, beta2, eps, momentum = MOMENTUM, nesterov = false } = config;
  switch (name) {
    case 'adamw':
      return { name, beta1, beta2, eps };
    case 'sgd':
      return { name, momentum, nesterov };
    case 'lars': {
      const { variant = 'simclr', trustCoefficient = TRUST_COEFFICIENT } = config;
      return { name, variant, momentum, nesterov, trustCoefficient };
    }
    case 'lamb':
      return { name, beta1, beta2, eps, biasCorrection: config.biasCorrection ?? true };
    case 'lion':
      return { name, beta1, beta2 };
  }
}
