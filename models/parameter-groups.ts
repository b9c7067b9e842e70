import type { OptimizerConfig } from '../common/config/run-config.ts';

/** What a decay rule looks at. */
export interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

const EMBEDDINGS_NOT_DECAYED = /(^|\.)(class_embedding|positional_embedding)$/;
const LEGACY_NOT_DECAYED = /bn|ln|bias|logit_scale/;

/**
 * For each parameter, in order: is weight decay applied to it?
 * `v4` (open_clip 3.x/4.x `optim.py`): not to tensors of at most one dimension, nor to class and positional embeddings.
 * `legacy` (`legacy_main.py`): not to tensors of fewer than two dimensions, nor to names with bn, ln, bias or logit_scale; positional
 * embeddings are 2-D and therefore decayed.
 */
export function parameterGroups(parameters: readonly NamedShape[], decayRule: OptimizerConfig['decayRule']): boolean[] {
  return parameters.map(({ name, shape }) => {
    if (shape.length < 2) return false;
    return !(decayRule === 'v4' ? EMBEDDINGS_NOT_DECAYED : LEGACY_NOT_DECAYED).test(name);
  });
}
